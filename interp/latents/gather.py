"""The one pass of a survey over its corpus, part by part; it can be stopped between any two."""

from __future__ import annotations

from typing import Any

from ..errors import UserError
from ..progress import progress
from ..runs.checkpoint import Checkpoint, State
from ..runs.workers import map_parts
from ..runs.workers_task import Task
from .merging import Tallies
from .survey_part import STAGES, Settings, contexts_a_part
from .tallies import bin_edges


class SurveyPass:
    """What the contexts of a corpus say of the n latents of an SAE."""

    def __init__(self, config: Settings, n: int) -> None:
        self._config = config
        self.tallies = Tallies.empty(n, config.top)
        self.unit = 0.0
        """The size in the middle of the histograms."""
        self.counted, self._read = 0, 0
        """Tokens that counted; contexts read."""
        self.median, self.left_out = 0.0, 0
        """As `ContextStream`'s."""
        self.documents: set[int] = set()
        self.seconds = dict.fromkeys(STAGES, 0.0)
        """Of all workers together."""
        self.facts: dict[str, Any] = {}
        """What the manifest says of the opened model."""

    def read(self, task: Task[int], label: str, checkpoint: Checkpoint) -> None:
        """Read all contexts, or those after a checkpoint; the last state stays in the checkpoint.

        Args:
            task: makes a part by the number of its first context: what its tallies have packed, as
                bytes in safetensors' format, and `PartReader.read`'s note with the `facts` of the
                opened model.

        Raises:
            UserError: as `PartReader.read`; no token that counts.
        """
        from safetensors.torch import load

        if state := checkpoint.read():
            self._restore(state)
        config = self._config
        parts = range(self._read, config.contexts, contexts_a_part(config.length))
        with progress(label, config.contexts, "contexts", self._read) as advance:
            made = map_parts(task, parts, config.spread, advance, ordered=True)
            for _, (content, note) in made:
                self.tallies.merge(load(content))
                self._note(note)
                advance(note["contexts"])
                if checkpoint.due():
                    checkpoint.write(*self._state())
        if not self.counted:
            raise UserError(
                f"no token past the first {config.skip} of a context counts: give a --corpus "
                "of longer rows, or a smaller --skip"
            )
        checkpoint.write(*self._state())

    @property
    def edges(self) -> list[float]:
        """Between the bins of the histograms."""
        return bin_edges(self.unit).tolist()

    def _note(self, note: dict[str, Any]) -> None:
        self._read += note["contexts"]
        self.counted += note["counted"]
        self.left_out += note["left_out"]
        self.unit, self.median = self.unit or note["unit"], self.median or note["median"]
        self.facts = self.facts or note["facts"]
        self.documents.update(note["documents"])
        for stage, seconds in note["seconds"].items():
            self.seconds[stage] += seconds

    def _state(self) -> State:
        note = {
            "contexts": self._read,
            "counted": self.counted,
            "unit": self.unit,
            "median": self.median,
            "left_out": self.left_out,
            "documents": sorted(self.documents),
            "seconds": self.seconds,
            "facts": self.facts,
        }
        return State(self.tallies.state(), note)

    def _restore(self, state: State) -> None:
        self.tallies.restore(state.tensors)
        self._note(state.note)
