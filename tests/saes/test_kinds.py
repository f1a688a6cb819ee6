"""Every kind of SAE, and transcoders: planted features come back, what is stored is what was
trained, and a killed training goes on bit for bit."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from interp.model.site import Site
from interp.runs import checkpoint
from interp.runs.writer import RunWriter
from interp.saes import open_sae
from interp.saes.kinds import KINDS, TABLE
from interp.saes.learner import Learner
from interp.saes.plan import SaePlan, Schedule
from interp.saes.spread import Spread
from interp.saes.train import train_saes
from interp.saes.training import transcoded

from ..forked import die, killed

READ, GIVEN = Site("mlp_in", 1), Site("mlp_out", 1)
FEATURES, D_IN, D_OUT, ACTIVE, D_SAE = 64, 32, 24, 4, 96
SCHEDULE = Schedule(300, 256, 1e-2, "planted", bos=True, context=64, half=False)


def plan(kind, gives=None):
    name = f"{kind}-transcoder" if gives else kind
    return SaePlan(name, READ, kind, D_SAE, ACTIVE, steered=TABLE[kind].penalised, gives=gives)


SAES = [plan(kind) for kind in KINDS]
TRANSCODERS = [plan(kind, GIVEN) for kind in KINDS if TABLE[kind].transcoder]
EVERY = [*SAES, *TRANSCODERS]


def atoms(width, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(FEATURES, width, generator=generator), dim=1)


def strengths(count, seed):
    """How active each feature is: 4 of 64 at a time."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(count, FEATURES, generator=generator).topk(ACTIVE).indices
    strength = 1 + torch.rand(count, ACTIVE, generator=generator)
    return torch.zeros(count, FEATURES).scatter(1, chosen, strength)


def planted(count, seed):
    """The same features in two spaces, far from the origin and of unlike scales."""
    z = strengths(count, seed)
    return {READ: 3 + 20 * z @ atoms(D_IN, 0), GIVEN: 0.1 * z @ atoms(D_OUT, 1) - 1}


def stream(first):
    return (planted(256, 100 + number) for number in itertools.count(first))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    train_saes(EVERY, stream, SCHEDULE, RunWriter(folder, {}), "train")
    return folder / "saes"


def recovered(features, decoder):
    """Mean over features of the largest cosine with a decoder row."""
    rows = torch.nn.functional.normalize(decoder, dim=1)
    return float((features @ rows.T).max(1).values.mean())


def by_hand(folder, kind, x):
    """Latents and reconstruction in numpy's float64, from the stored weights alone."""
    w = {
        name: value.double().numpy()
        for name, value in load_file(folder / "sae_weights.safetensors").items()
    }
    transcodes = w["W_dec"].shape[1] != w["W_enc"].shape[0]
    centred = x.double().numpy() - (0 if transcodes else w["b_dec"])
    pre = centred @ w["W_enc"]
    if kind == "gated":
        z = (pre + w["b_gate"] > 0) * np.maximum(pre * np.exp(w["r_mag"]) + w["b_mag"], 0)
    else:
        pre = pre + w["b_enc"]
        z = np.maximum(pre, 0) * (pre > w.get("threshold", 0))
    if kind == "topk":
        lengths = np.linalg.norm(w["W_dec"], axis=1)
        lowest = np.sort(z * lengths, axis=1)[:, [-ACTIVE]]
        z = np.where(z * lengths >= lowest, z, 0)
    return z, z @ w["W_dec"] + w["b_dec"]


@pytest.mark.parametrize("plan", EVERY, ids=lambda plan: plan.name)
def test_planted_features_are_found(plan, trained) -> None:
    """The mean of the largest cosine is above 0.9, that of as many random rows below 0.6; and
    each feature has a latent whose activation goes with it, a mean correlation above 0.75
    (0.6 under an L1 penalty)."""
    weights = load_file(trained / plan.name / "sae_weights.safetensors")
    features = atoms(D_OUT, 1) if plan.gives else atoms(D_IN, 0)
    assert recovered(features, weights["W_dec"]) > 0.9
    random = torch.randn(weights["W_dec"].shape, generator=torch.Generator().manual_seed(5))
    assert recovered(features, random) < 0.6
    z, _ = by_hand(trained / plan.name, plan.kind, planted(2000, 1)[READ])
    both = np.corrcoef(
        strengths(2000, 1).T.numpy(), z.T + 1e-12 * np.random.default_rng(0).random(z.T.shape)
    )
    own = both[:FEATURES, FEATURES:].max(1).mean()
    assert own > (0.6 if plan.kind == "l1" else 0.75)
    made = measured(plan, trained)
    assert made["l0"] == pytest.approx(ACTIVE, rel=0.12), "what was asked for"
    assert made["fvu"] < (0.75 if plan.kind == "l1" else 0.25)


def measured(plan, trained):
    held_out = planted(2000, 1)
    sae = open_sae(trained / plan.name)
    assert (sae.site, sae.out_site) == (str(READ), str(plan.gives or READ))
    if plan.gives:
        return transcoded(sae, held_out[READ], held_out[GIVEN])
    return sae.quality(held_out[READ])


@pytest.mark.parametrize("plan", EVERY, ids=lambda plan: plan.name)
def test_what_is_reported_is_what_is_stored(plan, trained) -> None:
    held_out = planted(2000, 1)
    z, given = by_hand(trained / plan.name, plan.kind, held_out[READ])
    target = held_out[plan.gives or READ].double().numpy()
    made = measured(plan, trained)
    off = np.square(target - given).sum() / np.square(target - target.mean(0)).sum()
    assert made["fvu"] == pytest.approx(off, rel=1e-4)
    assert made["l0"] == pytest.approx((z > 0).sum(1).mean(), rel=1e-3)
    assert made["alive"] == pytest.approx((z > 0).any(0).sum(), abs=1)
    curve = pd.read_parquet(trained / plan.name / "training.parquet")
    assert curve["step"].tolist() == list(range(50, 301, 50))
    last = curve.iloc[-1]
    assert last["fvu"] == pytest.approx(made["fvu"], rel=0.25)
    assert last["l0"] == pytest.approx(made["l0"], rel=0.2)
    assert np.isnan(last["penalty"]) != TABLE[plan.kind].penalised


@pytest.mark.parametrize("plan", EVERY, ids=lambda plan: plan.name)
def test_sae_lens_reads_what_was_trained(plan, tmp_path) -> None:
    """In float64: the SAE in training on scaled inputs, the stored one on plain ones."""
    from sae_lens import SAE

    from interp.saes.fold import save_sae

    spreads = {site: Spread.of(x) for site, x in planted(2000, 0).items()}
    learner = Learner(plan, SCHEDULE, D_IN, D_OUT if plan.gives else D_IN)
    for step, batch in enumerate(itertools.islice(stream(0), 30), 1):
        learner.step(step, learner.inputs(batch, spreads))
    learner.sae.to(torch.float64)
    learner.sae.dtype = torch.float64
    save_sae(learner.sae, plan, spreads, RunWriter(tmp_path, {}), half=False)
    stored = SAE.load_from_disk(tmp_path / "saes" / plan.name, dtype="float64")
    x = {site: values.double() for site, values in planted(500, 7).items()}
    fed = torch.cat([spreads[site].scaled(x[site]) for site in plan.sites], dim=1)
    with torch.no_grad():
        z, pre = learner.sae.encode_with_hidden_pre(fed)
        if plan.kind in ("batchtopk", "matryoshka"):  # sae-lens reads them by their threshold
            z = pre * (pre > learner.sae.topk_threshold)
        scaled = spreads[plan.gives or READ]
        given = learner.sae.decode(z) / scaled.scale + scaled.centre
        expected = z / spreads[READ].scale
        torch.testing.assert_close(stored.encode(x[READ]), expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(stored(x[READ]), given, rtol=1e-6, atol=1e-6)
    about = stored.cfg.metadata
    assert (about.model_name, about.prepend_bos, about.context_size) == ("planted", True, 64)
    assert about.exclude_special_tokens is True
    assert about.hook_name == "blocks.1.mlp.hook_in"
    assert about.hook_name_out == ("blocks.1.hook_mlp_out" if plan.gives else None)


def test_one_kind_is_trained_as_beside_others(trained, tmp_path) -> None:
    train_saes(SAES[1:2], stream, SCHEDULE, RunWriter(tmp_path, {}), "train")
    name = f"{SAES[1].name}/sae_weights.safetensors"
    assert (tmp_path / "saes" / name).read_bytes() == (trained / name).read_bytes()


def test_all_begin_with_the_same_weights() -> None:
    begun = [Learner(plan, SCHEDULE, D_IN, D_IN).sae for plan in SAES]
    assert all(torch.equal(begun[0].W_enc, sae.W_enc) for sae in begun[1:])
    other = dataclasses.replace(SAES[0], seed=1)
    assert not torch.equal(begun[0].W_enc, Learner(other, SCHEDULE, D_IN, D_IN).sae.W_enc)


SHORT = dataclasses.replace(SCHEDULE, steps=30)


def dies(folder, at):
    """A training that is killed when it reads its `at`th batch."""

    def dying(first):
        for number, batch in enumerate(stream(first), first):
            if number == at:
                die()
            yield batch

    train_saes(EVERY, dying, SHORT, RunWriter(folder, {}), "train")


def test_a_killed_training_goes_on_bit_for_bit(tmp_path, one_thread, monkeypatch) -> None:
    """Of every kind: resampled, steered and thresholded ones, and transcoders; kill -9."""
    for name in ("SECONDS", "SHARE"):
        monkeypatch.setattr(checkpoint, name, 0)
    whole = RunWriter(tmp_path / "whole", {})
    train_saes(EVERY, stream, SHORT, whole, "train")
    killed(dies, tmp_path / "stopped", 17)
    started = []

    def rest(first):
        started.append(first)
        return stream(first)

    stopped = RunWriter(tmp_path / "stopped", {})
    train_saes(EVERY, rest, SHORT, stopped, "train")
    assert started == [17]
    for plan in EVERY:
        for name in ("sae_weights.safetensors", "training.parquet", "cfg.json"):
            part = f"saes/{plan.name}/{name}"
            assert (whole.path / part).read_bytes() == (stopped.path / part).read_bytes(), part


@pytest.mark.parametrize("kind", [kind for kind in KINDS if TABLE[kind].resampled])
def test_dead_latents_begin_again(kind, tmp_path) -> None:
    """Half of them begin where no input reaches them."""

    def alive(resampling):
        learner = Learner(plan(kind), SCHEDULE, D_IN, D_IN)
        bias = learner.sae.b_gate if kind == "gated" else learner.sae.b_enc
        bias.data[::2] = -99.0
        spreads = {site: Spread.of(x) for site, x in planted(2000, 0).items()}
        for step, batch in enumerate(itertools.islice(stream(0), 60), 1):
            at = step if resampling else max(1, step % SCHEDULE.dead)
            learner.step(at, learner.inputs(batch, spreads))
        x = spreads[READ].scaled(planted(2000, 1)[READ])
        return int((learner.sae.encode(x)[:, ::2] > 0).any(0).sum())

    assert alive(resampling=False) == 0
    assert alive(resampling=True) > 20


def test_what_sae_lens_cannot_read_is_no_plan() -> None:
    with pytest.raises(ValueError, match="no transcoder of the kind topk"):
        plan("topk", GIVEN)
    with pytest.raises(ValueError, match="batchtopk has no penalty"):
        dataclasses.replace(SAES[1], steered=True)
