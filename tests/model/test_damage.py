"""Damaged models of every kind that fuzzing found: one line that names the file, and no memory."""

import json
import shutil
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from interp.errors import UserError, reason
from interp.model.adapter import adapted
from interp.model.catalog import resolve
from interp.model.checkpoint import load_model
from interp.model.families import WRAPPERS, read_spec
from interp.model.files import home
from interp.model.gguf.config import read_config
from interp.model.gguf.file import read_gguf
from interp.model.prepare import prepare
from interp.model.prompting import Prompting
from interp.model.subject import open_subject
from interp.model.tokenizer_damage import Refusing
from interp.model.tokenizer_files import load_tokenizer
from interp.model.vocabulary import token_strings
from interp.model.weights import Weights

from .gguf_files import metadata_only


@pytest.fixture
def model(dog_model, tmp_path):
    """A copy of a model with a tokenizer."""
    return shutil.copytree(dog_model, tmp_path / "model")


def change(path, **fields):
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | fields))


def refusal(call, *arguments) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 600
    return line


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_hidden_layers": 2**31}, "has 2147483648 as 'num_hidden_layers', and there are"),
        ({"num_attention_heads": 10**9}, "has 1000000000 as 'num_attention_heads'"),
        ({"vocab_size": 10**9}, "is [211, 32] where config.json implies [1000000000, 32]"),
        ({"intermediate_size": 10**9}, "where config.json implies [32, 1000000000]"),
        ({"head_dim": 10**9}, "where config.json implies [32, 4000000000]"),
        ({"num_hidden_layers": [[]]}, "'num_hidden_layers' is []"),
    ],
)
def test_sizes_that_no_tensor_has_cost_nothing(fields, says, model):
    change(model / "config.json", **fields)
    for opening in (Weights, open_subject):
        assert says in refusal(opening, model)


def test_a_field_without_a_name_is_none(model):
    """Families have "" for a field that they lack: it is no factor of the logits."""
    sound = Weights(model).spec
    change(model / "config.json", **{"": 2.0})
    assert Weights(model).spec == sound


@pytest.mark.parametrize("eps", [10**400, float("nan"), float("inf"), -1, "x"])
def test_numbers_that_cannot_be_name_the_folder(eps, model):
    change(model / "config.json", rms_norm_eps=eps)
    says = refusal(Weights, model)
    assert says.startswith(f"{model}: config.json is damaged: 'rms_norm_eps' is ")


def test_a_context_that_would_be_a_buffer_of_gigabytes(model_folder, tmp_path):
    """GPT-2 makes a table of positions, and a mask of context x context."""
    folder = shutil.copytree(model_folder("gpt2"), tmp_path / "model")
    change(folder / "config.json", n_positions=10**6, n_ctx=10**6, max_position_embeddings=10**6)
    says = refusal(open_subject, folder)
    assert "/config.json makes a model of" in says
    assert "and its files hold" in says


@pytest.mark.parametrize("fields", [{"pad_token_id": 10**6}, {"hidden_act": 2}, {"use_cache": []}])
def test_what_transformers_refuses_names_the_file(fields, model):
    change(model / "config.json", **fields)
    says = refusal(open_subject, model)
    assert f"transformers cannot load the model in {model} (" in says
    assert says.endswith(": mend its config.json or fetch it again")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"layer_types": ["sliding_attention", "full_attention"]}, "no attribute 'sliding_window'"),
        ({"layer_types": ["chunked_attention", "full_attention"]}, "'attention_chunk_size'"),
        ({"layer_types": ["linear_attention"] * 2}, "Cache seem to only contain LinearAttention"),
        ({"layer_types": ["linear_attention"] * 2, "use_cache": False}, "Cache seem to only"),
        ({"max_position_embeddings": -1}, "the config's 'max_position_embeddings' is -1"),
        ({"max_position_embeddings": 0}, "the config's 'max_position_embeddings' is 0"),
    ],
)
def test_a_model_that_cannot_run_is_a_line(fields, says, model):
    """transformers makes a model of the config, and fails as it runs."""
    change(model / "config.json", **fields)
    line = refusal(open_subject, model)
    assert says in line
    assert line.endswith(": mend its config.json or fetch it again")


@pytest.mark.parametrize("window", [0, -3])
def test_a_window_of_nothing_is_a_line(window, model_folder, tmp_path):
    folder = shutil.copytree(model_folder("mistral"), tmp_path / "model")
    change(folder / "config.json", sliding_window=window)
    assert "transformers cannot run this mistral model (" in refusal(open_subject, folder)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), "{} is no model folder: it has no config.json"),
        (lambda path: change(path, quantization_config=3), "transformers cannot load the model in"),
        (lambda path: change(path, use_cache=[]), "transformers cannot load the model in {} ("),
    ],
)
def test_what_cannot_be_prepared_is_a_line(damage, says, model, tmp_path):
    """By itself, too: as a command of its own it prints what it raises."""
    damage(model / "config.json")
    assert says.format(model) in refusal(prepare, model, None, tmp_path / "out")


@pytest.mark.parametrize("ends", ["2", [2, "x"], [[2]], 0.5, True])
def test_ends_of_a_text_are_token_ids(ends, model):
    change(model / "generation_config.json", eos_token_id=ends)
    assert f"'eos_token_id' of {model / 'generation_config.json'} is" in refusal(
        open_subject, model
    )


@pytest.mark.parametrize("name", ["../out.safetensors", "/etc/hosts", "..", "", "a\0b", "x" * 300])
def test_an_index_names_files_of_its_folder_alone(name, model_folder, tmp_path):
    folder = shutil.copytree(model_folder("llama"), tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(tensors, tmp_path / "out.safetensors")
    where = dict.fromkeys(tensors, name)
    change(folder / "model.safetensors.index.json", weight_map=where)
    assert "which is no file of the folder: fetch it again" in refusal(Weights, folder)
    shutil.copy(tmp_path / "out.safetensors", folder / "part.safetensors")
    change(
        folder / "model.safetensors.index.json",
        weight_map=dict.fromkeys(tensors, "part.safetensors"),
    )
    assert torch.equal(Weights(folder).W_U(), tensors["lm_head.weight"])


@pytest.fixture
def adapter(model, tmp_path):
    config = LoraConfig(r=2, target_modules=["v_proj"], init_lora_weights=False)
    get_peft_model(load_model(model), config).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"r": 10**8}, "has 100000000 as 'r', and no tensor of the adapter has a side of more"),
        ({"rank_pattern": {"v_proj": 10**8}}, "has 100000000 as 'rank_pattern'"),
        ({"r": "x"}, "does not fit this model ("),
        ({"peft_type": "NONE"}, "does not fit this model ("),
        ({"target_modules": "("}, "does not fit this model ("),
        ({"megatron_config": {"a": 1}, "megatron_core": "this"}, "has a 'megatron_config'"),
        ({"monteclora_config": 3}, "has a 'monteclora_config'"),
        ({"new_scale": 0.5}, "has 'new_scale', which this version of peft does not know"),
    ],
)
def test_a_damaged_adapter(fields, says, model, adapter):
    """`r` of 1e8 would be 26 GB; `megatron_core` names a module that peft imports."""
    change(adapter / "adapter_config.json", **fields)
    sys.modules.pop("this", None)
    line = refusal(adapted, load_model(model), adapter)
    assert says in line
    assert str(adapter) in line
    assert "this" not in sys.modules


def test_a_field_that_says_nothing_is_passed_over(model, adapter):
    """As a later version of peft writes it where it is not used."""
    change(adapter / "adapter_config.json", new_scale=None, new_flag=False)
    adapted(load_model(model), adapter)


def test_an_id_of_billions_takes_no_time(model):
    path = model / "tokenizer.json"
    said = json.loads(path.read_text())
    said["model"]["vocab"]["dog"] = 2**32 - 1
    path.write_text(json.dumps(said))
    assert token_strings(model, 211)[123] == "#123"


@pytest.mark.parametrize(
    "damage",
    [
        lambda said: said["model"]["vocab"].update(dog="x"),
        lambda said: said["model"].update(type="None"),
        lambda said: said.update(decoder=[[]]),
        lambda said: said.pop("model"),
        lambda said: said.update(normalizer={"type": "Upside"}),
    ],
)
def test_a_damaged_tokenizer_is_a_line_on_the_way_to_a_subject(damage, model):
    path = model / "tokenizer.json"
    said = json.loads(path.read_text())
    damage(said)
    path.write_text(json.dumps(said))
    with pytest.raises(Exception, match="."):
        Tokenizer.from_file(str(path))
    for opening in (load_tokenizer, open_subject, lambda folder: token_strings(folder, 5)):
        assert str(model) in refusal(opening, model)


def test_a_tokenizer_nested_deep_is_a_line(model):
    (model / "tokenizer.json").write_text("[" * 100_000)
    assert str(model) in refusal(load_tokenizer, model)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("tokenizer_config.json", {"model_max_length": "x"}),
        ("tokenizer_config.json", {"chat_template": 3}),
        ("tokenizer_config.json", {"chat_template": [{"name": "default"}]}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": "x"}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": {"content": 3}}}),
        ("tokenizer_config.json", {"init_inputs": ["/etc/hosts"]}),
        ("tokenizer_config.json", {"unk_token": {"content": []}}),
        ("special_tokens_map.json", {"bos_token": 3}),
        ("special_tokens_map.json", {"additional_special_tokens": [3]}),
    ],
)
def test_what_stands_beside_a_tokenizer_is_checked(name, fields, model):
    change(model / name, **fields)
    assert str(model / name) in refusal(load_tokenizer, model)


def test_a_special_token_that_is_no_token_is_none(model):
    change(model / "special_tokens_map.json", bos_token="")
    prompting = Prompting(load_tokenizer(model))
    assert None not in prompting.special


def test_a_path_in_a_tokenizers_config_is_not_opened(model, tmp_path):
    """transformers would take it where the folder has no file of that name."""
    change(model / "tokenizer_config.json", vocab_file=str(tmp_path / "none"), merges_file="/x")
    assert load_tokenizer(model)("dog")["input_ids"] == [123]


@pytest.mark.parametrize("kind", ["Exception", "PanicException"])
def test_what_the_rust_library_raises_is_a_line(kind):
    """Its own class of a panic cannot be imported: it is known by its module."""
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    error = {"Exception": Exception, "PanicException": panic}[kind]("it broke. Advice follows")

    def fails():
        with Refusing("cannot read it"):
            raise error

    assert refusal(fails) == "cannot read it (it broke): mend it or fetch it again"
    with pytest.raises(KeyboardInterrupt), Refusing("cannot read it"):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "template", ["{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{% for x in 3 %}{% endfor %}"]
)
def test_a_template_that_fails_is_a_line(template, model):
    change(model / "tokenizer_config.json", chat_template=template)
    prompting = Prompting(load_tokenizer(model))
    says = refusal(prompting.chat_text, [{"role": "user", "content": "dog"}])
    assert says.startswith("the chat template refuses the messages: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("tokens", 3), ("tokens", [1]), ("token_type", 3), ("merges", [1]), ("scores", "x")),
        *(("bos_token_id", [1]), ("eos_token_id", "x"), ("pre", []), ("model", [])),
    ],
)
def test_a_gguf_tokenizer_of_other_kinds(key, value):
    file = metadata_only("llama")
    file.metadata[f"tokenizer.ggml.{key}"] = value
    assert f"'tokenizer.ggml.{key}' in made.gguf is" in refusal(read_config, file)


@pytest.mark.parametrize("pattern", [0, -1, 0.5, "x", [True]])
def test_a_gguf_pattern_of_windows_that_cannot_be(pattern):
    file = metadata_only(
        "gemma3", attention__sliding_window=8, attention__sliding_window_pattern=pattern
    )
    assert "has a pattern of windows" in refusal(read_config, file)


def test_lists_in_each_other_in_a_gguf_file(tmp_path):
    """Each level is 12 bytes; Python recurses 1,000 deep."""
    path = tmp_path / "m.gguf"
    number = lambda n, size: n.to_bytes(size, "little")  # noqa: E731
    inner = number(9, 4) + number(1, 8)
    head = b"GGUF" + number(3, 4) + number(0, 8) + number(1, 8) + number(1, 8) + b"k"
    path.write_bytes(head + number(9, 4) + inner * 5000)
    assert "is truncated or damaged: fetch it again" in refusal(read_gguf, path)


def test_a_library_s_reason_is_its_first_sentence():
    assert reason(ValueError("Weights only load failed. Do it only if you trust it.")) == (
        "Weights only load failed"
    )
    assert reason(ValueError()) == "ValueError"
    assert len(reason(ValueError("x" * 999))) < 210


@pytest.mark.parametrize("kind", [[], {}, None, 3])
def test_a_model_inside_of_no_named_family(kind):
    deciding = next(name for name, each in WRAPPERS.items() if each.text_decides)
    config = {"model_type": deciding, "tie_word_embeddings": False}
    line = refusal(read_spec, {**config, "text_config": {"model_type": kind}})
    assert line.startswith("model family ")


@pytest.mark.parametrize("names", [{"x": "x"}, {"x": "y", "y": "z", "z": "y"}])
def test_names_that_stand_for_themselves(names, own_home):
    home().mkdir(parents=True, exist_ok=True)
    (home() / "models.json").write_text(json.dumps(names))
    assert "models.json has 'x' stand for itself" in refusal(resolve, "x")
