"""Training a tuned lens, step by step; a stopped training goes on bit for bit."""

from __future__ import annotations

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..progress import progress
from ..runs.checkpoint import Checkpoint, restore_training, training_state
from ..runs.writer import RunWriter, save_tensors
from .files import FILE, said_of, tensors_of
from .lens import Lens, read
from .states import Reader, States, kl_from


class Affine(nn.Module):
    """The map of one layer under training (see tune.py)."""

    def __init__(self, x: Float[Tensor, "n d"]) -> None:
        super().__init__()
        self.each = x.square().mean(0).sqrt().clamp_min(1e-6 * x.square().mean().sqrt())
        self.whole = x.square().mean().sqrt()
        self.W = nn.Parameter(x.new_zeros(x.shape[1], x.shape[1]))
        self.beta = nn.Parameter(x.new_zeros(x.shape[1]))

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        change: Tensor = (x / self.each) @ self.W.T + self.beta
        return x + self.whole * change

    @torch.no_grad()
    def map(self) -> Float[Tensor, "d d"]:
        """A_l."""
        change: Tensor = self.whole * self.W / self.each
        return torch.eye(len(change), device=change.device) + change

    @torch.no_grad()
    def bias(self) -> Float[Tensor, " d"]:
        """b_l."""
        made: Tensor = self.whole * self.beta
        return made


def tuned(
    reader: Reader,
    learned: list[list[list[int]]],
    others: list[list[list[int]]],
    rate: float,
    out: RunWriter,
) -> pd.DataFrame:
    """Train on batches of passages, and write the lens and the curve; the rows of
    `layers.parquet`, from batches of other passages."""
    lens = _trained(reader, learned, rate, out)
    with out.part(FILE) as path:
        save_tensors(tensors_of(lens), path, said_of(lens))
    logit, kls = Lens(reader.weights, "final"), []
    with progress("held out", len(others), "batches") as advance:
        first = sum(map(len, [*learned, *others]))  # no step has such a number
        for number, some in enumerate(others, first):
            states = reader.states(some, number)
            kls.append(torch.tensor([_kls(each, states, reader.W_U) for each in (logit, lens)]))
            advance(1)
    before, after = torch.cat(kls, 2).mean(2).tolist()
    return pd.DataFrame({"layer": range(len(after)), "logit_kl": before, "kl": after})


def _trained(reader: Reader, steps: list[list[list[int]]], rate: float, out: RunWriter) -> Lens:
    """A step a batch of passages, resumed step by step; the learning rate falls to 0."""
    layers = [Affine(x) for x in reader.states(steps[0], 0).x[:-1]]
    trained = nn.ModuleList(layers)
    optimiser = torch.optim.Adam(trained.parameters(), lr=rate)
    checkpoint, curve = Checkpoint(out, "tune"), list[float]()
    if state := checkpoint.read():
        restore_training(state.tensors, trained.named_parameters(), optimiser)
        curve = state.note["curve"]
    with progress("tune", len(steps), "steps", len(curve)) as advance:
        for number in range(len(curve), len(steps)):
            states, kls = reader.states(steps[number], number), []
            optimiser.param_groups[0]["lr"] = rate * (1 - number / len(steps))
            optimiser.zero_grad()
            for layer, x in zip(layers, states.x[:-1], strict=True):
                kl = kl_from(states.own, read(reader.weights, layer(x), reader.W_U)).mean()
                kl.backward()  # type: ignore[no-untyped-call]  # a layer at a time: the logits are large
                kls.append(float(kl.detach()))
            optimiser.step()
            curve.append(sum(kls) / len(kls))
            advance(1, f"KL {curve[-1]:.3f}")
            if checkpoint.due():
                tensors = training_state(trained.named_parameters(), optimiser)
                checkpoint.write(tensors, {"curve": curve})
    out.table("curve", pd.DataFrame({"step": range(len(curve)), "kl": curve}))
    maps = {number: layer.map() for number, layer in enumerate(layers)}
    biases = {number: layer.bias() for number, layer in enumerate(layers)}
    return Lens(reader.weights, "tuned", maps, sum(map(len, steps)), biases)


@torch.no_grad()
def _kls(lens: Lens, states: States, W_U: Float[Tensor, "v d"]) -> list[list[float]]:
    """By layer but the last, at every position."""
    read_at = enumerate(states.x[:-1])
    return [kl_from(states.own, lens.logits(x, i, W_U)).tolist() for i, x in read_at]
