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
from ..runs.study import TextStudy
from ..runs.writer import RunWriter, save_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from .feed import TextFeed
    from .train import Batches


@dataclass(frozen=True)
class ActivationsConfig(TextStudy):
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
        if not self.sites or len(set(self.sites)) < len(self.sites):
            raise UserError("give --sites at least one site, each once")
        for site in self.sites:
            Site.parse(site)
        if self.tokens < 1 or self.length < 2:
            raise UserError("give --tokens at least 1 and --length at least 2")

    def run(self, out: RunWriter) -> dict[str, Any]:
        import torch

        from .feed import TextFeed

        subject = self.open(out, dtype=getattr(torch, self.precision))
        sites = list(map(Site.parse, self.sites))
        source = TextFeed(subject, sites, self.corpus, self.length)
        self._save(out, "held_out", source.held_out)
        tokens = self._shards(out, source)
        out.table("shards", [{"shard": i, "tokens": n} for i, n in enumerate(tokens)])
        numbers = sum(x.shape[1] for x in source.held_out.values())
        bits = torch.finfo(getattr(torch, self.dtype)).bits
        return {"tokens": sum(tokens), "bytes": sum(tokens) * numbers * bits // 8}

    def _shards(self, out: RunWriter, source: TextFeed) -> list[int]:
        """Write every shard that is not there yet; the tokens in each."""
        from .feed import POOL

        tokens: list[int] = []
        for number in itertools.count():
            if not out.has(_shard(number)):
                break
            tokens.append(_tokens(out.path / _shard(number), self.sites[0]))
        size = min(POOL, self.tokens)
        with progress("activations", self.tokens, "tokens", sum(tokens)) as advance:
            batches = source.batches(size, self.tokens, self.seed, len(tokens))
            while sum(tokens) < self.tokens:
                shard = next(batches, None)
                if shard is None:
                    raise UserError(
                        f"the text ended after {sum(tokens)} tokens: ask for fewer --tokens, or "
                        "give more text"
                    )
                self._save(out, f"activations/{len(tokens):05d}", shard)
                tokens.append(len(next(iter(shard.values()))))
                advance(tokens[-1])
        return tokens

    def _save(self, out: RunWriter, name: str, by_site: Any) -> None:
        import torch

        dtype = getattr(torch, self.dtype)
        stored = {str(site): x.to(dtype) for site, x in by_site.items()}
        for site, x in stored.items():
            if not x.isfinite().all():
                raise UserError(f"{site} has numbers beyond float16: give --dtype float32")
        with out.part(f"{name}.safetensors") as path:
            save_tensors(stored, path)


def _shard(number: int) -> str:
    return f"activations/{number:05d}.safetensors"


def _tokens(path: Path, site: str) -> int:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return int(file.get_slice(site).get_shape()[0])


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
            site: x.float() for site, x in self._read("held_out.safetensors", 0, None).items()
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
                yield _shard(number), low - begin, high - begin
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
