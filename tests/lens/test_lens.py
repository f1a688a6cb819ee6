"""Lenses against the model's own logits, and the files they come from."""

import json

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from interp.cli import parse
from interp.directions.directions import Directions
from interp.directions.sources import open_directions
from interp.errors import UserError
from interp.lens.files import export, open_lens
from interp.lens.lens import Lens
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import open_weights
from interp.neurons.atlas import AtlasConfig
from interp.runs.study import run_or_load

FAMILIES = ["llama", "gemma2", "gemma3_text", "gpt2", "gpt_neox"]


@pytest.fixture(scope="module")
def weights(model_folder):
    return open_weights(str(model_folder("llama")))


def fitted(weights, layers=None):
    width = weights.spec.d_model
    generator = torch.Generator().manual_seed(3)
    kept = range(weights.spec.n_layers - 1) if layers is None else layers
    maps = {layer: torch.randn(width, width, generator=generator) for layer in kept}
    return Lens(weights, "jacobian", maps, 7)


@pytest.mark.parametrize("family", FAMILIES)
def test_at_the_last_layer_every_lens_is_the_model(family, model_folder):
    subject = open_subject(str(model_folder(family)))
    last = subject.spec.n_layers - 1
    batch = subject.pad([[3, 14, 15, 92, 65]])
    x = subject.capture(batch, [f"{last}.resid_post"])[Site("resid_post", last)]
    expected = subject.logits(batch)
    for lens in (open_lens("final", subject.weights), fitted(subject.weights)):
        torch.testing.assert_close(lens.logits(x, last), expected, rtol=1e-4, atol=1e-5)


def test_a_map_goes_before_the_final_norm(weights):
    lens, x = fitted(weights), torch.randn(4, weights.spec.d_model)
    norm, carried = weights.norm("final"), x.double() @ lens.maps[0].double().T
    normed = carried / (carried.square().mean(-1, keepdim=True) + weights.spec.eps).sqrt()
    expected = (normed * norm.gain.double()) @ weights.W_U().double().T
    torch.testing.assert_close(lens.logits(x, 0).double(), expected, rtol=1e-5, atol=1e-5)


def test_directions_are_carried_from_their_layer(weights, tmp_path):
    lens, gain = fitted(weights), weights.gain("final").double()
    found = open_directions("0.down.3,0.down.5", str(weights.folder))
    table = found.decode(weights, 4, lens)
    logits = (found.vectors.double() @ lens.maps[0].double().T * gain) @ weights.W_U().double().T
    expected = logits.topk(4).values
    torch.testing.assert_close(
        torch.tensor(table["top_logits"].tolist()).double(), expected, rtol=1e-5, atol=1e-6
    )
    raw, final = found.decode(weights, 4), found.decode(weights, 4, "final")
    own = (found.vectors.double() * gain) @ weights.W_U().double().T
    torch.testing.assert_close(
        torch.tensor(final["top_logits"].tolist()).double(),
        own.topk(4).values,
        rtol=1e-5,
        atol=1e-6,
    )
    assert raw["top"].tolist() != table["top"].tolist()


@pytest.mark.parametrize("name", ["final", "jacobian"])
@pytest.mark.parametrize(
    ("family", "norm"),
    [
        ("gpt2", "transformer.ln_f"),
        ("gpt_neox", "gpt_neox.final_layer_norm"),
        ("llama", "model.norm"),
    ],
)
def test_a_direction_is_read_as_the_final_norm_moves(family, norm, name, model_folder):
    """By the derivative of transformers' own norm, at an x of mean 0 that is orthogonal to the
    direction, where the direction does not move the scale."""
    from transformers import AutoModelForCausalLM

    folder = model_folder(family)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    weights = open_weights(str(folder))
    lens = fitted(weights) if name == "jacobian" else Lens(weights, name)
    generator = torch.Generator().manual_seed(5)
    v, x = torch.randn(2, weights.spec.d_model, generator=generator) + 0.7
    carried = lens.maps[0].double() @ v.double() if lens.maps else v.double()
    flat = torch.linalg.qr(torch.stack([torch.ones_like(carried), carried], 1)).Q
    x = x.double() - flat @ (flat.T @ x.double())
    _, moved = torch.func.jvp(model.get_submodule(norm), (x,), (carried,))
    scale = (x.square().mean() + weights.spec.eps).sqrt()
    with torch.no_grad():
        expected = model.get_output_embeddings().weight @ moved * scale
    found = weights.W_U().double() @ lens.vectors(v[None], Site("resid_post", 0))[0].double()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    along = lens.rows(list(range(len(expected))), 0).double() @ v.double()
    torch.testing.assert_close(along, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("site", "layer"),
    [("0.resid_post", 0), ("1.resid_pre", 0), ("0.mlp_out", 0), ("final_norm_in", 1)],
)
def test_which_map_a_site_is_read_through(site, layer, weights):
    assert fitted(weights).layer_of(Site.parse(site)) == layer


@pytest.mark.parametrize("site", ["0.mlp_in", "0.mlp_out", "1.resid_pre", "1.attn_out"])
def test_directions_are_decoded_from_their_own_site(site, weights):
    """A stream before a block is read through the map of the block before it."""
    lens, v = fitted(weights), torch.randn(1, weights.spec.d_model)
    found = Directions(Site.parse(site), v, pd.DataFrame({"name": ["v"]}))
    through = v.double() @ lens.maps[0].double().T if site != "1.attn_out" else v.double()
    logits = (through * weights.gain("final").double()) @ weights.W_U().double().T
    told = torch.tensor(found.decode(weights, 4, lens)["top_logits"][0]).double()
    torch.testing.assert_close(told, logits[0].topk(4).values, rtol=1e-5, atol=1e-5)


def test_sites_and_layers_without_a_map(weights):
    lens = fitted(weights, layers=[])
    with pytest.raises(UserError, match="not in the residual stream"):
        lens.layer_of(Site("mlp_post", 0))
    with pytest.raises(UserError, match="no map after layer 0"):
        lens.map(0)
    with pytest.raises(UserError, match="before the first layer"):
        lens.vectors(torch.ones(1, weights.spec.d_model), Site("resid_pre", 0))


@pytest.mark.parametrize(
    "command",
    ["circuits head", "circuits trace", "lens show", "neurons atlas", "directions tokens"],
)
def test_help_names_every_lens(command, capsys):
    with pytest.raises(SystemExit):
        parse([*command.split(), "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    about = said[said.index("--lens") :][:400]
    for name in ("final", "tuned", "jacobian", "folder or key", ".safetensors or .pt file"):
        assert name in about


def test_published_files_are_read_and_written(weights, tmp_path):
    lens, path = fitted(weights), tmp_path / "lens.pt"
    export(lens, path)
    again = open_lens(str(path), weights)
    assert again.prompts == 7
    assert all(torch.equal(again.maps[layer], lens.maps[layer]) for layer in lens.maps)


def about(**more):
    return {"lens": json.dumps({"source_layers": [0], "n_prompts": 2, **more})}


DAMAGED = {
    "another width": ({"J": torch.ones(1, 3, 3)}, about(), "map of 3 by 3"),
    "a layer too many": ({"J": torch.ones(1, 32, 32)}, about(source_layers=[9]), "after layer 9"),
    "a NaN": ({"J": torch.full((1, 32, 32), torch.nan)}, about(), "NaN or an infinity"),
    "no map": ({"x": torch.ones(1)}, about(), "damaged, or no lens"),
    "nothing said": ({"J": torch.ones(1, 32, 32)}, {"x": "y"}, "damaged, or no lens"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_one_line(name, weights, tmp_path):
    tensors, metadata, says = DAMAGED[name]
    save_file(tensors, tmp_path / "lens.safetensors", metadata)
    with pytest.raises(UserError, match=says):
        open_lens(str(tmp_path), weights)


def test_what_is_no_lens(weights, tmp_path):
    forms = "run of `interp lens fit` or `interp lens tune`, or a .safetensors or .pt file"
    (tmp_path / "empty").mkdir()
    for asked, says in (
        ("nowhere", "'nowhere' is no lens, and no file"),
        ("nope.pt", r"there is no file or folder 'nope\.pt'"),
        ("nope.safetensors", "there is no file"),
        (str(tmp_path / "nope"), "there is no file or folder"),
        (str(tmp_path / "empty"), r"empty has no lens\.safetensors"),
        ("/dev/null", "/dev/null is no file"),
    ):
        with pytest.raises(UserError, match=f"{says}.*{forms}"):
            open_lens(asked, weights)
    (tmp_path / "lens.pt").write_bytes(b"x" * 99)
    with pytest.raises(UserError, match=r"lens\.pt"):
        open_lens(str(tmp_path / "lens.pt"), weights)


def test_an_atlas_through_a_lens(weights, tmp_path, own_home):
    lens = fitted(weights)
    export(lens, tmp_path / "lens.pt")
    model = str(weights.folder)
    raw = run_or_load(AtlasConfig(model, k=4))
    carried = run_or_load(AtlasConfig(model, k=4, lens=str(tmp_path / "lens.pt")))
    assert raw.path != carried.path
    rows = carried.table("neurons").query("layer == 0 and kind == 'down' and side == 'top'")
    vectors = weights.in_stream("down", 0).double() @ lens.maps[0].double().T
    logits = (vectors * weights.gain("final").double()) @ weights.W_U().double().T
    found = torch.tensor(rows["logits"].tolist()).double()
    torch.testing.assert_close(found, logits.topk(4).values, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="leave out --norm final"):
        run_or_load(AtlasConfig(model, k=4, norm="final", lens=str(tmp_path / "lens.pt")))
