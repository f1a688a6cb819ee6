"""Every stage of the knob in one run folder, from the model alone to its knob: `interp knob run`.

Data, fine-tuning, scores, the layer search, the knob and its tests: see the modules of those names
for their tables and settings. The items come from a run of `knob.data`, which is made if it is not
there. A run that was stopped resumes from its finished parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..runs.writer import RunWriter
from .adapter import open_for
from .finetune import FinetuneConfig
from .learn import learn_knob
from .scoring import score_adapter
from .search import SearchSettings
from .settings import LearnSettings


@dataclass(frozen=True)
class RunConfig(LearnSettings, SearchSettings, FinetuneConfig):
    """The whole chain: fine-tune, search the layers, learn the knob, steer, score."""

    STUDY: ClassVar[str] = "knob.run"

    def run(self, out: RunWriter) -> dict[str, Any]:
        self.check_facts(out)
        self.train(out)
        adapter = str(out.path / "adapter")
        score_adapter(self, adapter, out, only_tuned=True)  # early, to show what training gave
        searched = self.search(open_for(self, adapter, out), out)
        return searched | learn_knob(self, adapter, out) | score_adapter(self, adapter, out)
