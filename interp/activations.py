"""Activations of a whole corpus, a batch at a time: streams, sets on disk, statistics, scores.

Everything here runs a Subject over rows of token ids (`corpus.token_rows`), reads only the sites
that are asked for, and holds one batch: memory does not grow with the number of tokens. Padding is
left out, so activations come as [tokens, ...]. Edits in scope while a stream is read apply to it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .corpus import Rows
from .errors import UserError
from .progress import progress, waiting
from .site import Site, matching
from .store import RunWriter
from .subject import Subject

SCHEMA = 1
"""Version of an activation set's layout."""
SOURCES = ("row", "position", "token")
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
    passes = _passes(subject, rows, _per_token(subject, sites), batch_size)
    return map(itemgetter(1), passes)  # a loop would hold on to the batch it handed out


def _per_token(subject: Subject, sites: Sites) -> list[Site]:
    wanted = matching([sites] if isinstance(sites, str) else sites, subject.sites)
    if any(site.kind == "attn_pattern" for site in wanted):
        raise UserError("attn_pattern has no vector per token: read it with Subject.capture")
    return wanted


def _passes(
    subject: Subject, rows: Iterable[Sequence[int]], sites: list[Site], batch_size: int
) -> Iterator[tuple[Source, dict[Site, Tensor]]]:
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
def _advancing(label: str, rows: Iterable[Sequence[int]]) -> Iterator[Callable[[int], None]]:
    """Progress in tokens where their number is known, a spinner where it is not."""
    if isinstance(rows, Rows | Sequence):
        total = rows.tokens if isinstance(rows, Rows) else sum(map(len, rows))
        with progress(label, total, "tokens") as advance:
            yield advance
    else:
        with waiting(label):
            yield lambda tokens: None


def collect(
    subject: Subject,
    rows: Iterable[Sequence[int]],
    sites: Sites,
    out: RunWriter | Path,
    shard_tokens: int = 2**16,
    seed: int = 0,
    batch_size: int = 8,
    fingerprints: Mapping[str, str] | None = None,
) -> ActivationSet:
    """Write activations to a folder (`activations/` of a run), shuffled, in shards:

        activations-00000.safetensors, …   one tensor [tokens, ...] a site, and row, position, token
        index.json                         written last; a folder without it is no activation set

    The shuffle is that of a bounded buffer, the same for all sites: when 2 * shard_tokens tokens
    are held, a random half of them becomes a shard. So a shard mixes tokens of many rows, and a
    token may come out any number of shards late, but not early: it is no shuffle of the whole
    corpus. Memory: up to four shards and one batch.

    Args:
        fingerprints: kept in the index, beside those of the model (where its files are known) and
            of the ids themselves.

    Raises:
        UserError: as `stream`; a finished set is there already; the folder cannot be written.
    """
    wanted = _per_token(subject, sites)
    writer = RunWriter(out.path / "activations" if isinstance(out, RunWriter) else out, {})
    _clear(writer, shard_tokens)
    buffer, digest = _ShuffleBuffer(shard_tokens, seed), hashlib.sha256()
    shards: list[dict[str, Any]] = []
    form: dict[str, Any] = {}
    with _advancing("collect", rows) as advance:
        for source, found in _passes(subject, rows, wanted, batch_size):
            digest.update(torch.stack(source, 1).cpu().numpy().tobytes())
            tensors = {str(site): x.cpu() for site, x in found.items()}
            form = {name: _form(x) for name, x in tensors.items()}
            sources = zip(SOURCES, source, strict=True)
            buffer.add(tensors | {name: x.to("cpu", torch.int32) for name, x in sources})
            while buffer.full:
                shards.append(_write_shard(writer, len(shards), buffer.draw()))
            advance(len(source.token))
    while buffer.held:
        shards.append(_write_shard(writer, len(shards), buffer.draw()))
    model = {"model": subject.weights.fingerprint()} if subject.weights else {}
    prints = {**model, "rows": digest.hexdigest(), **(fingerprints or {})}
    tokens = sum(shard["tokens"] for shard in shards)
    index = {"sites": form, "tokens": tokens, "seed": seed, "fingerprints": prints}
    with writer.part("index.json") as making:
        making.write_text(json.dumps({"schema": SCHEMA, **index, "shards": shards}, indent=1))
    return ActivationSet(writer.path)


def _form(x: Tensor) -> dict[str, Any]:
    return {"dtype": str(x.dtype).removeprefix("torch."), "shape": list(x.shape[1:])}


def _clear(writer: RunWriter, shard_tokens: int) -> None:
    if shard_tokens < 1:
        raise UserError(f"shards of {shard_tokens} tokens: give at least 1")
    if writer.has("index.json"):
        raise UserError(f"{writer.path} holds an activation set already: choose another folder")
    try:
        writer.path.mkdir(parents=True, exist_ok=True)
        for remains in writer.path.glob("activations-*.safetensors"):
            remains.unlink()  # of a collect that was interrupted
    except OSError as error:
        raise UserError(f"cannot write {writer.path} ({error}): choose another folder") from error


def _write_shard(writer: RunWriter, number: int, tensors: dict[str, Tensor]) -> dict[str, Any]:
    name = f"activations-{number:05d}.safetensors"
    with writer.part(name) as making:
        try:
            save_file(tensors, making)
        except SafetensorError as error:  # what the system said is in its text only
            code = re.search(r"os error (\d+)", str(error))
            raise OSError(int(code[1]) if code else None, str(error)) from error
    return {"file": name, "tokens": len(tensors["token"])}


class _ShuffleBuffer:
    """Holds tokens until there are two shards of them, then gives out a random one."""

    def __init__(self, shard_tokens: int, seed: int) -> None:
        self.held = 0
        self._size = shard_tokens
        self._parts: list[dict[str, Tensor]] = []
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def full(self) -> bool:
        return self.held >= 2 * self._size

    def add(self, part: dict[str, Tensor]) -> None:
        self._parts.append(part)
        self.held += len(part["token"])

    def draw(self) -> dict[str, Tensor]:
        order = torch.randperm(self.held, generator=self._generator)
        drawn, kept = {}, {}
        for name in list(self._parts[0]):
            whole = torch.cat([part.pop(name) for part in self._parts])
            drawn[name], kept[name] = whole[order[: self._size]], whole[order[self._size :]]
        self._parts = [kept]
        self.held = len(kept["token"])
        return drawn


class ActivationSet:
    """Activations on disk, as `collect` wrote them; read shard by shard.

    Raises:
        UserError: no finished set there, another layout, or (while reading) a damaged shard.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "index.json"
        if not path.is_file():
            raise UserError(f"{folder} holds no finished activation set: collect it again")
        try:
            self.index: dict[str, Any] = dict(json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"cannot read {path} ({error}): collect it again") from error
        if self.index.get("schema") != SCHEMA:
            raise UserError(f"{path} is not of this version's layout ({SCHEMA}): collect it again")
        self.sites = tuple(Site.parse(name) for name in self.index["sites"])
        self.tokens = int(self.index["tokens"])

    def shards(
        self, sites: Sites | None = None
    ) -> Iterator[dict[Site, Float[Tensor, "tokens ..."]]]:
        """The shards in order, each whole; only the sites asked for are read."""
        wanted = self._chosen(sites)
        for number in range(len(self.index["shards"])):
            tensors = self._read(number, [str(site) for site in wanted])
            yield dict(zip(wanted, tensors, strict=True))

    def sources(self) -> Iterator[Source]:
        """Where the tokens of each shard come from, in the order of `shards()`."""
        for number in range(len(self.index["shards"])):
            yield Source(*self._read(number, SOURCES))

    def batches(
        self, size: int, seed: int = 0, sites: Sites | None = None
    ) -> Iterator[dict[Site, Float[Tensor, "tokens ..."]]]:
        """One pass in random batches of `size` tokens (the last may be smaller).

        Shards come in random order and tokens within each are shuffled; every token comes once.
        """
        if size < 1:
            raise UserError(f"batches of {size} tokens: give at least 1")
        wanted = self._chosen(sites)
        names = [str(site) for site in wanted]
        generator = torch.Generator().manual_seed(seed)
        rest: list[Tensor] = []
        for number in torch.randperm(len(self.index["shards"]), generator=generator).tolist():
            shard = self._read(number, names)
            order = torch.randperm(len(shard[0]), generator=generator)
            shard = [x[order] for x in shard]
            pool = [torch.cat(pair) for pair in zip(rest, shard, strict=True)] if rest else shard
            whole = len(pool[0]) - len(pool[0]) % size
            for start in range(0, whole, size):
                yield {s: x[start : start + size] for s, x in zip(wanted, pool, strict=True)}
            rest = [x[whole:].clone() for x in pool]
        if len(rest[0]):
            yield dict(zip(wanted, rest, strict=True))

    def _chosen(self, sites: Sites | None) -> list[Site]:
        given = self.sites if sites is None else [sites] if isinstance(sites, str) else sites
        wanted = [Site.parse(site) if isinstance(site, str) else site for site in given]
        if not wanted or not set(wanted) <= set(self.sites):
            raise UserError(
                f"{self.folder} holds {', '.join(self.index['sites'])}: choose of these"
            )
        return wanted

    def _read(self, number: int, names: Sequence[str]) -> list[Tensor]:
        about = self.index["shards"][number]
        path = self.folder / about["file"]
        try:
            with safe_open(path, "pt") as file:
                tensors = [file.get_tensor(name) for name in names]
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} is missing or damaged ({error}): collect it again") from error
        if any(len(x) != about["tokens"] for x in tensors):
            raise UserError(f"{path} does not hold what index.json says: collect it again")
        return tensors


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
    wanted = _per_token(subject, sites)
    merged: dict[Site, Statistics] = {}
    with _advancing("statistics", rows) as advance:
        for source, found in _passes(subject, rows, wanted, batch_size):
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
    wanted = _per_token(subject, directions)
    if keep_top < 1:
        raise UserError(f"keep_top is {keep_top}: keep at least 1 example")
    chunks = {site: torch.split(directions[site].detach().float(), CHUNK) for site in wanted}
    running: dict[tuple[Site, int], Scores] = {}
    with _advancing("score", rows) as advance:
        for source, found in _passes(subject, rows, wanted, batch_size):
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
