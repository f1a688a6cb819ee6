"""Training in step over one stream: planted features, and a stop in the middle changes nothing."""

import dataclasses
import itertools

import pytest
import torch
from safetensors.torch import load_file

from interp.errors import UserError
from interp.model.site import Site
from interp.probes import fvu
from interp.runs import checkpoint
from interp.runs.checkpoint import Checkpoint
from interp.runs.writer import RunWriter
from interp.saes import learner, open_sae
from interp.saes.plan import SaePlan, Schedule
from interp.saes.train import train_saes

SITE = Site("resid_post", 1)
PLANS = [
    SaePlan("topk", SITE, "topk", 32, 3),
    SaePlan("l1", SITE, "l1", 32, 1.0),
]
SCHEDULE = Schedule(40, 128, 2e-3, "planted")
LONG = dataclasses.replace(SCHEDULE, steps=200, lr=1e-2)
STORED = "sae_weights.safetensors"


def planted(count, seed):
    """Three of 24 features at a time, in 16 dimensions."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(
        torch.randn(24, 16, generator=torch.Generator().manual_seed(0)), dim=1
    )
    chosen = torch.rand(count, 24, generator=generator).topk(3).indices
    z = torch.zeros(count, 24).scatter(1, chosen, 1 + torch.rand(count, 3, generator=generator))
    return z @ atoms


def stream(first):
    for number in itertools.count(first):
        yield {SITE: planted(128, 100 + number)}


def changed(change):
    """The stream with every batch changed, `change(number, x)`."""

    def batches(first):
        for number, batch in enumerate(stream(first), first):
            yield {SITE: change(number, batch[SITE])}

    return batches


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The folder of a training on the planted stream as it is."""
    folder = tmp_path_factory.mktemp("plain")
    train_saes(PLANS, stream, LONG, RunWriter(folder, {}), "train")
    return folder / "saes"


def test_both_architectures_learn(plain) -> None:
    x = planted(2000, 1)
    for plan in PLANS:
        sae = open_sae(plain / plan.name)
        assert sae.site == "1.resid_post"
        assert fvu(x, sae.decode(sae.encode(x))) < 0.35
        assert load_file(plain / plan.name / STORED)["W_dec"].dtype == torch.float16
    assert not list(plain.rglob("state.safetensors"))


@pytest.mark.parametrize("batches", [1, 10**6])
def test_massive_activations_do_not_set_the_scale(plain, tmp_path, batches) -> None:
    """Five tokens of a thousand times the length, in the first batch alone and in every one."""

    def massive(number, x):
        if number < batches:
            x[:5] *= 1000
        return x

    train_saes(PLANS, changed(massive), LONG, RunWriter(tmp_path, {}), "train")
    x = planted(2000, 1)
    for plan in PLANS:
        clean, sae = open_sae(plain / plan.name), open_sae(tmp_path / "saes" / plan.name)
        expected = clean.quality(x)
        assert sae.quality(x)["fvu"] == pytest.approx(expected["fvu"], rel=0.1)
        assert sae.quality(x)["alive"] >= expected["alive"] - 1


def test_a_common_mean_changes_nothing(plain, tmp_path) -> None:
    mean = 1000 * planted(1, 7)
    train_saes(PLANS, changed(lambda _, x: x + mean), LONG, RunWriter(tmp_path, {}), "train")
    x = planted(2000, 1)
    for plan in PLANS:
        clean, sae = open_sae(plain / plan.name), open_sae(tmp_path / "saes" / plan.name)
        expected, made = clean.quality(x), sae.quality(x + mean)
        assert made["fvu"] == pytest.approx(expected["fvu"], rel=0.05)
        assert made["l0"] == pytest.approx(expected["l0"], rel=0.05)
        stored = load_file(tmp_path / "saes" / plan.name / STORED)
        # in float16 the bias alone would be half the spread off
        assert stored["b_dec"].dtype == torch.float32
        assert float((sae.b_dec - mean[0]).norm()) < 5


def test_a_power_of_two_is_the_same_training(plain, tmp_path) -> None:
    """Norms of 1e6 and a mean of 1e5, beyond float16: whole on disk, and the same bits."""
    factor = 2.0**20
    train_saes(PLANS, changed(lambda _, x: x * factor), LONG, RunWriter(tmp_path, {}), "train")
    for plan in PLANS:
        large = load_file(tmp_path / "saes" / plan.name / STORED)
        small = load_file(plain / plan.name / STORED)
        assert {x.dtype for x in large.values()} == {torch.float32}
        for name, value in large.items():
            unit = value / factor if name in ("b_enc", "b_dec") else value
            assert torch.equal(unit.half(), small[name])
        x = planted(500, 1) * factor
        sae = open_sae(tmp_path / "saes" / plan.name)
        assert sae.quality(x)["fvu"] < 0.35


def test_dead_latents_of_an_l1_penalty_come_back(tmp_path, monkeypatch) -> None:
    """Half of them begin with a bias that no input overcomes: without a second beginning they
    would never fire."""
    begin = learner._trainer

    def half_dead(*given):
        trainer = begin(*given)
        trainer.sae.b_enc.data[::2] = -99.0
        return trainer

    monkeypatch.setattr(learner, "_trainer", half_dead)
    plans = [dataclasses.replace(PLANS[1], sparsity=0.3)]
    for name, resampled in (("with", True), ("without", False)):
        with monkeypatch.context() as patch:
            if not resampled:
                patch.setattr(learner, "resample", lambda *given: None)
            train_saes(plans, stream, LONG, RunWriter(tmp_path / name, {}), "train")
    alive = {
        name: open_sae(tmp_path / name / "saes" / "l1").quality(planted(2000, 1))["alive"]
        for name in ("with", "without")
    }
    assert alive["without"] <= 16
    assert alive["with"] >= 28


def test_a_stopped_training_goes_on_exactly(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0)
    monkeypatch.setattr(checkpoint, "SHARE", 0)
    whole, stopped = (RunWriter(tmp_path / name, {}) for name in ("whole", "stopped"))
    train_saes(PLANS, stream, SCHEDULE, whole, "train")

    def short(first):
        return itertools.islice(stream(first), 38 - first)

    for _ in range(2):  # the second time, right after it has resumed
        with pytest.raises(UserError, match="the text ended after 4864 tokens"):
            train_saes(PLANS, short, SCHEDULE, stopped, "train")
    assert Checkpoint(stopped, "saes/topk").read().note["done"] == 38
    started = []

    def rest(first):
        started.append(first)
        return stream(first)

    train_saes(PLANS, rest, SCHEDULE, stopped, "train")
    assert started == [38]
    for plan in PLANS:
        part = f"saes/{plan.name}/{STORED}"
        assert (whole.path / part).read_bytes() == (stopped.path / part).read_bytes()
    # what a kill before its removal leaves is not taken for another set's
    Checkpoint(stopped, "saes/topk").write({}, {"done": 40})
    others = [dataclasses.replace(PLANS[0], name="other")]
    train_saes(others, stream, dataclasses.replace(SCHEDULE, steps=2), stopped, "train")


def test_a_training_that_diverges_keeps_its_last_numbers(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0)
    monkeypatch.setattr(checkpoint, "SHARE", 0)
    steep = dataclasses.replace(SCHEDULE, lr=1e30)
    out = RunWriter(tmp_path, {})
    with pytest.raises(UserError, match=r"training of topk diverges.*give a smaller --lr"):
        train_saes(PLANS[:1], stream, steep, out, "train")
    state = Checkpoint(out, "saes/topk").read()
    assert all(x.isfinite().all() for x in state.tensors.values())
    assert not (tmp_path / "saes" / "topk").exists()


def test_what_cannot_be_trained_is_refused(tmp_path) -> None:
    writer = RunWriter(tmp_path, {})
    with pytest.raises(ValueError, match="two SAEs of one name"):
        train_saes([PLANS[0], PLANS[0]], stream, SCHEDULE, writer, "train")
    with pytest.raises(UserError, match="does not fill one batch of 128 tokens"):
        train_saes(PLANS, lambda first: iter(()), SCHEDULE, writer, "train")
    same = changed(lambda _, x: torch.ones_like(x))
    with pytest.raises(UserError, match="the same for every token"):
        train_saes(PLANS, same, SCHEDULE, writer, "train")
