"""Training in step over one stream: planted features, and a stop in the middle changes nothing."""

import dataclasses
import itertools

import pytest
import torch
from safetensors.torch import load_file

from interp.errors import UserError
from interp.model.site import Site
from interp.probes import fvu
from interp.runs.writer import RunWriter
from interp.saes import open_sae
from interp.saes.train import CHECKPOINT, SaePlan, Schedule, train_saes

SITE = Site("resid_post", 1)
PLANS = [
    SaePlan("topk", SITE, "topk", 32, 3),
    SaePlan("l1", SITE, "l1", 32, 1.0),
]
SCHEDULE = Schedule(40, 128, 2e-3, "planted", checkpoint=15)


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


def test_both_architectures_learn(tmp_path) -> None:
    schedule = dataclasses.replace(SCHEDULE, steps=200, lr=1e-2, checkpoint=0)
    train_saes(PLANS, stream, schedule, RunWriter(tmp_path, {}), "train")
    x = planted(2000, 1)
    for plan in PLANS:
        sae = open_sae(tmp_path / "saes" / plan.name)
        assert sae.site == "1.resid_post"
        assert fvu(x, sae.decode(sae.encode(x))) < 0.35
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_stopped_training_goes_on_exactly(tmp_path) -> None:
    whole, stopped = (RunWriter(tmp_path / name, {}) for name in ("whole", "stopped"))
    train_saes(PLANS, stream, SCHEDULE, whole, "train")

    def short(first):
        return itertools.islice(stream(first), 38 - first)

    with pytest.raises(UserError, match="the text ended after 4736 tokens"):
        train_saes(PLANS, short, SCHEDULE, stopped, "train")
    assert int(load_file(tmp_path / "stopped" / CHECKPOINT)["step"]) == 30
    started = []

    def rest(first):
        started.append(first)
        return stream(first)

    train_saes(PLANS, rest, SCHEDULE, stopped, "train")
    assert started == [0, 31]
    for plan in PLANS:
        part = f"saes/{plan.name}/sae_weights.safetensors"
        assert (whole.path / part).read_bytes() == (stopped.path / part).read_bytes()


def test_plans_of_one_name_and_an_empty_stream_are_refused(tmp_path) -> None:
    writer = RunWriter(tmp_path, {})
    with pytest.raises(ValueError, match="two SAEs of one name"):
        train_saes([PLANS[0], PLANS[0]], stream, SCHEDULE, writer, "train")
    with pytest.raises(UserError, match="does not fill one batch of 128 tokens"):
        train_saes(PLANS, lambda first: iter(()), SCHEDULE, writer, "train")
