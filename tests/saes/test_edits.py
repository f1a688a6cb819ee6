"""Edits by an SAE's latents, against plain arithmetic in float64."""

import numpy as np
import pytest
import torch
from sae_lens import (
    StandardSAE,
    StandardSAEConfig,
    TopKSAE,
    TopKSAEConfig,
    Transcoder,
    TranscoderConfig,
)

from interp.errors import UserError
from interp.model.edits import add
from interp.model.network import open_network
from interp.model.prompting import Prompting
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.saes import Sae, wrap
from interp.saes.edits import FIRST, ablate_latent, clamp_latent, splice, steer_latent

BACKENDS = ("native", "bridge", "nnsight")
D, LATENTS = 32, 80
SITE = Site("resid_post", 0)
NONE = Prompting(None)


def made(hook="blocks.0.hook_resid_post", k=0, d_in=D, dtype="float64", **config):
    """An SAE whose latents 3, 7 and 8 fire almost everywhere."""
    torch.manual_seed(1)
    sizes = {"d_in": d_in, "d_sae": LATENTS, "dtype": dtype, **config}
    inner = TopKSAE(TopKSAEConfig(k=k, **sizes)) if k else StandardSAE(StandardSAEConfig(**sizes))
    with torch.no_grad():
        for parameter in inner.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        inner.b_enc[[3, 7, 8]] += 2
    inner.cfg.metadata.hook_name = hook
    return inner


def by_hand(inner, x):
    """(z, x_hat) of float64 x [..., d], from the weights alone."""
    parts = {name: value.detach().double().numpy() for name, value in inner.named_parameters()}
    x = x.double().numpy()
    z = np.maximum(0, (x - parts["b_dec"]) @ parts["W_enc"] + parts["b_enc"])
    if k := getattr(inner.cfg, "k", 0):
        least = np.sort(z, -1)[..., -k][..., None]
        z = np.where(z >= least, z, 0)
    return z, z @ parts["W_dec"] + parts["b_dec"], parts["W_dec"]


@pytest.fixture(scope="module")
def opened(model_folder):
    got = {}

    def get(backend, model="llama"):
        if (backend, model) not in got:
            got[backend, model] = open_subject(model_folder(model), backend)
        return got[backend, model]

    return get


def edits_of(sae, prompting=NONE):
    """Every edit by the names of `wanted`."""
    return {
        "steer": steer_latent(sae, 7, 2.5, prompting),
        "steer two": steer_latent(sae, [7, 9], -1.5, prompting),
        "ablate": ablate_latent(sae, 7, prompting),
        "ablate two": ablate_latent(sae, [3, 7], prompting),
        "clamp": clamp_latent(sae, 7, 4.0, prompting),
        "splice": splice(sae, prompting),
        "splice held": splice(sae, prompting, held={7: 3.0, 8: 0.0}),
        "splice with error": splice(sae, prompting, error=True),
        "splice with error, held": splice(sae, prompting, True, {7: 3.0}),
    }


def wanted(name, x, z, x_hat, rows):
    """What an edit makes of x, a row at a time."""
    x, x_hat = x.double().numpy(), x_hat
    value = z[..., 7][..., None]
    return {
        "steer": x + 2.5 * rows[7],
        "steer two": x - 1.5 * rows[7] - 1.5 * rows[9],
        "ablate": x - value * rows[7],
        "ablate two": x - value * rows[7] - z[..., 3][..., None] * rows[3],
        "clamp": x + (4.0 - value) * rows[7],
        "splice": x_hat,
        "splice held": x_hat + (3.0 - value) * rows[7] - z[..., 8][..., None] * rows[8],
        "splice with error": x,
        "splice with error, held": x + (3.0 - value) * rows[7],
    }[name]


NAMES = list(edits_of(wrap(made())))


@pytest.mark.parametrize("k", [0, 12])
@pytest.mark.parametrize("name", NAMES)
def test_the_stream_is_what_plain_arithmetic_makes_of_it(name, k, opened):
    """All but each text's first position, padding and specials, which stay bit for bit."""
    subject, inner = opened("native"), made(k=k)
    batch = subject.pad([[5, 6, 7, 8, 9], [1, 2], [3, 4, 5]])
    x = subject.capture(batch, [SITE])[SITE]
    with subject.edited(edits_of(wrap(inner))[name]):
        changed = subject.capture(batch, [SITE])[SITE]
    z, x_hat, rows = by_hand(inner, x)
    assert (z[..., 7] > 0).any()
    touched = batch.mask.clone()
    touched[[0, 1, 2], [0, 3, 2]] = False
    assert int(touched.sum()) == 10 - 3 * FIRST
    want = torch.from_numpy(wanted(name, x, z, x_hat, rows))
    torch.testing.assert_close(changed.double()[touched], want[touched], atol=2e-6, rtol=1e-6)
    assert torch.equal(changed[~touched], x[~touched])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["ablate", "clamp", "splice"])
def test_every_backend_goes_on_with_it(name, backend, opened):
    """Logits of the edit by latents are those of the same change made by a patch-free addition."""
    subject, inner = opened(backend), made()
    batch = subject.pad([[5, 6, 7, 8, 9], [1, 2, 3, 4, 5]])
    x = subject.capture(batch, [SITE])[SITE]
    change = torch.from_numpy(wanted(name, x, *by_hand(inner, x))) - x.double()
    change[:, 0] = 0
    edit = edits_of(wrap(inner))[name]
    with subject.edited(edit):
        ours = subject.logits(batch)
    for row in range(2):
        for position in range(1, 5):
            where = torch.zeros_like(batch.mask)
            where[row, position] = True
            subject.edits = (*subject.edits, add(SITE, change[row, position], 1.0, where))
    plain_edits, subject.edits = subject.edits, ()
    with subject.edited(*plain_edits):
        want = subject.logits(batch)
    torch.testing.assert_close(ours, want, atol=1e-5, rtol=1e-5)
    assert (ours - subject.logits(batch))[:, 1:].abs().max() > 1e-3
    assert torch.equal(ours[:, 0], subject.logits(batch)[:, 0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["steer", "ablate", "splice"])
def test_generation_with_a_cache_equals_without(name, backend, opened):
    subject = opened(backend, "qwen3")
    subject.ends = ()
    batch = subject.pad([[5, 6, 7, 8], [1, 2]])
    with subject.edited(edits_of(wrap(made(dtype="float32")))[name]):
        new = subject.generate(batch, 6)
        rows = [r[m].tolist() for r, m in zip(batch.ids, batch.mask, strict=True)]
        for _ in range(6):
            logits = subject.logits(subject.pad(rows))[:, -1]
            rows = [[*row, int(i)] for row, i in zip(rows, logits.argmax(-1), strict=True)]
    assert new.tolist() == [row[-6:] for row in rows]
    assert new.tolist() != subject.generate(batch, 6).tolist()


class Specials(Prompting):
    """Of a model whose tokens 6 and 9 are special, 9 its BOS."""

    def __init__(self):
        super().__init__(None)
        self.special, self.start = (6, 9), (9,)


@pytest.mark.parametrize(
    ("excluded", "left"),
    [(None, [6, 9]), (True, [6, 9]), (False, [9]), ([8], [8, 9])],
)
def test_positions_that_the_sae_was_not_trained_on_stay(excluded, left, opened):
    subject, inner = opened("native"), made()
    inner.cfg.metadata.exclude_special_tokens = excluded
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    x = subject.capture(ids, [SITE])[SITE]
    with subject.edited(steer_latent(wrap(inner), 7, 9.0, Specials())):
        changed = subject.capture(ids, [SITE])[SITE]
    same = [int(i) for i, kept in zip(ids[0], (changed == x).all(-1)[0], strict=True) if kept]
    assert same == [5, *left]


def test_specials_that_are_generated_stay_too(opened):
    """The new token's own position is edited in the next step, unless it is no data."""
    subject = opened("native")
    subject.ends = ()
    batch = subject.pad([[5, 6, 7, 8]])
    plain = subject.generate(batch, 4)
    inner = made()
    inner.cfg.metadata.exclude_special_tokens = list(range(300))
    with subject.edited(steer_latent(wrap(inner), 7, 50.0, NONE)):
        assert torch.equal(subject.generate(batch, 4), plain)
    new = [int(i) for i in plain[0]]
    inner.cfg.metadata.exclude_special_tokens = [5, 6, 7, 8, new[0]]
    with subject.edited(steer_latent(wrap(inner), 7, 50.0, NONE)):
        steered = [int(i) for i in subject.generate(batch, 4)[0]]
    assert steered[:2] == new[:2]
    assert steered != new


@pytest.mark.parametrize("how", ["layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("name", NAMES)
def test_normalised_inputs(name, how, opened):
    """x_hat is in x's scale, so what a latent writes is scaled too."""
    subject, inner = opened("native"), made(normalize_activations=how)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    x = subject.capture(ids, [SITE])[SITE]
    with subject.edited(edits_of(wrap(inner))[name]):
        changed = subject.capture(ids, [SITE])[SITE]
    exact = x.double()
    if how == "layer_norm":
        shift, scale = exact.mean(-1, keepdim=True), exact.std(-1, keepdim=True)
        seen = (exact - shift) / (scale + 1e-5)
    else:
        shift, scale = 0, exact.norm(dim=-1, keepdim=True) / D**0.5
        seen = exact / scale
    z, x_hat, rows = by_hand(inner, seen)
    own = torch.from_numpy(wanted(name, seen, z, x_hat, rows))
    if name in ("splice", "splice held"):
        want = own * scale + shift
    else:
        want = exact + (own - seen) * scale
    torch.testing.assert_close(changed.double()[0, 1:], want[0, 1:], atol=5e-6, rtol=1e-5)


def test_centred_activations_keep_their_mean(opened):
    """What TransformerLens centres is the same stream without its mean."""
    inner = made()
    sae = Sae(inner, "0.resid_post", centred=True)
    subject = opened("native", "gpt2")
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    x = subject.capture(ids, [SITE])[SITE]
    mean = x.double().mean(-1, keepdim=True)
    z, x_hat, rows = by_hand(inner, x.double() - mean)
    for name in NAMES:
        with subject.edited(edits_of(sae)[name]):
            changed = subject.capture(ids, [SITE])[SITE]
        want = torch.from_numpy(wanted(name, x.double() - mean, z, x_hat, rows)) + mean
        torch.testing.assert_close(changed.double()[0, 1:], want[0, 1:], atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_heads(name, opened):
    """Of all heads side by side, and of one."""
    subject = opened("native", "gpt2")
    site, d_head = Site("head_z", 0), subject.spec.d_head
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    x = subject.capture(ids, [site])[site]
    heads = x.shape[-2]
    inner = made("blocks.0.attn.hook_z", d_in=heads * d_head, reshape_activations="hook_z")
    with subject.edited(edits_of(wrap(inner))[name]):
        changed = subject.capture(ids, [site])[site]
    want = torch.from_numpy(wanted(name, x.flatten(-2), *by_hand(inner, x.flatten(-2))))
    torch.testing.assert_close(
        changed.double().flatten(-2)[0, 1:], want[0, 1:], atol=2e-6, rtol=1e-6
    )
    inner = made("blocks.0.attn.hook_z", d_in=d_head)
    inner.cfg.metadata.hook_head_index = 1
    with subject.edited(edits_of(wrap(inner))[name]):
        changed = subject.capture(ids, [site])[site]
    own = x[..., 1, :]
    want = torch.from_numpy(wanted(name, own, *by_hand(inner, own)))
    torch.testing.assert_close(changed.double()[0, 1:, 1], want[0, 1:], atol=2e-6, rtol=1e-6)
    assert torch.equal(changed[..., 0, :], x[..., 0, :])


def test_a_value_for_each_text(opened):
    subject, sae = opened("native"), wrap(made())
    batch = subject.pad([[5, 6, 7], [5, 6, 7]])
    values = torch.tensor([1.0, -2.0])
    with subject.edited(clamp_latent(sae, 7, values, NONE)):
        both = subject.capture(batch, [SITE])[SITE]
    for row, value in enumerate(values.tolist()):
        with subject.edited(clamp_latent(sae, 7, value, NONE)):
            alone = subject.capture(batch.ids[:1], [SITE])[SITE]
        torch.testing.assert_close(both[row], alone[0])
    with (
        subject.edited(clamp_latent(sae, 7, torch.ones(3), NONE)),
        pytest.raises(UserError, match="3 values do not fit 2 texts"),
    ):
        subject.logits(batch)


def test_many_positions_go_through_in_parts(opened, monkeypatch):
    subject, sae = opened("native"), wrap(made())
    ids = torch.arange(60).view(3, 20)
    edit = clamp_latent(sae, 7, torch.tensor([1.0, 2.0, 3.0]), NONE)
    with subject.edited(edit):
        whole = subject.capture(ids, [SITE])[SITE]
    monkeypatch.setattr("interp.saes.edits.CELLS", 7 * LATENTS)
    with subject.edited(clamp_latent(sae, 7, torch.tensor([1.0, 2.0, 3.0]), NONE)):
        torch.testing.assert_close(subject.capture(ids, [SITE])[SITE], whole)


def test_what_cannot_be_acted_by_is_refused_by_name(opened):
    sae = wrap(made())
    for latents, says in (
        (80, "no latent 80: it has 0..79"),
        ([], "at least one"),
        ([3, 3], "the same"),
    ):
        with pytest.raises(UserError, match=says):
            steer_latent(sae, latents, 1.0, NONE)
    sliced = made()
    sliced.cfg.metadata.seqpos_slice = (2, None)
    with pytest.raises(UserError, match="seqpos_slice"):
        splice(wrap(sliced), NONE)
    of_error = made()
    of_error.cfg.metadata.reads = "linear error"
    with pytest.raises(UserError, match="an SAE of the linear error"):
        ablate_latent(wrap(of_error), 1, NONE)
    with pytest.raises(UserError, match="does not say which site"):
        ablate_latent(Sae(made(), ""), 1, NONE)
    reads, writes = "blocks.0.ln2.hook_normalized", "blocks.0.hook_mlp_out"
    transcoder = Transcoder(
        TranscoderConfig(d_in=D, d_sae=LATENTS, d_out=D, apply_b_dec_to_input=False)
    )
    transcoder.cfg.metadata.hook_name, transcoder.cfg.metadata.hook_name_out = reads, writes
    with pytest.raises(UserError, match="is a transcoder"):
        steer_latent(wrap(transcoder), 1, 1.0, NONE)
    narrow = wrap(made(d_in=16))
    for edit in (steer_latent(narrow, 1, 1.0, NONE), splice(narrow, NONE)):
        with (
            opened("native").edited(edit),
            pytest.raises(UserError, match="this SAE reads 16 numbers"),
        ):
            opened("native").logits(torch.tensor([[1, 2, 3]]))


def test_a_network_without_tokens_leaves_none_out():
    network = open_network(torch.nn.Sequential(torch.nn.Linear(4, 4)), torch.zeros(1, 4))
    edit = steer_latent(wrap(made(d_in=4)), 1, 1.0, NONE)
    edit = type(edit)(network.sites[0], edit.change, not_first=edit.not_first)
    with network.edited(edit), pytest.raises(UserError, match="leaves out tokens"):
        network.output(torch.zeros(1, 4))
