"""A latent is scored as its SAE's encoder says, wherever the SAE lies."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from sae_lens import Transcoder, TranscoderConfig
from safetensors.torch import load_file, save_file

from interp.data import FOLDER
from interp.directions import Directions, open_directions
from interp.directions.encoder import Encoder
from interp.directions.inspect import top_examples
from interp.directions.sources import latent_directions
from interp.errors import UserError
from interp.model.subject import open_subject
from interp.saes import open_sae

from .made import SITE, of_reading, planted_sae


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
