"""A vector of one's own: it is what it was, stands at its site, and is used as any other."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from interp.cli import main
from interp.directions import Directions
from interp.directions.bring import ImportConfig
from interp.directions.reading import Product
from interp.directions.vectors import read_vectors, site_width
from interp.errors import UserError
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import Weights
from interp.runs.study import run_or_load


def imported(capsys, *arguments):
    code = main(["directions", "import", *map(str, arguments), "--source", "me, by hand", "--json"])
    out, err = capsys.readouterr()
    return (json.loads(out.splitlines()[-1]) if code == 0 else {}), err


def ran(capsys, *arguments):
    assert main(["directions", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])["results"]


def test_a_vector_from_a_file_decodes_scores_and_steers(dog_model, own_home, tmp_path, capsys):
    """Neuron 1.down.17 writes 'dog'; its weights come from the model's own file."""
    vector = Weights(dog_model).neurons("down", 1)[17]
    np.save(tmp_path / "dogs.npy", vector.numpy())
    where = ["--site", "1.mlp_out", "--model", dog_model]
    made, _ = imported(capsys, tmp_path / "dogs.npy", *where)
    assert made["metrics"]["directions"] == 1
    [row] = ran(capsys, "list")
    assert (row["site"], row["analysis"], row["names"]) == ("1.mlp_out", "import", "dogs")
    own = Directions.load(row["folder"])
    assert own.provenance.notes["source"] == "me, by hand"
    assert own.provenance.fingerprint == Weights(dog_model).fingerprint()
    assert made["run"].endswith(own.provenance.run)
    assert own.reading == Product()
    imported(capsys, tmp_path / "dogs.npy", *where, "--constant", 3.5)
    assert sorted(r["reading"] for r in ran(capsys, "list")) == ["v.x", "v.x + constant"]
    named = ran(capsys, "decode", "1.down.17", "--model", dog_model)
    [decoded] = ran(capsys, "decode", row["folder"])
    assert (decoded["name"], decoded["top"], decoded["top_z"]) == (
        "dogs",
        named[0]["top"],
        named[0]["top_z"],
    )
    prompt = ["--prompt", "w1 w2", "--no-chat", "--scale", 5, "--tokens", 2]
    assert ran(capsys, "steer", row["folder"], *prompt)[1]["text"] == "dogdog"
    (tmp_path / "text.txt").write_text(" ".join(f"w{i % 200 + 1}" for i in range(600)))
    corpus = ["--corpus", tmp_path / "text.txt", "--tokens", 256, "--length", 32, "--limit", 1]
    [best] = ran(capsys, "score", row["folder"], *corpus)
    subject = open_subject(dog_model)
    rows = torch.tensor([[i % 200 + 1 for i in range(256)]]).view(8, 32)
    activations = subject.capture(rows, ["1.mlp_out"])[Site("mlp_out", 1)]
    inner = activations[:, 1:] @ vector
    assert best["score"] == pytest.approx(float(inner.max()), rel=1e-4)
    every = ran(capsys, "score", row["folder"], *corpus, "--special")
    assert every[0]["score"] == pytest.approx(float((activations @ vector).max()), rel=1e-4)


def test_every_kind_of_file_gives_the_same_vectors(dog_model, own_home, tmp_path, capsys):
    values = torch.randn(3, 32, dtype=torch.float64)
    np.save(tmp_path / "v.npy", values.numpy())
    torch.save(values, tmp_path / "v.pt")
    save_file({"a": values, "b": torch.ones(1)}, tmp_path / "v.safetensors")
    found = []
    for name, more in (("v.npy", []), ("v.pt", []), ("v.safetensors", ["--tensor", "a"])):
        options = ["--site", "0.resid_post", "--model", dog_model, "--name", "mine", *more]
        made, err = imported(capsys, tmp_path / name, *options)
        found.append(Directions.load(f"{made['run']}/directions"))
    for each in found:
        assert torch.equal(each.vectors, values.float())
        assert list(each.index["name"]) == ["mine 0", "mine 1", "mine 2"]


def test_from_python_and_saved_by_a_string(dog_model, own_home, tmp_path):
    made = Directions.of([1.0] * 32, "0.resid_post", str(dog_model), "ones", "by hand")
    assert (len(made), made.site, made.model) == (1, Site("resid_post", 0), str(dog_model))
    made.save(str(tmp_path / "kept"))
    assert Directions.load(str(tmp_path / "kept")).vectors.sum() == 32
    pair = Directions.of(np.eye(32)[:2], Site("mlp_in", 1), str(dog_model), ["a", "b"])
    assert list(pair.index["name"]) == ["a", "b"]
    with pytest.raises(UserError, match="3 names for 2 vectors"):
        Directions.of(np.eye(32)[:2], "1.mlp_in", str(dog_model), ["a", "b", "c"])


def test_a_site_is_as_wide_as_what_is_captured_there(model_folder, own_home):
    for family in ("llama", "gpt2", "gemma2", "gpt_neox"):
        subject = open_subject(model_folder(family))
        found = subject.capture(torch.tensor([[1, 2]]), list(subject.sites))
        for site, x in found.items():
            if site.kind != "attn_pattern":
                assert site_width(subject.weights, site) == x[0, 0].numel(), site
    one = subject.capture(torch.tensor([[1, 2]]), ["1.head_z.1"])[Site("head_z", 1, 1)]
    assert site_width(subject.weights, Site("head_z", 1, 1)) == one[0, 0].numel()


@pytest.mark.parametrize("family", ["deepseek_v3", "gemma4_text", "qwen3_5_text", "gpt_neox"])
def test_the_sites_are_those_that_the_model_has(family, model_folder, own_home):
    """Compressed values, heads of two sizes, layers of linear attention, a parallel layer."""
    subject = open_subject(model_folder(family))
    there = set(subject.sites)
    for layer in range(subject.spec.n_layers):
        for kind in ("head_v", "head_z", "resid_mid", "attn_out", "mlp_gate", "mlp_out"):
            site = Site(kind, layer)
            if site in there:
                assert site_width(subject.weights, site)
            else:
                with pytest.raises(
                    UserError, match=rf"^(there is no )?{layer}\.{kind}( has no|: each token)"
                ):
                    site_width(subject.weights, site)


def test_a_site_that_opening_refuses_is_a_line_when_it_is_used(model_folder, own_home):
    """Gemma 4 scales what a layer adds, by a number that its other inputs make."""
    folder = model_folder("gemma4_text", hidden_size_per_layer_input=8)
    subject = open_subject(folder)
    refused = next(site for site in subject.refused if site.kind == "mlp_out")
    mine = Directions.of(np.ones(32), refused, str(folder), "mine")
    with pytest.raises(UserError, match=f"this model does not offer '{refused}': on a probe"):
        subject.capture(subject.pad([[1, 2]]), [mine.site])
    with (
        pytest.raises(UserError, match=f"does not offer '{refused}'"),
        subject.edited(mine.steer(0)),
    ):
        pass


LAYOUTS = {
    "big-endian": lambda x: x.astype(">f4"),
    "long double": lambda x: x.astype(np.longdouble),
    "half": lambda x: x.astype(np.float16),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_numpy_s_own_layouts_are_converted(layout, dog_model, own_home, tmp_path):
    values = np.random.default_rng(0).standard_normal((2, 32)).astype(np.float16)
    np.save(tmp_path / "v.npy", LAYOUTS[layout](values))
    made = Directions.of(read_vectors(tmp_path / "v.npy"), "0.mlp_in", str(dog_model), "mine")
    np.testing.assert_array_equal(made.vectors.numpy(), values.astype(np.float32))


BAD = {
    "short.npy": (np.ones(31), "has 32 numbers, so give [32] or [n, 32], not [31]"),
    "turned.npy": (np.ones((32, 3)), "not [32, 3]; transpose it"),
    "deep.npy": (np.ones((1, 1, 32)), "not [1, 1, 32]"),
    "none.npy": (np.ones((0, 32)), "not [0, 32]"),
    "nan.npy": (np.array([np.nan] * 32), "vector 0 holds a NaN"),
    "zero.npy": (np.eye(3, 32) * [[1], [0], [1]], "vector 1 is all zeros"),
    "ids.npy": (np.arange(32), "no decimal numbers"),
    "objects.npy": (np.array([{}] * 32), "cannot read"),
    "words.npy": (np.array(["a"] * 32), "these are no vectors"),
    "swapped.npy": (np.arange(32, dtype=">i8"), "no decimal numbers"),
    "huge.npy": (np.full(32, 1e300), "vector 0 is too long or too short for float32"),
    "tiny.npy": (np.full(32, 1e-300), "vector 0 is too long or too short for float32"),
    "sparse.pt": (lambda: torch.ones(32).to_sparse(), "a sparse tensor: give v.to_dense()"),
    "rows.pt": (lambda: torch.ones(2, 32).to_sparse_csr(), "a sparse tensor: give v.to_dense()"),
    "nested.pt": (
        lambda: torch.nested.nested_tensor([torch.ones(32), torch.ones(31)]),
        "a nested tensor: stack them as one of [n, d]",
    ),
    "whole.pt": (
        lambda: torch.quantize_per_tensor(torch.ones(32), 0.1, 0, torch.qint8),
        "a quantised tensor: give v.dequantize()",
    ),
    "meta.pt": (torch.ones(32, device="meta"), "these are no vectors"),
    "list.pt": ([1.0, 2.0], "holds a list, no tensor"),
    "several.pt": ({"a": torch.ones(32), "b": torch.ones(32)}, "give --tensor one of a, b"),
    "empty.pt": ({}, "holds no tensor"),
    "vector.txt": (None, "is none of .npy, .safetensors, .pt, .pth"),
    "broken.safetensors": (b"xx", "cannot read"),
    "broken.pt": (b"xx", "cannot read"),
    "broken.npy": (b"xx", "cannot read"),
}


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning", "ignore:Sparse CSR")
@pytest.mark.filterwarnings("ignore:.*[Qq]uantiz.*", "ignore:TypedStorage")
@pytest.mark.parametrize("name", BAD)
def test_what_is_no_direction_is_a_line(name, dog_model, own_home, tmp_path, capsys):
    content, says = BAD[name]
    content = content() if callable(content) else content
    path = tmp_path / name
    if isinstance(content, bytes) or content is None:
        path.write_bytes(content or b"1 2 3")
    elif path.suffix == ".npy":
        np.save(path, content)
    else:
        torch.save(content, path)
    _, err = imported(capsys, path, "--site", "0.resid_post", "--model", dog_model)
    assert says in err
    assert err.count("\n") == 1
    assert not (own_home / "runs").exists()


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_code_in_a_file_is_not_run(dog_model, own_home, tmp_path, capsys):
    with (tmp_path / "evil.pt").open("wb") as file:
        pickle.dump(Evil(), file)
    torch.save(Evil(), tmp_path / "zipped.pt")
    for name in ("evil.pt", "zipped.pt"):
        _, err = imported(capsys, tmp_path / name, "--site", "0.resid_post", "--model", dog_model)
        assert "it holds more than tensors" in err


@pytest.mark.parametrize(
    ("site", "says"),
    [
        ("9.resid_post", "this model has layers 0..1"),
        ("0.resid", "no site kind 'resid'"),
        ("0.attn_pattern", "has no vector per token"),
        ("0.head_z.9", "has heads 0..3"),
        ("features.3:out", "has no vector per token"),
        ("0.mlp_post", "a direction at 0.mlp_post has 48 numbers"),
    ],
)
def test_a_site_that_cannot_be(site, says, dog_model, own_home, tmp_path, capsys):
    np.save(tmp_path / "v.npy", np.ones(32))
    _, err = imported(capsys, tmp_path / "v.npy", "--site", site, "--model", dog_model)
    assert says in err


def test_its_origin_is_asked_for(dog_model, own_home, tmp_path, capsys):
    np.save(tmp_path / "v.npy", np.ones(32))
    where = [tmp_path / "v.npy", "--site", "0.resid_post", "--model", str(dog_model)]
    assert main(["directions", "import", *map(str, where)]) == 2
    assert "--source" in capsys.readouterr().err
    assert main(["directions", "import", *map(str, where), "--source", " "]) == 2
    assert "say who made the vectors" in capsys.readouterr().err
    assert main(["directions", "import", "/no.npy", *map(str, where[1:]), "--source", "x"]) == 2
    assert "cannot read /no.npy" in capsys.readouterr().err


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_lengths_of_short_and_long_vectors(scale, dog_model, own_home, tmp_path):
    vectors = np.random.default_rng(0).standard_normal((2, 32)) * scale
    np.save(tmp_path / "v.npy", vectors)
    run = run_or_load(
        ImportConfig(
            str(tmp_path / "v.npy"), site="0.resid_post", source="me", model=str(dog_model)
        )
    )
    own = np.linalg.norm(vectors, axis=1)
    assert run.metrics["shortest"] == pytest.approx(own.min(), rel=1e-6)
    assert run.metrics["longest"] == pytest.approx(own.max(), rel=1e-6)
