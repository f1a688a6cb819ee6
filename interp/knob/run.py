"""From a model as it comes to a working knob: `interp knob run`, every stage in one run folder.

Data, fine-tuning, scores, the layer search, the knob and its tests, as in the modules of those
names, with their tables and settings. A run that was stopped goes on from its finished parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..runs.store import RunWriter
from .data import open_tuned
from .finetune import FinetuneConfig
from .learn import LearnSettings
from .scoring import score_adapter
from .search import SearchSettings


@dataclass(frozen=True)
class RunConfig(LearnSettings, SearchSettings, FinetuneConfig):
    """The whole chain: fine-tune, search the layers, learn the knob, steer, score."""

    STUDY: ClassVar[str] = "knob.run"

    def run(self, out: RunWriter) -> dict[str, Any]:
        self.train(out)
        adapter = str(out.path / "adapter")
        score_adapter(self, adapter, out, only_tuned=True)  # what came of the training, early
        found = self.search(open_tuned(self, adapter), out) | self.learn(adapter, out)
        return found | score_adapter(self, adapter, out)
