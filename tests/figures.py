"""What the analyses' tests share: every figure of a run is drawn."""

from __future__ import annotations

from interp.analyses import analyses, load
from interp.runs.store import Run


def figure_names(run: Run) -> set[str]:
    """The names of a run's figures; each is made, and shows something."""
    made = load(analyses()[run.study.partition(".")[0]].figures)(run)
    for name, figure in made.items():
        assert figure().data, name
    return set(made)
