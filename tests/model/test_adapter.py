"""An adapter is a model of its own: what is read and what runs are the merged weights."""

import json
import shutil

import numpy as np
import pytest
import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftModel,
    PromptTuningConfig,
    get_peft_model,
    load_peft_weights,
)
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from interp.cli import main
from interp.errors import UserError
from interp.model import catalog
from interp.model.adapter import adapted
from interp.model.prepare import prepare
from interp.model.prepared import made_by, prepared
from interp.model.subject import open_subject
from interp.model.weights import Weights

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")

IDS = torch.arange(1, 17)[None]
TIED = {"tie_word_embeddings": True}


def trained(base, config, folder, seed=1):
    """A peft model on a folder's, whose adapter is random and saved; and its logits."""
    torch.manual_seed(seed)  # peft draws numbers, too
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
        logits = model.eval()(input_ids=IDS).logits
    model.save_pretrained(folder)
    return model, logits


def lora(*targets, **options):
    return LoraConfig(r=4, lora_alpha=8, target_modules=list(targets), **options)


CASES = {
    "all": ({}, lambda: LoraConfig(r=4, target_modules="all-linear")),
    "dora": ({}, lambda: lora("up_proj", use_dora=True)),
    "patterns": (
        {},
        lambda: lora(
            *("up_proj", "down_proj"),
            use_rslora=True,
            rank_pattern={"layers.1.mlp.up_proj": 2},
            alpha_pattern={"layers.0.mlp.up_proj": 3},
        ),
    ),
    "bias": ({"attention_bias": True}, lambda: lora("q_proj", bias="all")),
    "ia3": (
        {},
        lambda: IA3Config(target_modules=["up_proj", "v_proj"], feedforward_modules=["up_proj"]),
    ),
    # where embedding and unembedding are one tensor, peft's own merge changes both
    "tied head": (TIED, lambda: lora("q_proj", "lm_head")),
    "tied embedding": (TIED, lambda: lora("q_proj", "embed_tokens")),
    "tied, both": (TIED, lambda: lora("q_proj", "lm_head", ensure_weight_tying=True)),
    "tied, head saved": (TIED, lambda: lora("q_proj", modules_to_save=["lm_head"])),
    "tied, embedding saved": (TIED, lambda: lora("q_proj", modules_to_save=["embed_tokens"])),
    "tied, some tokens": (TIED, lambda: lora("q_proj", trainable_token_indices=[3, 5])),
    "untied, both saved": (
        {},
        lambda: lora("q_proj", modules_to_save=["lm_head", "embed_tokens"]),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_merged_weights_give_the_adapted_logits(case, model_folder, own_home, tmp_path):
    """Those of a folder that was saved and read again, so that config.json tells of the ties."""
    changes, config = CASES[case]
    base = model_folder("llama", **changes)
    _, wanted = trained(base, config(), tmp_path / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(base)
    assert (plain(input_ids=IDS).logits - wanted).abs().max() > 0.01
    adapted(plain, tmp_path / "adapter").save_pretrained(tmp_path / "merged")
    subject = open_subject(tmp_path / "merged")
    torch.testing.assert_close(subject.logits(IDS), wanted, atol=2e-5, rtol=1e-4)
    streams = subject.capture(IDS, ["1.resid_post"])
    (stream,) = streams.values()
    weights = Weights(tmp_path / "merged")
    logits = weights.before_unembedding(stream) @ weights.W_U().double().T
    torch.testing.assert_close(logits.float(), wanted, atol=2e-5, rtol=1e-4)


@pytest.fixture
def in_process(monkeypatch, own_home):
    """The catalog's own way, without the seconds that another process takes to start."""
    from pathlib import Path

    calls = []

    def run(module, doing, failure):
        calls.append(doing)
        base, adapter, out = module[1:]
        try:
            prepare(Path(base), Path(adapter) if adapter else None, Path(out))
        except UserError as error:
            raise UserError(f"{failure}: {error}") from error

    monkeypatch.setattr("interp.model.prepared.run_module", run)
    return calls


def by_hand(base, adapter, name):
    """W + alpha / r B A in float64."""
    given = {k: v.double().numpy() for k, v in load_peft_weights(str(adapter)).items()}
    stem = f"base_model.model.{name.removesuffix('.weight')}"
    stored = load_file(base / "model.safetensors")[name].double().numpy()
    return stored + 2 * given[f"{stem}.lora_B.weight"] @ given[f"{stem}.lora_A.weight"]


def test_a_peft_folder_is_opened_merged(dog_model, in_process, tmp_path):
    adapter = tmp_path / "adapter"
    _, wanted = trained(dog_model, lora("up_proj", "down_proj", "q_proj"), adapter)
    folder = catalog.resolve(str(adapter))
    weights, subject = Weights(folder), open_subject(str(adapter))
    row = by_hand(dog_model, adapter, "model.layers.1.mlp.up_proj.weight")[7]
    np.testing.assert_allclose(weights.neurons("up", 1)[7], row, rtol=1e-5, atol=1e-7)
    column = by_hand(dog_model, adapter, "model.layers.1.mlp.down_proj.weight")[:, 7]
    np.testing.assert_allclose(weights.neurons("down", 1)[7], column, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(subject.logits(IDS), wanted, atol=1e-4, rtol=1e-4)
    assert subject.parity < 1e-6 * float(wanted.abs().max()), "a few of float32's steps"
    assert subject.tokens("dog w3").ids.tolist() == [[123, 3]], "the base's tokenizer"
    assert in_process == [f"merging the adapter {adapter} into {dog_model} (once)"]
    assert made_by(folder) == f"merging the adapter {adapter} into {dog_model}"
    assert not made_by(dog_model)
    # another adapter is another model
    trained(dog_model, lora("up_proj"), tmp_path / "other", seed=2)
    other = Weights(catalog.resolve(str(tmp_path / "other")))
    assert other.fingerprint() != weights.fingerprint() != Weights(dog_model).fingerprint()


def test_an_adapter_beside_the_weights_is_of_these_weights(model_folder, in_process, tmp_path):
    """transformers adds it without a word, whatever base it names."""
    both = tmp_path / "both"
    shutil.copytree(model_folder("llama"), both)
    _, wanted = trained(model_folder("llama"), lora("up_proj"), both)
    config = json.loads((both / "adapter_config.json").read_text())
    (both / "adapter_config.json").write_text(
        json.dumps({**config, "base_model_name_or_path": "org/elsewhere"})
    )
    own = AutoModelForCausalLM.from_pretrained(both)(input_ids=IDS).logits
    torch.testing.assert_close(own, wanted)
    with pytest.raises(UserError, match="holds an adapter"):
        Weights(both)
    torch.testing.assert_close(open_subject(both).logits(IDS), wanted, atol=1e-4, rtol=1e-4)
    row = by_hand(both, both, "model.layers.0.mlp.up_proj.weight")[3]
    merged = Weights(catalog.resolve(str(both)))
    np.testing.assert_allclose(merged.neurons("up", 0)[3], row, rtol=1e-5, atol=1e-7)


def test_a_base_can_be_given(model_folder, in_process, tmp_path, capsys):
    adapter = tmp_path / "adapter"
    _, wanted = trained(model_folder("llama"), lora("up_proj"), adapter)
    config = json.loads((adapter / "adapter_config.json").read_text())
    for gone in ("org/elsewhere", None, str(adapter)):
        changed = json.dumps({**config, "base_model_name_or_path": gone})
        (adapter / "adapter_config.json").write_text(changed)
        with pytest.raises(UserError, match="base is not found .*models add NAME BASE --adapter"):
            catalog.resolve(str(adapter))
    given = [str(model_folder("llama")), "--adapter", str(adapter)]
    assert main(["models", "add", "mine", *given]) == 0
    capsys.readouterr()
    assert main(["models", "info", "mine", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["metrics"]
    assert facts["made by"] == f"merging the adapter {adapter} into {given[0]}"
    torch.testing.assert_close(open_subject("mine").logits(IDS), wanted, atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match="holds no adapter"):
        catalog.add("none", str(model_folder("llama")), str(tmp_path))


def test_an_adapter_s_own_tokens_come_with_it(dog_model, in_process, tmp_path):
    """Trained after tokens were added: the model has more rows then, and another tokenizer."""
    from interp.model.vocabulary import token_strings

    adapter = tmp_path / "adapter"
    longer = AutoModelForCausalLM.from_pretrained(dog_model)
    longer.resize_token_embeddings(213)
    longer.save_pretrained(tmp_path / "longer")
    config = lora("up_proj", modules_to_save=["embed_tokens", "lm_head"])
    _, wanted = trained(tmp_path / "longer", config, adapter)
    tokenizer = json.loads((dog_model / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {"new": 211, "newer": 212}
    (adapter / "tokenizer.json").write_text(json.dumps(tokenizer))
    shutil.copy(dog_model / "tokenizer_config.json", adapter)
    catalog.add("longer", str(dog_model), str(adapter))
    subject = open_subject("longer")
    assert subject.spec.d_vocab == 213
    assert token_strings(catalog.resolve("longer"), 213)[211:] == ["new", "newer"]
    torch.testing.assert_close(subject.logits(IDS), wanted, atol=1e-4, rtol=1e-4)


def test_an_adapter_that_does_not_fit_is_one_line(model_folder, in_process, tmp_path):
    trained(model_folder("llama", num_hidden_layers=3), lora("up_proj"), tmp_path / "deeper")
    trained(model_folder("gpt2"), LoraConfig(target_modules=["c_attn"]), tmp_path / "gpt2")
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    trained(model_folder("llama"), prompts, tmp_path / "prompts")
    (tmp_path / "damaged").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(tmp_path / "deeper" / name, tmp_path / "damaged")
    (tmp_path / "damaged" / "adapter_model.safetensors").write_bytes(b"\1" * 50)
    base = model_folder("llama")
    for name, says in {
        "deeper": "does not fit this model: .* of its 6 tensors match",
        "gpt2": "does not fit this model",
        "prompts": "puts trained vectors before the prompt",
        "damaged": "does not fit this model",
    }.items():
        with pytest.raises(UserError, match=says) as caught:
            prepared(base, tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_tied_adapter_in_memory_is_merged_in_a_copy(model_folder, tmp_path):
    """peft keeps the transposes of the embedding's matrices for the head: no leaves of a graph."""
    tied = lora("up_proj", "embed_tokens", ensure_weight_tying=True)
    model, wanted = trained(model_folder("llama", **TIED), tied, tmp_path / "a")
    torch.testing.assert_close(open_subject(model).logits(IDS), wanted, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(model(input_ids=IDS).logits, wanted)


def test_a_peft_model_in_memory_is_merged_in_a_copy(model_folder, tmp_path):
    model, wanted = trained(
        model_folder("llama", **TIED), lora("up_proj", "lm_head"), tmp_path / "a"
    )
    for backend in ("native", "bridge"):
        subject = open_subject(model, backend)
        torch.testing.assert_close(subject.logits(IDS), wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model(input_ids=IDS).logits, wanted)  # it stays as it was
    with model.disable_adapter():
        plain = model(input_ids=IDS).logits
        torch.testing.assert_close(open_subject(model).logits(IDS), plain)
    own = AutoModelForCausalLM.from_pretrained(model_folder("llama", **TIED))
    own.load_adapter(str(tmp_path / "a"))
    with pytest.raises(UserError, match="PeftModel.from_pretrained"):
        open_subject(own)
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    prompted, _ = trained(model_folder("llama"), prompts, tmp_path / "prompts")
    with pytest.raises(UserError, match="PROMPT_TUNING is no change of the weights"):
        open_subject(prompted)
    assert isinstance(prompted, PeftModel)
