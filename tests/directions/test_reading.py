"""A direction is scored as its own analysis scores it: its norm, its constant, its encoder."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sae_lens import TopKSAE, TopKSAEConfig, Transcoder, TranscoderConfig
from safetensors.torch import load_file, save_file

from interp.data import FOLDER
from interp.directions import Directions, open_directions
from interp.directions.encoder import Encoder
from interp.directions.inspect import steered, top_examples
from interp.directions.provenance import Provenance
from interp.directions.reading import Coordinate, Product, Scale, Unread
from interp.directions.sources import latent_directions, neuron_directions
from interp.errors import UserError
from interp.model.neuron import parse_neuron
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import Weights
from interp.saes import open_sae

SITE = Site("resid_post", 0)


def planted_sae(folder, model=""):
    """A TopK SAE of random weights at 0.resid_post."""
    torch.manual_seed(3)
    inner = TopKSAE(TopKSAEConfig(d_in=32, d_sae=64, k=4))
    with torch.no_grad():
        inner.b_enc.add_(torch.randn(64))
        inner.b_dec.add_(torch.randn(32))
    inner.cfg.metadata.hook_name = "blocks.0.hook_resid_post"
    inner.cfg.metadata.model_name = model
    inner.save_model(folder)
    return folder


def of_reading(reading, constants=(0.0, 0.0), **columns):
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    index = pd.DataFrame({"name": ["a", "b"], "constant": constants, **columns})
    return Directions(SITE, vectors, index, reading=reading)


def test_the_identity_of_a_set_is_another_wherever_scores_are_others(tmp_path, own_home):
    """And the same for the same scores, however they are held."""
    own = of_reading(Product(), (0.5, -2.0))
    half = replace(own, vectors=own.vectors.bfloat16())
    names = replace(own, index=own.index.assign(name=["a", "c"]))
    at = Coordinate("0.mlp_post")
    others = [
        of_reading(Product()),
        of_reading(Product(Scale(True, 1e-5)), (0.5, -2.0)),
        replace(own, site=Site("resid_post", 1)),
        *(half, names),
        of_reading(at, unit=[3, 4]),
        of_reading(at, unit=[3, 5]),
        own.pick([1, 0]),
        own.pick([0]),
    ]
    assert len({own.identity, *(each.identity for each in others)}) == 1 + len(others)
    assert replace(half, vectors=half.vectors.float()).identity == half.identity
    assert replace(own, index=own.index.assign(note="x")).identity == own.identity
    assert replace(own, provenance=Provenance("someone")).identity == own.identity
    unsaid = replace(own, index=own.index.drop(columns="constant"))
    assert unsaid.identity == of_reading(Product()).identity
    own.save(tmp_path / "set")
    assert Directions.load(tmp_path / "set").identity == own.identity


def test_latents_are_what_their_sae_is_wherever_it_lies(tmp_path, own_home):
    planted_sae(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    first, second = (Encoder.of(str(tmp_path / name))[0] for name in ("one", "two"))
    assert first != second
    one = of_reading(first, latent=[3, 4])
    assert one.identity == of_reading(second, latent=[3, 4]).identity
    assert one.identity != of_reading(first, latent=[3, 5]).identity
    other = replace(first, fingerprint="another")
    assert one.identity != of_reading(other, latent=[3, 4]).identity


@pytest.mark.parametrize("centred", [True, False])
def test_behind_a_norm_with_its_own_scale_plus_a_constant(centred):
    x = torch.randn(3, 7, 32, generator=torch.Generator().manual_seed(0)) * 50 + 3
    found = of_reading(Product(Scale(centred, 1e-5)), (0.5, -2.0))
    exact = x.numpy().astype(np.float64)
    exact = exact - exact.mean(-1, keepdims=True) if centred else exact
    normed = exact / np.sqrt((exact**2).mean(-1, keepdims=True) + 1e-5)
    want = normed @ found.vectors.double().numpy().T + [0.5, -2.0]
    np.testing.assert_allclose(found.scores(x), want, rtol=1e-5, atol=1e-5)
    assert found.scores(x).dtype == torch.float64


@pytest.mark.parametrize("family", ["llama", "gpt2", "olmo2"])
def test_examples_are_those_of_the_score(family, model_folder, own_home):
    """The mean and the best places, from transformers' own hidden states in float64."""
    from transformers import AutoModelForCausalLM

    folder = model_folder(family)
    rows = torch.randint(1, 200, (4, 12), generator=torch.Generator().manual_seed(2)).tolist()
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    x = plain(torch.tensor(rows), output_hidden_states=True).hidden_states[1].detach()
    found = of_reading(Product(Scale(False, 1e-6)), (1.0, 0.0))
    scores = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) @ found.vectors.double().T
    scores = scores + torch.tensor([1.0, 0.0])
    table = top_examples(open_subject(folder), rows, found, keep=3)
    for n, own in enumerate(table.groupby("name", sort=False)):
        inner = scores[:, 1:, n]
        best = inner.flatten().topk(3)
        assert own[1]["score"].tolist() == pytest.approx(best.values.tolist(), rel=1e-5)
        places = [(i // 11, i % 11 + 1) for i in best.indices.tolist()]
        assert list(zip(own[1]["row"], own[1]["position"], strict=True)) == places
        assert own[1]["mean"].iloc[0] == pytest.approx(float(inner.mean()), rel=1e-4)


def test_a_latent_fires_as_its_sae_says(tmp_path, dog_model, own_home):
    folder = planted_sae(tmp_path / "sae", str(dog_model))
    subject = open_subject(dog_model)
    x = subject.capture(torch.tensor([[3, 1, 4, 1, 5]]), [SITE])[SITE][0]
    z = open_sae(folder).inner.encode(x).to_dense().detach()
    which = z.sum(0).topk(2).indices.tolist()
    found, want = latent_directions(str(folder), which), z[:, which]
    product = x @ found.vectors.T
    torch.testing.assert_close(found.scores(x), want.double())
    assert not torch.allclose(product.double(), want.double(), atol=0.1)
    assert found.names == [f"latent {i}" for i in which]
    assert found.model == str(dog_model)
    found.save(tmp_path / "kept")
    torch.testing.assert_close(Directions.load(tmp_path / "kept").scores(x), want.double())
    named = open_directions(f"sae:{folder}:{which[0]},{which[1]}")
    assert torch.equal(named.vectors, open_sae(folder).W_dec[which])
    weights = load_file(folder / "sae_weights.safetensors")
    save_file({k: v + 1 for k, v in weights.items()}, folder / "sae_weights.safetensors")
    with pytest.raises(UserError, match="is not the one that these latents are of"):
        Directions.load(tmp_path / "kept").scores(x)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sae:", "names no SAE: write sae:SOURCE, or sae:SOURCE:12,15"),
        ("sae::", "names no SAE"),
        ("sae:nowhere", "nowhere holds no SAEs"),
        ("sae:folder:x", "Release folder not found"),
    ],
)
def test_latents_that_are_not_named(text, words):
    with pytest.raises(UserError, match=words):
        open_directions(text)


def test_all_latents_are_the_decoder_itself(tmp_path, dog_model, own_home):
    folder = planted_sae(tmp_path / "sae", str(dog_model))
    found = open_directions(f"sae:{folder}")
    sae = found.reading.opened
    assert len(found) == 64
    assert found.names[63] == "latent 63"
    assert found.vectors.data_ptr() == sae.inner.W_dec.data_ptr()
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found.scores(x), sae.encode(x).double())
    some = open_directions(f"sae:{folder}:7,3")
    torch.testing.assert_close(some.scores(x), found.scores(x)[:, [7, 3]])
    exact = sae.W_dec.double().numpy()
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(found.cosine(some), exact @ exact[[7, 3]].T, atol=1e-12)
    with pytest.raises(UserError, match="has no latent 64"):
        open_directions(f"sae:{folder}:64")


def test_latents_of_a_transcoder_are_read_at_one_site_and_written_at_another(
    tmp_path, dog_model, own_home
):
    torch.manual_seed(3)
    inner = Transcoder(TranscoderConfig(d_in=32, d_sae=64, d_out=32, apply_b_dec_to_input=False))
    inner.cfg.metadata.hook_name = "blocks.0.mlp.hook_in"
    inner.cfg.metadata.hook_name_out = "blocks.0.hook_mlp_out"
    inner.cfg.metadata.model_name = str(dog_model)
    inner.save_model(tmp_path / "tc")
    found = open_directions(f"sae:{tmp_path / 'tc'}:3,5")
    assert (str(found.site), str(found.read_at)) == ("0.mlp_out", "0.mlp_in")
    found.save(tmp_path / "kept")
    loaded = Directions.load(tmp_path / "kept")
    assert loaded.read_at == found.read_at
    subject = open_subject(dog_model)
    x = subject.capture(torch.tensor([[3, 1, 4, 1, 5]]), [found.read_at])[found.read_at][0]
    torch.testing.assert_close(loaded.scores(x), inner.encode(x)[:, [3, 5]].detach().double())
    table = top_examples(subject, [[3, 1, 4, 1, 5]], loaded, keep=1)
    assert table["score"].tolist() == pytest.approx(loaded.scores(x)[1:].max(0).values.tolist())


def test_a_site_that_is_told_is_kept(tmp_path, dog_model, own_home):
    folder = planted_sae(tmp_path / "sae", str(dog_model))
    said(folder, hook_name=None)
    with pytest.raises(UserError, match="it does not say which site it reads"):
        latent_directions(str(folder), [3])
    found = latent_directions(str(folder), [3], site="0.resid_post")
    found.save(tmp_path / "kept")
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Directions.load(tmp_path / "kept").scores(x), found.scores(x))


def test_a_shipped_sae_goes_where_the_package_goes(tmp_path):
    shipped = FOLDER / "darkmatter" / "smollm2-135m-14" / "saes" / "w768-k64"
    there = Encoder.of(str(shipped))[0]
    gone = tmp_path / "elsewhere" / "interp" / "data" / shipped.relative_to(FOLDER)
    moved = Encoder(str(gone), there.fingerprint)
    assert moved.opened.d_sae == 768
    with pytest.raises(UserError, match="is not the one that these latents are of"):
        _ = Encoder(str(gone), "another").opened
    with pytest.raises(UserError, match="holds no SAEs"):
        _ = Encoder(str(tmp_path / "data" / "nothing")).opened


def said(folder, **metadata):
    """The SAE in a folder, saying something else of itself."""
    about = json.loads((folder / "cfg.json").read_text())
    about["metadata"] |= metadata
    (folder / "cfg.json").write_text(json.dumps(about))
    return str(folder)


def test_an_sae_of_some_positions_has_no_score_anywhere(tmp_path, dog_model):
    source = said(planted_sae(tmp_path / "sae", str(dog_model)), seqpos_slice=[0, 4])
    with pytest.raises(UserError, match="trained on some positions of a text only"):
        latent_directions(source, [3]).scores(torch.ones(1, 32))


@pytest.mark.parametrize("told", ["x", ["a"], 5, [0, None, 0]])
def test_positions_of_another_form_are_a_line(told, tmp_path, dog_model):
    source = said(planted_sae(tmp_path / "sae", str(dog_model)), seqpos_slice=told)
    with pytest.raises(UserError, match="is damaged: its seqpos_slice"):
        latent_directions(source, [3])
    source = said(tmp_path / "sae", seqpos_slice=[None], exclude_special_tokens=["a"])
    with pytest.raises(UserError, match="is damaged: its seqpos_slice"):
        latent_directions(source, [3])


def test_an_sae_of_a_site_that_the_model_lacks(tmp_path, dog_model):
    source = said(planted_sae(tmp_path / "a", str(dog_model)), hook_name="blocks.9.hook_resid_post")
    with pytest.raises(UserError, match=r"there is no 9.resid_post"):
        latent_directions(source, [3])
    source = said(planted_sae(tmp_path / "b", str(dog_model)), hook_name="blocks.0.mlp.hook_post")
    with pytest.raises(UserError, match="reads 32 numbers, 0.mlp_post of .* has 48"):
        latent_directions(source, [3])


def test_a_latent_that_is_not_there(tmp_path, dog_model):
    folder = planted_sae(tmp_path / "sae", str(dog_model))
    with pytest.raises(UserError, match=r"has no latent 64: it has 0\.\.63"):
        latent_directions(str(folder), [3, 64])


def test_a_bias_counts(model_folder, own_home):
    """GPT-2's up projection has one: the score is what the neuron gets."""
    folder = model_folder("gpt2")
    subject, site = open_subject(folder), Site("mlp_up", 1)
    found = neuron_directions(Weights(folder), [parse_neuron("1.up.7")])
    got = subject.capture(subject.pad([[3, 1, 4]]), [found.site, site])
    torch.testing.assert_close(found.scores(got[found.site])[..., 0].float(), got[site][..., 7])


def test_an_experts_neuron_has_no_score(model_folder, own_home):
    weights = Weights(model_folder("mixtral"))
    found = neuron_directions(weights, [parse_neuron("1.e0.down.3")])
    with pytest.raises(UserError, match="no score: the activation of 1.e0.down.3 is no site"):
        found.scores(torch.ones(1, 32))
    with pytest.raises(UserError, match="no sum over parts"):
        found.reading.linear(torch.ones(1, 32), torch.ones(1, 32))


READINGS = {
    "product": Product(),
    "norm": Product(Scale(True, 1e-5)),
    "neuron": Coordinate("1.mlp_post"),
    "latent": Encoder("somewhere", "abc"),
    "none": Unread("it was never read"),
}


@pytest.mark.parametrize("kind", READINGS)
def test_a_reading_is_saved_with_its_directions(kind, tmp_path):
    found = of_reading(READINGS[kind], unit=[1, 2], latent=[3, 4])
    found.save(tmp_path)
    assert Directions.load(tmp_path).reading == found.reading
    assert Directions.load(tmp_path).pick([1]).reading == found.reading


def test_what_a_reading_needs_of_each_must_be_there():
    with pytest.raises(ValueError, match="the index of directions lacks latent"):
        of_reading(Encoder("somewhere"))


class Halves:
    """Stands for an SaeSplit: any three parts of x."""

    def check(self, site, model, anyway):
        assert (site, model, anyway) == ("0.resid_post", "", False)

    def __call__(self, x):
        part = x.double() * torch.arange(32) / 40
        return part, (x.double() - part) * 0.25, (x.double() - part) * 0.75


def test_parts_of_a_score_behind_a_norm_sum_to_it():
    """Each part is divided by the scale of the whole; a part's own scale would not do."""
    x = torch.randn(200, 32, generator=torch.Generator().manual_seed(0)) * 4 + 1
    found = of_reading(Product(Scale(True, 1e-5)), (7.0, 7.0))
    parts = found.split_scores(Halves(), x)
    torch.testing.assert_close(parts.sum(0) + 7.0, found.scores(x), atol=1e-5, rtol=1e-5)
    shares = found.split(Halves(), x)[["reconstruction", "linear", "nonlinear"]].sum(axis=1)
    assert shares.tolist() == pytest.approx([1.0, 1.0])
    of_latents = of_reading(Encoder("somewhere"), latent=[1, 2])
    with pytest.raises(UserError, match="no sum over parts of an activation"):
        of_latents.split(Halves(), x)


def test_coupling_needs_the_same_reading():
    plain, normed = of_reading(Product()), of_reading(Product(Scale(False, 1e-5)))
    assert normed.coupling(normed).diagonal().tolist() == pytest.approx([1.0, 1.0])
    with pytest.raises(UserError, match=r"v\.x at 0\.resid_post and v\.x/rms at 0\.resid_post"):
        plain.coupling(normed)
    later = Directions(Site("resid_post", 1), plain.vectors, plain.index)
    with pytest.raises(UserError, match="have no coupling: they read different things"):
        plain.coupling(later)


def test_steering_says_what_it_does_to_the_score(dog_model, own_home):
    subject = open_subject(dog_model)
    found = of_reading(Product(), (1.0, 0.0))
    table = steered(subject, subject.tokens("w1 w2"), found, 0, (2.0,), tokens=1)
    moved = 2.0 * float(found.vectors[0].double().square().sum())
    assert table["score"].diff().iloc[1] == pytest.approx(moved, rel=1e-4)


def write_old(folder, site, provenance, index, vectors):
    """The three files as versions before the reading left them."""
    folder.mkdir(parents=True)
    save_file({"vectors": vectors}, folder / "vectors.safetensors")
    pd.DataFrame(index).to_parquet(folder / "index.parquet")
    about = {"site": site, "provenance": provenance}
    (folder / "directions.json").write_text(json.dumps(about))
    return folder


class TestOldLayout:
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(4))
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(5))

    def test_obsprop(self, tmp_path, dog_model, own_home):
        about = {"from": "obsprop", "model": str(dog_model), "observable": "gender"}
        index = {"name": ["26.2", "26.3"], "constant": [0.5, 1.0]}
        folder = write_old(tmp_path / "d", "1.resid_pre", about, index, self.vectors)
        found = Directions.load(folder)
        eps = Weights(dog_model).spec.eps
        scale = (self.x.double().square().mean(-1, keepdim=True) + eps).sqrt()
        want = self.x.double() / scale @ self.vectors.double().T + torch.tensor([0.5, 1.0])
        torch.testing.assert_close(found.scores(self.x), want, atol=1e-5, rtol=1e-5)
        made = found.provenance
        assert (made.analysis, made.model, made.notes) == (
            *("obsprop", str(dog_model)),
            {"observable": "gender"},
        )

    def test_a_model_that_is_gone(self, tmp_path, own_home, capsys):
        about = {"from": "obsprop", "model": str(tmp_path / "gone")}
        index = {"name": ["26.2", "26.3"], "constant": [0.5, 1.0]}
        folder = write_old(tmp_path / "d", "1.resid_pre", about, index, self.vectors)
        with pytest.raises(UserError, match="no score: an earlier version made them"):
            Directions.load(folder).scores(self.x)

    @pytest.mark.parametrize(
        ("name", "constants"), [("probe-L1", [1.0, 2.0]), ("means-L1", [0, 0])]
    )
    def test_othello(self, name, constants, tmp_path):
        about = {"from": "othello.compare", "model": "othello-gpt"}
        index = {"name": ["own a1", "own b1"], "intercept": [1.0, 2.0]}
        folder = write_old(tmp_path / name, "1.resid_post", about, index, self.vectors)
        want = (self.x @ self.vectors.T).double() + torch.tensor(constants)
        torch.testing.assert_close(Directions.load(folder).scores(self.x), want)

    def test_knob_and_a_model_that_is_no_name(self, tmp_path):
        about = {"analysis": "knob.learn", "model": {"base": "a", "adapter": "b"}}
        index = {"direction": ["learned", "random"], "layer": [20, 20]}
        folder = write_old(tmp_path / "d", "1.resid_post", about, index, self.vectors)
        found = Directions.load(folder)
        assert found.names == ["learned", "random"]
        assert found.reading == Product()
        with pytest.raises(UserError, match="do not name their model"):
            found.model  # noqa: B018

    def test_neurons(self, tmp_path, dog_model, own_home):
        about = {"from": "neurons", "model": str(dog_model)}
        index = {"name": ["1.down.17", "1.down.3"]}
        folder = write_old(tmp_path / "d", "1.mlp_out", about, index, self.vectors)
        found = Directions.load(folder)
        assert (found.read_at, found.index["unit"].tolist()) == (Site("mlp_post", 1), [17, 3])
