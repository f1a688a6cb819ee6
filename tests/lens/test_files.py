"""Lenses by name: the newest fit of the same weights, a shipped one; and files to give away."""

import json
import resource

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.cli import parse
from interp.directions.sources import open_directions
from interp.directions.tokens import TokenDirectionsConfig
from interp.errors import UserError
from interp.lens import files
from interp.lens.files import export, open_lens
from interp.lens.fit import FitConfig
from interp.lens.lens import Lens
from interp.lens.tune import TuneConfig
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import open_weights
from interp.neurons import search
from interp.neurons.atlas import AtlasConfig
from interp.plain_tensors import read_tensors
from interp.runs.parts import export_text
from interp.runs.store import Store
from interp.runs.study import plan, run_or_load


@pytest.fixture(scope="module")
def weights(dog_model):
    return open_weights(str(dog_model))


def made(weights, name="jacobian", seed=0):
    width, generator = weights.spec.d_model, torch.Generator().manual_seed(seed)
    maps = {0: torch.randn(width, width, generator=generator)}
    biases = {0: torch.randn(width, generator=generator)} if name == "tuned" else {}
    return Lens(weights, name, maps, 7, biases)


@pytest.mark.parametrize("name", ["jacobian", "tuned"])
@pytest.mark.parametrize("half", [False, True])
def test_a_file_is_what_was_exported(name, half, weights, tmp_path):
    lens, path = made(weights, name), tmp_path / "lens.safetensors"
    export(lens, path, half)
    again = open_lens(str(path), weights)
    assert (again.name, again.prompts, again.source) == (name, 7, str(path))
    assert again.identity == again.fingerprint
    kinds = {str(x.dtype) for x in load_file(path).values()}
    assert kinds == {"torch.float16" if half else "torch.float32"}
    close = {"rtol": 1e-3, "atol": 1e-3} if half else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(again.maps[0], lens.maps[0], **close)
    x = torch.randn(3, weights.spec.d_model)
    for each in (again, lens):
        carried = x.double() @ each.maps[0].double().T + each.biases.get(0, torch.zeros(1)).double()
        expected = Lens(weights, "final").logits(carried, 0)
        torch.testing.assert_close(each.logits(x, 0), expected, rtol=1e-5, atol=1e-5)


def test_published_files_keep_their_layout(weights, tmp_path):
    export(made(weights), tmp_path / "lens.pt")
    stored = torch.load(tmp_path / "lens.pt", weights_only=True)
    assert set(stored) == {"J", "n_prompts", "source_layers", "d_model"}
    assert (stored["n_prompts"], stored["source_layers"]) == (7, [0])
    assert torch.equal(stored["J"][0], made(weights).maps[0])


def test_the_first_fits_open(weights, tmp_path):
    lens, path = made(weights), tmp_path / "lens.safetensors"
    about = {"model": "x", "n_prompts": 7, "source_layers": [0], "d_model": weights.spec.d_model}
    save_file({"J": lens.maps[0][None]}, path, {"lens": json.dumps(about)})
    again = open_lens(str(tmp_path), weights)
    assert again.name == "jacobian"
    assert torch.equal(again.maps[0], lens.maps[0])


def test_a_card_beside_the_file(weights, own_home, text, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("INTERP_RUNS", str(tmp_path / "runs"))
    sizes = {"corpus": text, "prompts": 4, "length": 12, "skip": 2}
    run = run_or_load(FitConfig(str(weights.folder), **sizes))
    file, model = tmp_path / "own" / "lens.safetensors", ["--model", str(weights.folder)]
    parse(["lens", "export", str(run.path), str(file), "--half", "--card", *model])()
    assert "4 prompts" in capsys.readouterr().out
    said = (file.parent / "README.md").read_text()
    agreement = run.table("layers")["agreement"][0]
    assert f"| 0 | {agreement:.3f} |" in said
    assert "fitted on 4 passages of 12 tokens" in said
    assert open_lens(str(file), weights).prompts == 4
    with pytest.raises(UserError, match="is in no run"):
        parse(["lens", "export", str(file), str(tmp_path / "lens.pt"), "--card", *model])()
    assert not (tmp_path / "lens.pt").exists()


def test_what_is_not_exported(weights, tmp_path):
    for lens, name, says in (
        (Lens(weights, "final"), "a.pt", "the identity"),
        (made(weights), "a.npy", "as .pt or .safetensors"),
        (made(weights, "tuned"), "a.pt", "no bias"),
    ):
        with pytest.raises(UserError, match=says):
            export(lens, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_file_of_other_weights_is_said_to_be(weights, model_folder, tmp_path, caplog):
    export(made(weights), tmp_path / "lens.safetensors")
    open_lens(str(tmp_path / "lens.safetensors"), open_weights(str(model_folder("llama"))))
    assert "is a lens of" in caplog.text


def test_a_name_is_the_newest_fit_then_the_shipped_one(
    weights, own_home, text, tmp_path, monkeypatch
):
    monkeypatch.setenv("INTERP_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(files, "SHIPPED", tmp_path / "shipped")
    with pytest.raises(UserError, match="`interp lens fit --model "):
        open_lens("jacobian", weights)
    lens = made(weights, "tuned")
    export(lens, tmp_path / "shipped" / "tiny" / "lens.safetensors", half=True)
    assert open_lens("tuned", weights).source.startswith(str(tmp_path / "shipped"))
    with pytest.raises(UserError, match="no jacobian lens"):
        open_lens("jacobian", weights)
    sizes = {"prompts": 4, "held_out": 1, "length": 12, "skip": 2, "positions": 4}
    run = run_or_load(TuneConfig(str(weights.folder), corpus=text, **sizes))
    found = open_lens("tuned", weights)
    assert found.source == str(run.path / "lens.safetensors")
    for asked in (run.path, run.path / "lens.safetensors", run.path.name[:6]):
        assert open_lens(str(asked), weights).fingerprint == found.fingerprint


def test_an_atlas_says_which_lens_it_was_read_through(weights, own_home, tmp_path, capsys):
    export(made(weights), path := tmp_path / "lens.safetensors")
    model = str(weights.folder)
    keys = {
        lens: plan(AtlasConfig(model, k=4, lens=lens))["key"]
        for lens in ("", "raw", "final", str(path))
    }
    assert keys[""] == keys["raw"]
    assert len(set(keys.values())) == 3
    run = run_or_load(AtlasConfig(model, k=4, lens=str(path)), Store(tmp_path))
    assert run.manifest["lens"] == {"name": "jacobian", "prompts": 7, "file": str(path)}
    assert "the jacobian lens, fitted on 7 passages" in search.lens_note(run)
    parse(["neurons", "show", "0.down.1", "--atlas", str(run.path)])()
    assert "jacobian lens" in capsys.readouterr().out
    raw = run_or_load(AtlasConfig(model, k=4), Store(tmp_path))
    assert search.lens_note(raw) == ""


@pytest.mark.parametrize("name", ["raw", "final", "jacobian", "tuned"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_tokens_direction_is_the_slope_of_its_logit(name, family, model_folder):
    """By autograd, where the final norm's scale is held."""
    weights = open_weights(str(model_folder(family)))
    plain = name in ("raw", "final")
    lens = Lens(weights, name) if plain else made(weights, name)
    rows, x = lens.rows([5, 9], 0), torch.randn(weights.spec.d_model, dtype=torch.float64)
    W_U = weights.W_U()[[5, 9]].double()
    if name == "raw":
        torch.testing.assert_close(rows.double(), W_U)
        return

    def logits(x):
        carried = x if plain else lens.maps[0].double() @ x
        centred = carried - carried.mean() if weights.spec.norm == "layer" else carried
        return W_U @ (centred * weights.gain("final").double())

    slopes = torch.autograd.functional.jacobian(logits, x)
    torch.testing.assert_close(rows.double(), slopes, rtol=1e-5, atol=1e-6)


def test_tokens_at_a_layer_by_a_text_and_as_a_run(weights, own_home, tmp_path):
    export(made(weights), path := tmp_path / "lens.safetensors")
    found = open_directions(f"lens:{path}:0:dog,w7", str(weights.folder))
    assert found.names == ["dog", "w7"]
    assert found.site == Site("resid_post", 0)
    assert torch.equal(found.vectors, made(weights).rows([123, 7], 0))
    asked = TokenDirectionsConfig(str(weights.folder), layer=0, tokens=("dog",), lens=str(path))
    run = run_or_load(asked, Store(tmp_path))
    kept = open_directions(str(run.path))
    assert torch.equal(kept.vectors, found.vectors[:1])
    subject = open_subject(str(weights.folder))
    x = subject.capture(subject.tokens("w3 w4"), [found.site])[found.site]
    torch.testing.assert_close(found.scores(x), x.double() @ found.vectors.double().T)


def test_tokens_that_are_not_there(weights, own_home):
    model = str(weights.folder)
    for text, says in (
        ("lens:final:0", "write lens:LENS:LAYER:TOKENS"),
        ("lens:final:9:dog", "no layer 9"),
        ("lens:final:0: dog", "is exactly ' dog': 'dog' is"),
        ("lens:nowhere:0:dog", "is no lens"),
    ):
        with pytest.raises(UserError, match=says):
            open_directions(text, model)


def test_the_shipped_lens_is_of_the_model_that_it_names():
    tensors, metadata = read_tensors(files.SHIPPED / "smollm2-135m" / "lens.safetensors")
    about = json.loads(metadata["lens"])
    assert (about["name"], about["model"]) == ("jacobian", "smollm2-135m")
    assert tensors["T"].shape == (29, 576, 576)
    assert tensors["T"].dtype == torch.float16
    assert tensors["T"].isfinite().all()
    card = (files.SHIPPED / "smollm2-135m" / "README.md").read_text()
    assert f"fitted on {about['n_prompts']} passages" in card
    assert f"`{about['fingerprint'][:12]}`" in card


@pytest.fixture
def full_disk():
    """A function after which no file can grow beyond so many bytes, until the test's end."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["lens.pt", "lens.safetensors", "README.md"])
def test_a_full_disk_leaves_the_file_that_was_there(name, weights, tmp_path, full_disk):
    path, link = tmp_path / "there" / name, tmp_path / name
    path.parent.mkdir()
    path.write_text("before")
    link.symlink_to(path)
    full_disk(2000)
    with pytest.raises(UserError, match=rf"cannot write .*{name}: .*what was there before is kept"):
        export_text(link, "x" * 3000) if name == "README.md" else export(made(weights), link)
    assert path.read_text() == "before"
    assert [each.name for each in path.parent.iterdir()] == [name]
    export_text(link, "after")
    assert path.read_text() == "after"


def test_a_card_that_cannot_be_written_is_one_line(
    weights, own_home, text, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("INTERP_RUNS", str(tmp_path / "runs"))
    sizes = {"corpus": text, "prompts": 4, "length": 12, "skip": 2}
    run = run_or_load(FitConfig(str(weights.folder), **sizes))
    (tmp_path / "README.md").mkdir()
    asked = ["lens", "export", str(run.path), str(tmp_path / "lens.pt"), "--card"]
    with pytest.raises(UserError, match=r"cannot write .*README\.md"):
        parse([*asked, "--model", str(weights.folder)])()
