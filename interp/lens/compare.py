"""The study `lens.compare`: how near each lens is to the model's own next token, by layer.

Written to the run:
    layers.parquet   lens, layer int; agreement: share of positions whose likeliest token is the
                     model's; following: share where it is the text's next token; kl: KL of the
                     model's distribution from the lens', sum p log(p/q), nats. Each with its `_low`
                     and `_high`; documents int, unit "document"

The metrics `kl, LENS` are its means over the layers that every lens reads, without the last one,
where all of them are the model; `layers in the means` is how many these are. Lenses that share none
have no means.

The passages are of documents behind those that lenses are fitted on (`after`), a position is one of
some that are drawn in each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..progress import progress
from ..runs.study import PartedStudy, TextStudy
from ..runs.study_task import StudyTask
from ..runs.workers import map_parts
from ..runs.writer import RunWriter

if TYPE_CHECKING:
    from .comparing import Values
    from .lens import Lens
    from .states import Reader


@dataclass(frozen=True)
class LensCompareConfig(TextStudy, PartedStudy):
    """Compare lenses with the model's own distribution, layer by layer, on held-out text."""

    STUDY: ClassVar[str] = "lens.compare"
    VERSION: ClassVar[int] = 2

    lenses: tuple[str, ...] = field(default=("final", "tuned", "jacobian"), metadata={"key": False})
    """final (the logit lens), tuned, jacobian, runs' folders or keys, or .safetensors or .pt files.
    Their fingerprints are part of the key."""
    corpus: str = ""
    """A text file, .jsonl, .parquet, folder or saved dataset; by default the installed Python's
    documentation and code."""
    after: int = 600
    """Documents at the beginning of the corpus that are left out: lenses are fitted on those."""
    documents: int = 100
    """Passages, each of another document."""
    length: int = 128
    """Tokens in a passage."""
    skip: int = 16
    """Positions at the beginning of a passage that do not count: attention sinks."""
    positions: int = 8
    """Positions of a passage that are read, drawn at random."""
    batch_size: int = 4
    """Passages in a pass."""
    seed: int = 0
    """Seed of the positions."""

    @cached_property
    def opened(self) -> dict[str, Lens]:
        """The lenses by the names they were asked for."""
        from .files import open_lens

        return {name: open_lens(name, self.stored_weights) for name in self.lenses}

    def fingerprints(self) -> dict[str, str]:
        lenses = {f"lens {i}": lens.identity for i, lens in enumerate(self.opened.values())}
        return {**super().fingerprints(), **lenses}

    def check(self) -> None:
        super().check()
        assert self.spread
        if not self.lenses or "raw" in self.lenses or len(self.opened) < len(self.lenses):
            raise UserError(
                "--lenses takes different lenses, at least one; the raw lens reads directions only"
            )
        if min(self.documents, self.positions, self.batch_size) < 1 or self.after < 0:
            raise UserError("--documents, --positions and --batch-size must be at least 1")
        if not 0 <= self.skip < self.length - self.positions:
            raise UserError("--skip must be at least 0 and leave more than --positions of --length")

    def run(self, out: RunWriter) -> dict[str, Any]:
        from .comparing import covered, layer_rows

        out.facts["lenses"] = {name: lens.about for name, lens in self.opened.items()}
        layers = self.stored_weights.spec.n_layers
        at, last = covered(self.opened, layers), layers - 1
        table = out.table("layers", layer_rows(at, self._measured(out)))
        shared = [i for i in range(last) if all(lens.covers(i) for lens in self.opened.values())]
        means = table[table["layer"].isin(shared)].groupby("lens")["kl"].mean()
        kls = {f"kl, {name}": float(means[name]) for name in self.opened if shared}
        return {"layers in the means": len(shared), **kls}

    def _measured(self, out: RunWriter) -> Values:
        """What `comparing.measured` gives of all passages."""
        import numpy as np

        from .passages import batches, passages

        rows = passages(self, self.corpus, self.length, self.documents, self.after)
        some = batches(rows, self.batch_size)
        task = _Passages.of(self, batches=tuple(tuple(map(tuple, each)) for each in some))
        found = []
        with progress("compare", len(rows), "passages") as advance:
            for number, (facts, values) in map_parts(
                task, range(len(some)), self.spread, advance, ordered=True
            ):
                out.facts = {**facts, **out.facts}
                found.append(values)
                advance(len(some[number]))
        return np.concatenate(found, 2)


@dataclass(frozen=True)
class _Passages(StudyTask[LensCompareConfig]):
    """Measures batches of passages."""

    batches: tuple[tuple[tuple[int, ...], ...], ...]

    def opened(self) -> tuple[Reader, dict[str, Lens]]:
        from .states import Reader

        own, subject = self.config, self.config.open_here()
        weights, how = own.stored_weights, (own.skip, own.positions, own.seed)
        reader = Reader(subject, weights, weights.W_U().to(subject.device), *how)
        return reader, {name: lens.to(subject.device) for name, lens in own.opened.items()}

    def made(
        self, opened: tuple[Reader, dict[str, Lens]], part: int
    ) -> tuple[dict[str, Any], Values]:
        from .comparing import measured

        reader, lenses = opened
        values = measured(lenses, reader, self.batches[part], part)
        return self.config.facts_of(reader.subject), values
