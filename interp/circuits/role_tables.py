"""The table of the study `circuits.roles`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..directions.reading import Scale
from ..errors import UserError
from ..model.readout import open_readout
from ..model.site import Site
from ..model.subject import Subject
from ..model.weights import Weights
from ..progress import progress
from ..runs.writer import RunWriter
from .head import Head
from .ov import OV

if TYPE_CHECKING:
    from .roles import RolesConfig

SCORES = ("previous", "first", "own", "duplicate", "induction")
"""Columns that are means of the pattern."""


def role_tables(config: RolesConfig, out: RunWriter) -> dict[str, Any]:
    """Write the table of a run; its metrics."""
    subject = config.open(out, attention="eager")
    sites = subject.matching(["*.attn_pattern"])
    sums = torch.zeros(len(sites), subject.spec.n_heads, len(SCORES), dtype=torch.float64)
    losses = torch.zeros(2, dtype=torch.float64)
    with progress("read", config.sequences, "sequences") as advance:
        for tokens in _sequences(config, subject):
            ids = torch.tensor([*subject.prompting.start, *tokens.tolist(), *tokens.tolist()])
            found = subject.capture(ids[None], [*sites, Site("logits")])
            for i, site in enumerate(sites):
                sums[i] += scores(found[site][0].cpu(), config.length)
            logits = subject.spec.capped(found[Site("logits")][0].cpu())
            losses += copy_losses(logits, ids, config.length)
            advance(1)
    table = out.table("heads", list(_rows(config, sites, sums / config.sequences)))
    first, second = (losses / config.sequences).tolist()
    best = table.nlargest(1, "induction").iloc[0]
    return {
        "loss of the first copy, nats": first,
        "loss of the second copy, nats": second,
        "most induction": float(best["induction"]),
        "by head": f"{best['layer']:.0f}.{best['head']:.0f}",
    }


def _sequences(config: RolesConfig, subject: Subject) -> Iterator[Int[Tensor, " length"]]:
    """Random tokens that are text, no two of a sequence alike."""
    ids = open_readout(config.stored_weights).ids
    special = torch.tensor(subject.prompting.special, dtype=torch.long)
    text = ids[~torch.isin(ids, special)]
    if len(text) < config.length:
        raise UserError(f"the vocabulary has {len(text)} tokens: give a shorter --length")
    generator = torch.Generator().manual_seed(config.seed)
    for _ in range(config.sequences):
        yield text[torch.randperm(len(text), generator=generator)[: config.length]]


def _rows(
    config: RolesConfig, sites: list[Site], means: Float[Tensor, "layers heads scores"]
) -> Iterator[dict[str, Any]]:
    """A row a head."""
    circuits = Copying(config.stored_weights)
    for site, layer in zip(sites, means, strict=True):
        assert site.layer is not None
        for number, head in enumerate(layer.tolist()):
            yield {
                "layer": site.layer,
                "head": number,
                **dict(zip(SCORES, head, strict=True)),
                "copying": circuits(Head(site.layer, number)),
            }


def scores(pattern: Float[Tensor, "heads query key"], length: int) -> Float[Tensor, "heads scores"]:
    """The means of one sequence, by `SCORES`: its last 2 `length` tokens are the copies."""
    pattern = pattern.double()
    second = range(pattern.shape[-1] - length, pattern.shape[-1])

    def mean(queries: range, back: int) -> Tensor:
        at = torch.tensor(queries)
        return pattern[:, at, at - back].mean(1)

    every = range(1, pattern.shape[-1])
    first = pattern[:, 1:, 0].mean(1)
    repeated = [mean(second, back) for back in (length, length - 1)]
    return torch.stack([mean(every, 1), first, mean(every, 0), *repeated], 1)


def copy_losses(
    logits: Float[Tensor, "pos d_vocab"], ids: Int[Tensor, " pos"], length: int
) -> Float[Tensor, " copies"]:
    """Mean cost in nats of the tokens of each copy that have one before them in it: the first of a
    copy cannot be known."""
    costs = -logits.double().log_softmax(-1)[:-1].gather(1, ids[1:, None])[:, 0]
    return torch.stack([costs[-2 * length + 1 : -length].mean(), costs[1 - length :].mean()])


class Copying:
    """The copying score of heads, from the weights."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        E, spec = weights.W_E(), weights.spec
        if weights.norm("attn", 0) is not None:
            E = Scale(spec.norm == "layer", spec.eps)(E, E)
        readout = open_readout(weights)
        self._between = (E[readout.ids].T @ readout.rows).double()

    def __call__(self, head: Head) -> float:
        if self._weights.spec.family.no_heads:
            return float("nan")
        ov = OV.of(self._weights, head)
        values = torch.linalg.eigvals(ov.read @ self._between @ ov.write)
        return float(values.real.sum() / values.abs().sum())
