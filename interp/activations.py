"""Activations of a whole corpus, a batch at a time: streams, statistics, scores.

Everything here runs a Subject over rows of token ids (`corpus.token_rows`), reads only the sites
that are asked for, and holds one batch: memory does not grow with the number of tokens. Padding is
left out, so activations come as [tokens, ...]. Edits in scope while a stream is read apply to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .corpus import Rows
from .errors import UserError
from .progress import progress, waiting
from .site import Site, matching
from .subject import Subject

CHUNK = 1024
"""Directions scored at once."""
Sites = Iterable[str | Site]


class Source(NamedTuple):
    """Where activations come from: the row of ids, the place in it, and the token's id there."""

    row: Int[Tensor, " tokens"]
    position: Int[Tensor, " tokens"]
    token: Int[Tensor, " tokens"]


def stream(
    subject: Subject, rows: Iterable[Sequence[int]], sites: Sites, batch_size: int = 8
) -> Iterator[dict[Site, Float[Tensor, "tokens ..."]]]:
    """Activations at some sites (names or globs), batch by batch of rows.

    Each pass stops after the last of the sites. Nothing is kept once it has been handed out.

    Raises:
        UserError: a site the model has not or that has no vector per token; no rows.
    """
    found = passes(subject, rows, per_token(subject, sites), batch_size)
    return map(itemgetter(1), found)  # a loop would hold on to the batch it handed out


def per_token(subject: Subject, sites: Sites) -> list[Site]:
    """The sites that names or globs mean; each must have a vector per token."""
    wanted = matching([sites] if isinstance(sites, str) else sites, subject.sites)
    if any(site.kind == "attn_pattern" for site in wanted):
        raise UserError("attn_pattern has no vector per token: read it with Subject.capture")
    return wanted


def passes(
    subject: Subject, rows: Iterable[Sequence[int]], sites: list[Site], batch_size: int
) -> Iterator[tuple[Source, dict[Site, Tensor]]]:
    """Batch by batch: where the tokens come from, and their activations [tokens, ...]."""
    if batch_size < 1:
        raise UserError(f"batches of {batch_size} rows: give at least 1")
    left, first = iter(rows), 0
    while chosen := list(itertools.islice(left, batch_size)):
        batch = subject.pad(chosen)
        mask = batch.mask
        row = torch.arange(first, first + len(mask), device=mask.device)[:, None].expand_as(mask)
        source = Source(row[mask], (mask.long().cumsum(1) - 1)[mask], batch.ids[mask])
        captured = subject.capture(batch, sites)
        padded = any(len(ids) != mask.shape[1] for ids in chosen)
        # without padding, flattening is a view; `pop` lets go of what it copies otherwise
        yield (
            source,
            {s: captured.pop(s)[mask] if padded else captured.pop(s).flatten(0, 1) for s in sites},
        )
        first += len(chosen)
    if not first:
        raise UserError("there are no rows of tokens: give a corpus with text")


@contextmanager
def advancing(label: str, rows: Iterable[Sequence[int]]) -> Iterator[Callable[[int], None]]:
    """Progress in tokens where their number is known, a spinner where it is not."""
    if isinstance(rows, Rows | Sequence):
        total = rows.tokens if isinstance(rows, Rows) else sum(map(len, rows))
        with progress(label, total, "tokens") as advance:
            yield advance
    else:
        with waiting(label):
            yield lambda tokens: None


@dataclass(frozen=True)
class Statistics:
    """Count, mean and variance of vectors, in float64; parts merge exactly (Chan et al. 1979):

    M = M_a + M_b + delta delta^T n_a n_b / n   for M the sum of (x - mean)(x - mean)^T
    """

    count: int
    mean: Float[Tensor, ...]
    squares: Float[Tensor, ...]
    """Sum of squared deviations from the mean."""
    products: Float[Tensor, "d d"] | None = None
    """M, of the flattened vectors; only where the second moment was asked for."""

    @classmethod
    def of(cls, x: Float[Tensor, "tokens ..."], second_moment: bool = False) -> Statistics:
        """Of the vectors of one batch, at least one."""
        if not len(x):
            raise ValueError("statistics of no vectors")
        values = x.detach().double()
        mean = values.mean(0)
        apart = values - mean
        flat = apart.flatten(1)
        return cls(len(x), mean, apart.square().sum(0), flat.T @ flat if second_moment else None)

    def merge(self, other: Statistics) -> Statistics:
        """Of the vectors of both; the second moment if both have it."""
        count = self.count + other.count
        delta = other.mean - self.mean
        weight = self.count * other.count / count
        products = None
        if self.products is not None and other.products is not None:
            flat = delta.flatten()
            products = self.products + other.products + weight * torch.outer(flat, flat)
        return Statistics(
            count,
            self.mean + delta * (other.count / count),
            self.squares + other.squares + weight * delta.square(),
            products,
        )

    @property
    def var(self) -> Float[Tensor, ...]:
        """Population variance (divided by the count)."""
        return self.squares / self.count

    @property
    def covariance(self) -> Float[Tensor, "d d"]:
        if self.products is None:
            raise ValueError("collected without second_moment=True")
        return self.products / self.count

    @property
    def second_moment(self) -> Float[Tensor, "d d"]:
        """Mean of x x^T over the flattened vectors."""
        flat = self.mean.flatten()
        return self.covariance + torch.outer(flat, flat)


def statistics(
    subject: Subject,
    rows: Iterable[Sequence[int]],
    sites: Sites,
    second_moment: bool = False,
    batch_size: int = 8,
) -> dict[Site, Statistics]:
    """Statistics of the activations at some sites, without storing them.

    Raises:
        UserError: as `stream`.
    """
    wanted = per_token(subject, sites)
    merged: dict[Site, Statistics] = {}
    with advancing("statistics", rows) as advance:
        for source, found in passes(subject, rows, wanted, batch_size):
            for site, x in found.items():
                part = Statistics.of(x, second_moment)
                merged[site] = merged[site].merge(part) if site in merged else part
            advance(len(source.token))
    return merged


class Scores(NamedTuple):
    """What one pass says of n directions at a site; in `top`, the best of k comes first."""

    statistics: Statistics
    """Of the scores: mean and var are [n]."""
    smallest: Float[Tensor, " n"]
    largest: Float[Tensor, " n"]
    top: Float[Tensor, "n k"]
    rows: Int[Tensor, "n k"]
    positions: Int[Tensor, "n k"]
    """Each top score's row and place in it. Equal scores come in the order of the rows."""


def project_scores(
    subject: Subject,
    rows: Iterable[Sequence[int]],
    directions: Mapping[Site, Float[Tensor, "n d"]],
    keep_top: int = 10,
    batch_size: int = 8,
) -> dict[Site, Scores]:
    """Score many directions at several sites in one pass: dot products, in float32.

    Equivalent to `x @ directions.T` over all activations at once, its moments and, a direction,
    its `keep_top` highest entries (fewer if there are fewer tokens), in the memory of one batch.
    Activations with heads are flattened.

    Raises:
        UserError: as `stream`; directions that do not fit their site; a score that is not finite.
    """
    wanted = per_token(subject, directions)
    if keep_top < 1:
        raise UserError(f"keep_top is {keep_top}: keep at least 1 example")
    chunks = {site: torch.split(directions[site].detach().float(), CHUNK) for site in wanted}
    running: dict[tuple[Site, int], Scores] = {}
    with advancing("score", rows) as advance:
        for source, found in passes(subject, rows, wanted, batch_size):
            for site, x in found.items():
                for at, chunk in enumerate(chunks[site]):
                    new = _scores(source, x.flatten(1), chunk, site, keep_top)
                    before = running.get((site, at))
                    running[site, at] = _later(before, new, keep_top) if before else new
            advance(len(source.token))
    return {
        site: _stacked([running[site, at] for at in range(len(chunks[site]))]) for site in wanted
    }


def _scores(source: Source, x: Tensor, directions: Tensor, site: Site, keep: int) -> Scores:
    """Of one batch."""
    if x.shape[1] != directions.shape[-1]:
        raise UserError(
            f"directions of {directions.shape[-1]} numbers do not fit {site} ({x.shape[1]})"
        )
    scores = directions.to(x.device) @ x.float().T
    moments = Statistics.of(scores.T)
    if not torch.isfinite(moments.mean).all():
        where = f"rows {int(source.row[0])} to {int(source.row[-1])}"
        raise UserError(f"a score at {site} in {where} is not finite: open the model in float32")
    rows, positions = source.row.expand_as(scores), source.position.expand_as(scores)
    return Scores(moments, *torch.aminmax(scores, dim=1), *_best(scores, rows, positions, keep))


def _later(before: Scores, new: Scores, keep: int) -> Scores:
    """Of a part of the corpus and of one that comes after it."""
    top, rows, positions = (torch.cat(pair, 1) for pair in zip(before[3:], new[3:], strict=True))
    return Scores(
        before.statistics.merge(new.statistics),
        torch.minimum(before.smallest, new.smallest),
        torch.maximum(before.largest, new.largest),
        *_best(top, rows, positions, keep),
    )


def _best(
    scores: Tensor, rows: Tensor, positions: Tensor, keep: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The highest scores [n, keep] and their places; the first of equal ones comes first.

    topk leaves it open which of equal values it takes, so it gets whole numbers, all different:
    the bits of a float32, ordered as the floats are, and below them the column, counted down.
    """
    bits = (scores + 0.0).view(torch.int32).long()  # adding 0 makes -0 equal to 0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    keys = (ordered << 32) - torch.arange(scores.shape[1], device=scores.device)
    at = keys.topk(min(keep, keys.shape[1])).indices
    return scores.gather(1, at), rows.gather(1, at), positions.gather(1, at)


def _stacked(parts: list[Scores]) -> Scores:
    """Of directions that were scored apart."""
    moments = [part.statistics for part in parts]
    means, squares = torch.cat([m.mean for m in moments]), torch.cat([m.squares for m in moments])
    rest = (torch.cat(column) for column in zip(*(part[1:] for part in parts), strict=True))
    return Scores(Statistics(moments[0].count, means, squares), *rest)
