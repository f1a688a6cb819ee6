"""What is fetched of repositories of the shapes there are, and one line for what is refused.

The listings are those of the real repositories, shortened where a pattern repeats.
"""

import fnmatch
from types import SimpleNamespace

import pytest
from huggingface_hub import errors

from interp.errors import UserError
from interp.model import catalog
from interp.model.hub import from_hub

SMALL = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
SHARDS = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)] + ["model.safetensors.index.json"]
REPOSITORIES = {
    "mistralai/Mistral-7B": (
        [*SMALL, *SHARDS, "tokenizer.model", "special_tokens_map.json"],
        ["consolidated.safetensors", "params.json", "tokenizer.model.v3", "tekken.json"],
    ),
    "openai-community/gpt2": (
        [*SMALL, "model.safetensors", "vocab.json", "merges.txt"],
        ["64.tflite", "flax_model.msgpack", "pytorch_model.bin", "rust_model.ot", "tf_model.h5",
         "onnx/config.json", "onnx/decoder_model.onnx", "onnx/vocab.json", "onnx/merges.txt",
         "openvino/64-8bits/openvino_model.xml", "openvino/config.json"],
    ),
    "EleutherAI/pythia-70m": (
        [*SMALL[:1], *SMALL[2:], "model.safetensors", "special_tokens_map.json"],
        [".gitattributes", "pytorch_model.bin", "model.fp32-00001-of-00002.safetensors",
         "model.fp16.safetensors", "model-00001-of-00002.fp16.safetensors",
         "model.safetensors.index.fp16.json", "checkpoint-500/model.safetensors",
         "checkpoint-500/config.json", "trainer_state.json"],
    ),
    "meta-llama/Llama-3.1-8B": (
        [*SMALL, *SHARDS, "special_tokens_map.json"],
        ["original/consolidated.00.pth", "original/params.json", "original/tokenizer.model",
         "LICENSE", "USE_POLICY.md"],
    ),
    "org/with-adapter-and-gguf": (
        [*SMALL, "model.safetensors", "chat_template.jinja"],
        ["adapter_config.json", "adapter_model.safetensors", "model-q4_k_m.gguf",
         "adapter/adapter_config.json", "adapter/adapter_model.safetensors"],
    ),
    "org/adapter": (
        ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json",
         "tokenizer_config.json", "chat_template.jinja"],
        ["README.md", "optimizer.pt", "training_args.bin", "checkpoint-100/adapter_config.json",
         "checkpoint-100/adapter_model.safetensors", "all_results.json"],
    ),
    "org/other-tokenizer": ([*SMALL[:2], "model.safetensors", "tekken.json"], ["params.json"]),
}  # fmt: skip


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """`hub(listing)`: a hub with one repository; what is fetched of it lands in the folder."""

    def made(listing, error=None):
        folder = tmp_path / "snapshot"
        folder.mkdir()

        def download(repository, revision, allow_patterns, ignore_patterns):
            if error:
                raise error
            for name in listing:
                if any(fnmatch.fnmatch(name, p) for p in ignore_patterns):
                    continue
                if any(fnmatch.fnmatch(name, p) for p in allow_patterns):
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (folder / name).touch()
            return str(folder)

        def listed(self, repository, revision=None):
            return listing

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", listed)
        return folder

    return made


@pytest.mark.parametrize("name", REPOSITORIES)
def test_what_is_needed_and_no_more(hub, name):
    needed, others = REPOSITORIES[name]
    folder = hub(needed + others)
    assert from_hub(name) == folder
    fetched = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert fetched == set(needed)


@pytest.mark.parametrize(
    ("listing", "says"),
    [
        ([*SMALL, "pytorch_model.bin"], "its weights are a pickle.*convert it once"),
        ([*SMALL, "pytorch_model-00001-of-00002.bin"], "its weights are a pickle"),
        (["README.md", "m.Q4_K_M.gguf"], r"GGUF files: fetch one \(m.Q4_K_M.gguf\)"),
        (["params.json", "consolidated.00.pth", "tokenizer.model"], "the original release's form"),
        # gemma-scope: SAEs, not a model
        (["README.md", "layer_12/width_16k/average_l0_71/params.npz"], "has no model.safetensors"),
    ],
)
def test_a_repository_without_such_weights(hub, listing, says):
    hub(listing)
    with pytest.raises(UserError, match=says) as caught:
        from_hub("org/model")
    assert "\n" not in str(caught.value)


LOST = errors.HfHubHTTPError.__bases__[0]
"""What the HTTP client raises."""


def _http(kind, status):
    return kind(f"{status} Client Error.\nhelp", response=SimpleNamespace(headers={}, request=None))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (_http(errors.GatedRepoError, 403), "is gated: accept its terms at https://hugg.*hf auth"),
        (_http(errors.RepositoryNotFoundError, 401), "no 'org/model', or it is private"),
        (_http(errors.RevisionNotFoundError, 404), "has no revision 'v9' on the hub"),
        (_http(errors.HfHubHTTPError, 503), "the hub does not give 'org/model@v9': 503 Client"),
        (errors.LocalEntryNotFoundError("x"), "is not in the local hub cache.* no network"),
        (LOST("connection lost"), "does not give 'org/model@v9': connection lost"),
        (OSError("disk full"), "disk full"),
    ],
)
def test_a_hub_that_does_not_give_it_is_one_line(hub, error, says):
    hub([], error)
    with pytest.raises(UserError, match=says) as caught:
        catalog.resolve("org/model@v9")
    assert "\n" not in str(caught.value)
