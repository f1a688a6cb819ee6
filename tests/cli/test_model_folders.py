"""Folders as people have them: a right value, or one line and exit code 2, for the weights that
are read and for the model that runs alike."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from interp.cli import main
from interp.errors import UserError
from interp.model.subject import open_subject
from interp.model.weights import open_weights

UP = "model.layers.1.mlp.up_proj.weight"


def config(**changes):
    """Change config.json; None takes a field out."""

    def change(folder):
        path = folder / "config.json"
        fields = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))

    return change


def quantised(method, **more):
    return config(quantization_config={"quant_method": method, **more})


def written(name, content):
    return lambda folder: (folder / name).write_text(content)


def renamed(old, new, content=None):
    def change(folder):
        (folder / old).rename(folder / new)
        if content is not None:
            (folder / old).write_text(content)

    return change


def tensors(change):
    def rewrite(folder):
        stored = load_file(folder / "model.safetensors")
        change(stored)
        save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})

    return rewrite


def truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def longer(folder):
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"\0" * 64)


def shards(change):
    """Two parts and their index, then changed."""

    def split(folder):
        model = AutoModelForCausalLM.from_pretrained(folder)
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, max_shard_size="60KB")
        change(folder, sorted(folder.glob("model-*.safetensors")))

    return split


def index_names_more(folder, parts):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["more.weight"] = parts[0].name
    path.write_text(json.dumps(index))


def original_release(folder):
    (folder / "model.safetensors").rename(folder / "consolidated.00.pth")
    (folder / "config.json").rename(folder / "params.json")


def gguf_alone(folder):
    (folder / "model.safetensors").rename(folder / "m.gguf")
    (folder / "config.json").unlink()


REFUSED = {
    "bnb 4 bit": (
        quantised("bitsandbytes", load_in_4bit=True),
        "quantised (bitsandbytes): install",
    ),
    "bnb of old": (config(quantization_config={"load_in_8bit": True}), "(bitsandbytes): install"),
    "awq": (quantised("awq"), "quantised (awq): open the checkpoint it was made from"),
    "gptq": (quantised("gptq", bits=4), "quantised (gptq): open the checkpoint it was made from"),
    "compressed": (quantised("compressed-tensors"), "CompressedTensorsConfig(dequantize=True)"),
    "torchao": (quantised("torchao"), "quantised (torchao): open the checkpoint"),
    "hqq": (quantised("hqq"), "quantised (hqq): open the checkpoint"),
    "inside": (
        config(text_config={"quantization_config": {"quant_method": "awq"}, "model_type": "llama"}),
        "is quantised (awq)",
    ),
    "not said": (
        tensors(lambda t: t.update({UP: t[UP].to(torch.int8)})),
        f"is quantised though its config.json does not say so ('{UP}' is I8)",
    ),
    "not said, packed": (
        tensors(lambda t: t.update({f"{UP[:-6]}qweight": t.pop(UP).int()})),
        "up_proj.qweight' is I32)",
    ),
    "truncated": (truncated, "is truncated or corrupt"),
    "longer than its header": (longer, "is truncated or corrupt"),
    "no header": (written("model.safetensors", "x"), "is truncated or corrupt"),
    "truncated part": (
        shards(lambda _, parts: parts[1].write_bytes(parts[1].read_bytes()[:-100])),
        "is truncated or corrupt",
    ),
    "missing part": (shards(lambda _, parts: parts[1].unlink()), "which its index names"),
    "part without a tensor": (shards(index_names_more), "lacks 'more.weight', which the index"),
    "parts without index": (
        shards(lambda folder, _: (folder / "model.safetensors.index.json").unlink()),
        "but no model.safetensors.index.json",
    ),
    "damaged index": (
        shards(lambda folder, _: written("model.safetensors.index.json", "[]")(folder)),
        "holds a list, not an object: fetch it again",
    ),
    "bin only": (
        renamed("model.safetensors", "pytorch_model.bin"),
        "only as pytorch_model.bin, a pickle, which is never opened: convert it once: python -c",
    ),
    "pth only": (renamed("model.safetensors", "model.pth"), "only as model.pth, a pickle"),
    "gguf beside a config": (
        renamed("model.safetensors", "m.gguf"),
        "has its weights as GGUF: name the file",
    ),
    "gguf alone": (gguf_alone, "holds GGUF files: name one of them"),
    "consolidated": (
        renamed("model.safetensors", "consolidated.safetensors"),
        "consolidated.safetensors is of the original release's form",
    ),
    "original release": (original_release, "consolidated.00.pth is of the original release's"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
    "other weights": (renamed("model.safetensors", "m.h5"), "only m.h5"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
    "broken config": (written("config.json", "{"), "is broken JSON"),
    "config of a list": (written("config.json", "[1]"), "holds a list, not an object"),
    "no model_type": (config(model_type=None), "has no model_type"),
    "a nonsense size": (config(hidden_size="big"), "'hidden_size' is 'big'"),
    "unknown family": (config(model_type="nonsense"), "'nonsense' is not known"),
    "t5": (
        config(model_type="t5", is_encoder_decoder=True),
        "is an encoder-decoder (t5): only models that are a decoder alone are opened",
    ),
    "bart": (config(model_type="bart", decoder_layers=2), "is an encoder-decoder (bart)"),
    "remote code": (
        config(model_type="own", auto_map={"AutoModelForCausalLM": "code.Own"}),
        "the code that comes with it (auto_map) is never run",
    ),
    "adapter of nothing": (written("adapter_config.json", "[]"), "holds a list, not an object"),
    "adapter of no kind": (written("adapter_config.json", "{}"), "it has no peft_type"),
    "adapter without weights": (
        written("adapter_config.json", '{"peft_type": "LORA"}'),
        "has no adapter_model.safetensors",
    ),
}


@pytest.fixture
def folder(dog_model, own_home, tmp_path):
    made = tmp_path / "model"
    shutil.copytree(dog_model, made)
    return made


@pytest.fixture
def asks_nothing(monkeypatch):
    def ask(prompt=""):
        raise AssertionError("it asks on standard input")

    monkeypatch.setattr("builtins.input", ask)


def refusal(call):
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused_with_one_line(case, folder, capsys, asks_nothing):
    change, says = REFUSED[case]
    change(folder)
    read = refusal(lambda: open_weights(str(folder)))
    assert says in read
    assert refusal(lambda: open_subject(folder)) == read
    capsys.readouterr()
    for command in (["neurons", "atlas"], ["neurons", "clamp", "--neuron", "1.down.17"]):
        assert main([*command, "--model", str(folder)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert read in err


def test_nan_weights_are_refused_by_both(folder, capsys):
    def damage(stored):
        stored[UP][7, 7] = float("nan")

    tensors(damage)(folder)
    assert "holds a NaN" in refusal(lambda: open_weights(str(folder)).neurons("up", 1))
    assert "holds a NaN" in refusal(lambda: open_subject(folder))
    assert main(["neurons", "atlas", "--model", str(folder)]) == 2
    assert "holds a NaN" in capsys.readouterr().err
    assert clamp(folder) == 2
    assert "holds a NaN" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (tensors(lambda t: t.pop(UP.replace("up", "gate"))), "gate_proj.weight"),
        (tensors(lambda t: t.update({UP: torch.zeros(3, 3)})), "is [3, 3] where config.json"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_both(change, says, folder):
    change(folder)

    def read():
        for kind in ("gate", "up"):
            open_weights(str(folder)).neurons(kind, 1)

    assert says in refusal(read)
    assert says in refusal(lambda: open_subject(folder))


def test_what_transformers_refuses_is_one_line(folder, capsys):
    """Of a config whose sizes are right."""
    config(rope_parameters={"rope_type": "nonsense", "rope_theta": 1e4})(folder)
    says = refusal(lambda: open_subject(folder))
    assert says.startswith(f"transformers cannot load the model in {folder} (KeyError: 'nonsense')")
    assert "\n" not in says
    assert clamp(folder) == 2
    assert "transformers cannot load the model in" in capsys.readouterr().err


def clamp(folder, **options):
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    neuron = ["--neuron", "1.down.17", "--value", "20", "--tokens", "2", "--prompt", "w1 w2"]
    return main(["neurons", "clamp", *neuron, "--no-chat", "--model", str(folder), *words])


def larger_tokenizer(folder):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"] |= {f"more{i}": 211 + i for i in range(5)}
    path.write_text(json.dumps(content))


RIGHT = {
    "remote code for a family that is known": config(
        auto_map={"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}
    ),
    "a tokenizer larger than the vocabulary": larger_tokenizer,
    "pickles beside": written("pytorch_model.bin", "x"),
    "a GGUF beside": written("m.gguf", "x"),
}


@pytest.mark.parametrize("case", RIGHT)
def test_what_can_be_opened_gives_the_same(case, folder, dog_model, capsys, asks_nothing):
    RIGHT[case](folder)
    (folder / "code.py").write_text("raise SystemExit('it ran')")
    ids = torch.tensor([[1, 123, 5]])
    assert torch.equal(open_subject(folder).logits(ids), open_subject(dog_model).logits(ids))
    found = []
    for model in (folder, dog_model):
        assert main(["neurons", "atlas", "--model", str(model), "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["metrics"]["vectors"])
        assert clamp(model) == 0
        found.append(capsys.readouterr().out.partition("\nrun")[0])
    assert found[0] == found[2]


def test_a_token_beyond_the_vocabulary_is_one_line(folder, capsys):
    larger_tokenizer(folder)
    assert clamp(folder, prompt="w1 more3") == 2
    assert "token ids must be in 0..210, which 214 is not" in capsys.readouterr().err


def test_without_a_tokenizer_there_are_ids(folder, capsys):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert main(["neurons", "atlas", "--model", str(folder)]) == 0
    capsys.readouterr()
    assert clamp(folder, word="#123") == 2
    assert "has no tokenizer" in capsys.readouterr().err
