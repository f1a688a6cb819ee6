"""Activations of a whole corpus, a batch at a time: streams, statistics, scores.

Everything here runs a Subject over rows of token ids (`corpus.token_rows`), reads only the sites
that are asked for, and holds one batch: memory does not grow with the number of tokens. Padding,
BOS and other special tokens are left out, so activations come as [tokens, ...] of text. Edits in
scope while a stream is read apply to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.kernels import RunningScores, Score, Scores, Statistics

from ..errors import UserError
from ..model.site import Site
from ..model.subject import Subject
from ..progress import Advance, progress, waiting
from .corpus import Rows

Sites = Iterable[str | Site]


class Source(NamedTuple):
    """Where activations come from: the row of ids, the place in it, and the token's id there."""

    row: Int[Tensor, " tokens"]
    position: Int[Tensor, " tokens"]
    token: Int[Tensor, " tokens"]


def stream(
    subject: Subject,
    rows: Iterable[Sequence[int]],
    sites: Sites,
    batch_size: int = 8,
    special: bool = False,
) -> Iterator[dict[Site, Float[Tensor, "tokens ..."]]]:
    """Activations at some sites (names or globs), batch by batch of rows.

    Each pass stops after the last of the sites. Nothing is kept once it has been handed out.

    Args:
        special: BOS and other special tokens count too.

    Raises:
        UserError: a site that the model lacks or that has no vector per token; no rows.
    """
    batches = passes(subject, rows, per_token(subject, sites), batch_size, special)
    return map(itemgetter(1), batches)  # a loop would hold on to the batch it handed out


def per_token(subject: Subject, sites: Sites) -> list[Site]:
    """The sites that names or globs mean; each must have a vector per token."""
    wanted = subject.matching([sites] if isinstance(sites, str) else sites)
    if any(site.kind == "attn_pattern" for site in wanted):
        raise UserError("attn_pattern has no vector per token: read it with Subject.capture")
    return wanted


def passes(
    subject: Subject,
    rows: Iterable[Sequence[int]],
    sites: list[Site],
    batch_size: int,
    special: bool = False,
    number: int = 0,
) -> Iterator[tuple[Source, dict[Site, Tensor]]]:
    """Batch by batch: where the tokens come from, and their activations [tokens, ...]; BOS and
    other special tokens are no data, unless `special`. Rows are numbered from `number`."""
    if batch_size < 1:
        raise UserError(f"batches of {batch_size} rows: give at least 1")
    left, first = iter(rows), number
    while chosen := list(itertools.islice(left, batch_size)):
        batch = subject.pad(chosen)
        mask = batch.mask if special else subject.counted(batch)
        row = torch.arange(first, first + len(mask), device=mask.device)[:, None].expand_as(mask)
        source = Source(row[mask], (batch.mask.long().cumsum(1) - 1)[mask], batch.ids[mask])
        captured = subject.capture(batch, sites)
        every = bool(mask.all())
        # where every token counts, flattening is a view; `pop` lets go of what it copies otherwise
        yield (
            source,
            {s: captured.pop(s).flatten(0, 1) if every else captured.pop(s)[mask] for s in sites},
        )
        first += len(chosen)
    if first == number:
        raise UserError("there are no rows of tokens: give a corpus with text")


@contextmanager
def advancing(label: str, rows: Iterable[Sequence[int]]) -> Iterator[Advance]:
    """Progress in tokens where their number is known, a spinner where it is not."""
    if isinstance(rows, Rows | Sequence):
        total = rows.tokens if isinstance(rows, Rows) else sum(map(len, rows))
        with progress(label, total, "tokens") as advance:
            yield advance
    else:
        with waiting(label):
            yield Advance()


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
        for source, activations in passes(subject, rows, wanted, batch_size):
            for site, x in activations.items():
                part = Statistics.of(x, second_moment)
                merged[site] = merged[site].merge(part) if site in merged else part
            advance(len(source.token))
    return merged


def project_scores(
    subject: Subject,
    rows: Iterable[Sequence[int]],
    directions: Mapping[Site, Float[Tensor, "n d"] | Sequence[Score]],
    keep_top: int = 10,
    batch_size: int = 8,
    special: bool = False,
) -> dict[Site, Scores]:
    """Score many directions at several sites in one pass, in float32: dot products with a matrix's
    rows, or what functions of activations [tokens, d] give.

    Equivalent to `x @ directions.T` over all activations at once, its moments and, a direction,
    its `keep_top` highest entries (fewer if there are fewer tokens), in the memory of one batch.
    Activations with heads are flattened.

    Args:
        special: BOS, other special tokens and the first token of each row count too.

    Raises:
        UserError: as `stream`; directions that do not fit their site; a score that is not finite.
    """
    scores: dict[Site, Scores] = {}
    with advancing("score", rows) as advance:
        for tokens, found in batch_scores(subject, rows, directions, keep_top, batch_size, special):
            for site, part in found.items():
                scores[site] = scores[site].join(part, keep_top) if site in scores else part
            advance(tokens)
    if not scores:
        raise UserError("no token of the rows counts: give longer rows, or special=True")
    return scores


def batch_scores(
    subject: Subject,
    rows: Iterable[Sequence[int]],
    directions: Mapping[Site, Float[Tensor, "n d"] | Sequence[Score]],
    keep_top: int,
    batch_size: int,
    special: bool = False,
    number: int = 0,
) -> Iterator[tuple[int, dict[Site, Scores]]]:
    """What `project_scores` joins: of each batch the number of tokens and the scores of those that
    count, {} where none does. Rows are numbered from `number`."""
    wanted = per_token(subject, directions)
    if keep_top < 1:
        raise UserError(f"keep_top is {keep_top}: keep at least 1 example")
    for source, activations in passes(subject, rows, wanted, batch_size, special, number):
        kept = source.position >= (0 if special else 1)
        places, found = (source.row[kept], source.position[kept]), {}
        for site, x in activations.items() if kept.any() else ():
            running = RunningScores(directions[site], keep_top)
            try:
                running.add(x.flatten(1)[kept], *places)
            except ValueError as error:
                where = f"rows {int(source.row[0])} to {int(source.row[-1])}"
                raise UserError(f"{site}, {where}: {error}") from error
            found[site] = running.result()
        yield len(source.token), found
