"""Activations stored once, to train on many times: `interp saes activations`.

They are what a training that runs the model itself is fed (`feed.py`). A set takes 2 bytes a number
in float16: a million tokens of 576 numbers are 1.2 GB.

Written to the run:
`activations/<number>.safetensors`: a shard; by site the activations [tokens, d] of about POOL
    tokens in random order, float16 or float32
`held_out.safetensors`: by site those of the MEASURED rows that SAEs are measured on
`shards.parquet`: shard int64 (its number), tokens int64
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import UserError
from ..model.site import Site
from ..progress import progress
from ..runs.parts import checked
from ..runs.store import Run, open_run
from ..runs.study import PartedStudy, TextStudy
from ..runs.study_task import StudyTask
from ..runs.workers import map_parts
from ..runs.writer import RunWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ..model.subject import Subject
    from .feed import TextFeed
    from .train import Batches

HELD_OUT = -1
"""The number of the rows that are held out, among the shards."""


@dataclass(frozen=True)
class ActivationsConfig(TextStudy, PartedStudy):
    """Store a model's activations, to train SAEs on them."""

    STUDY: ClassVar[str] = "saes.activations"
    VERSION: ClassVar[int] = 1

    sites: tuple[str, ...] = ("14.resid_post",)
    """Where they are read, such as 14.resid_post; a transcoder needs 14.mlp_in and 14.mlp_out."""
    tokens: int = 800_000
    """At least so many tokens."""
    corpus: str = ""
    """A text, .jsonl or .parquet file, or a folder; by default the installed Python's own text."""
    length: int = 256
    """Tokens in a row of text."""
    seed: int = 0
    """Of the shuffle."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Arithmetic of the model."""
    dtype: Literal["float16", "float32"] = "float16"
    """How the numbers are stored."""

    def check(self) -> None:
        super().check()
        assert self.spread
        if not self.sites or len(set(self.sites)) < len(self.sites):
            raise UserError("give --sites at least one site, each once")
        for site in self.sites:
            Site.parse(site)
        if self.tokens < 1 or self.length < 2:
            raise UserError("give --tokens at least 1 and --length at least 2")

    def run(self, out: RunWriter) -> dict[str, Any]:
        import torch

        tokens = self._written(out)
        out.table("shards", [{"shard": i, "tokens": n} for i, n in enumerate(tokens)])
        numbers = sum(_shape(out.path / _file(HELD_OUT), site)[1] for site in self.sites)
        bits = torch.finfo(getattr(torch, self.dtype)).bits
        return {"tokens": sum(tokens), "bytes": sum(tokens) * numbers * bits // 8}

    def _written(self, out: RunWriter) -> list[int]:
        """Write every file that is not there yet; the tokens in each shard."""
        there = itertools.takewhile(lambda n: out.has(_file(n)), itertools.count())
        tokens = [_shape(out.path / _file(n), self.sites[0])[0] for n in there]
        with progress("activations", self.tokens, "tokens", sum(tokens)) as advance:
            while sum(tokens) < self.tokens:
                for number, (facts, content) in map_parts(
                    _Shards.of(self),
                    self._left(out, tokens),
                    self.spread,
                    advance,
                    ordered=True,
                ):
                    out.facts = {**facts, **out.facts}
                    self._write(out, number, content, tokens, advance)
                    if sum(tokens) >= self.tokens:
                        break
        return tokens

    def _left(self, out: RunWriter, tokens: list[int]) -> list[int]:
        """Parts that are to be made. Massive activations are missing in a shard, which may take one
        shard more, or further rounds."""
        left = -(-(self.tokens - sum(tokens)) // self.size) + 1
        held_out = [] if out.has(_file(HELD_OUT)) else [HELD_OUT]
        return [*held_out, *range(len(tokens), len(tokens) + left)]

    @property
    def size(self) -> int:
        """Tokens of a shard, where none is massive."""
        from .feed import POOL

        return min(POOL, self.tokens)

    def _write(
        self,
        out: RunWriter,
        number: int,
        content: bytes,
        tokens: list[int],
        advance: Callable[[int], None],
    ) -> None:
        """Keep a part; a shard's tokens join `tokens`."""
        from .feed import too_short

        if not content and not tokens:
            raise too_short(self.size, self.length)
        if not content:
            raise UserError(
                f"the text ended after {sum(tokens)} tokens: ask for fewer --tokens, or give more "
                "text"
            )
        with out.part(_file(number)) as path:
            path.write_bytes(content)
        if number != HELD_OUT:
            tokens.append(_shape(out.path / _file(number), self.sites[0])[0])
            advance(tokens[-1])

    def packed(self, by_site: dict[Site, Tensor]) -> bytes:
        """Activations as a file of the run.

        Raises:
            UserError: numbers beyond float16.
        """
        import torch
        from safetensors.torch import save

        dtype = getattr(torch, self.dtype)
        stored = {str(site): x.to(dtype).contiguous() for site, x in by_site.items()}
        for site, x in stored.items():
            if not x.isfinite().all():
                raise UserError(f"{site} has numbers beyond float16: give --dtype float32")
        return save(stored)


class _Shards(StudyTask[ActivationsConfig]):
    """Makes the files of shards and of what is held out, with what the manifest says of the model;
    b"" where the text has ended."""

    def opened(self) -> _Reader:
        import torch

        from .feed import TextFeed

        own = self.config
        subject = own.open_here(dtype=getattr(torch, own.precision))
        sites = list(map(Site.parse, own.sites))
        return _Reader(own, subject, TextFeed(subject, sites, own.corpus, own.length))

    def made(self, opened: _Reader, part: int) -> tuple[dict[str, Any], bytes]:
        by_site = opened.feed.held_out if part == HELD_OUT else opened.shard(part)
        facts = self.config.facts_of(opened.subject)
        return facts, self.config.packed(by_site) if by_site else b""


class _Reader:
    """What a worker keeps from shard to shard: the model, and where it is in the text."""

    def __init__(self, config: ActivationsConfig, subject: Subject, feed: TextFeed) -> None:
        self._config, self.subject, self.feed = config, subject, feed
        self._unread: Iterator[Callable[[], dict[Site, Tensor]]] = iter(())
        self._at = -1
        """The number of the next of them; -1 where they are to be opened."""

    def shard(self, number: int) -> dict[Site, Tensor] | None:
        """None behind the end of the text."""
        own = self._config
        if not 0 <= self._at <= number:
            self._unread, self._at = self.feed.unread(own.size, own.tokens, own.seed), 0
        read = next(itertools.islice(self._unread, number - self._at, None), None)
        self._at = number + 1
        return read() if read else None


def _file(number: int) -> str:
    """The part of a shard, or of what is held out."""
    name = "held_out" if number == HELD_OUT else f"activations/{number:05d}"
    return f"{name}.safetensors"


def _shape(path: Path, site: str) -> list[int]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return list(file.get_slice(site).get_shape())


class StoredFeed:
    """The activations of a run of `interp saes activations`; a `feed.TextFeed` read from disk."""

    def __init__(self, run: Run, sites: list[Site]) -> None:
        self._run, self._sites = run, sites
        self._checked: dict[str, Path] = {}
        stored = run.config["sites"]
        for site in sites:
            if str(site) not in stored:
                raise UserError(f"{run.path} holds no activations of {site}: {', '.join(stored)}")
        self._lengths: list[int] = run.table("shards")["tokens"].tolist()
        self.held_out = {
            site: x.float() for site, x in self._read(_file(HELD_OUT), 0, None).items()
        }

    @property
    def tokens(self) -> int:
        return sum(self._lengths)

    def batches(self, size: int, tokens: int, seed: int, first: int = 0) -> Batches:
        """Activations [size, d] in float32 from batch `first` on, in the stored order.

        Args:
            tokens, seed: of a training that shuffles; these are in random order already.
        """
        import torch

        for start in range(first * size, self.tokens - size + 1, size):
            parts = [self._read(*piece) for piece in self._pieces(start, start + size)]
            yield {site: torch.cat([part[site] for part in parts]).float() for site in self._sites}

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[str, int, int]]:
        """The shards that tokens `start` to `stop` lie in, and where in each."""
        begin = 0
        for number, length in enumerate(self._lengths):
            low, high = max(start, begin), min(stop, begin + length)
            if low < high:
                yield _file(number), low - begin, high - begin
            begin += length

    def _read(self, part: str, low: int, high: int | None) -> dict[Site, Tensor]:
        from safetensors import SafetensorError, safe_open

        if part not in self._checked:
            about = self._run.manifest["files"].get(part, {})
            self._checked[part] = checked(self._run.path, part, about)
        path = self._checked[part]
        try:
            with safe_open(path, "pt") as file:
                return {site: file.get_slice(str(site))[low:high] for site in self._sites}
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot read {path} ({error}): make the run again") from error


def open_activations(folder: str | Path) -> Run:
    """A stored set, whole.

    Raises:
        UserError: no such run, or a damaged one.
    """
    return open_run(Path(folder), ActivationsConfig.STUDY)


def stored_bos(run: Run) -> bool:
    """Whether a BOS token stood before each text of a set."""
    return bool(run.manifest["text"]["before each text"])
