"""Whether the tokens of a run are enough to believe the parts of its errors (`saes.excess`)."""

from __future__ import annotations

import math

from ..runs.intervals import FEWEST
from ..runs.store import Run
from ..saes.excess import excess
from .results import summary

MOST = 0.1
"""The nonlinear part may come out so much too large."""
FITTED = 0.4
"""Share of the contexts that the linear maps are fitted on."""


def too_few(tokens: int, inputs: int, ridge: float = 0.0) -> str:
    """What to say of a fit of so many tokens; "" if they are enough. A ridge makes up for some, but
    not for fewer tokens than inputs."""
    share = excess(tokens, inputs)
    if share <= MOST or (ridge and tokens > inputs):
        return ""
    much = f"{share:.0%} or more".replace("%", " %") if share < 10 else "far"
    return (
        f"{tokens:,} tokens fit maps of {inputs} inputs: the nonlinear parts come out too "
        f"large, by {much}; give --tokens {_enough(inputs)} or more"
    )


def _enough(inputs: int) -> int:
    """`--tokens` with which `excess` is at most MOST, in round thousands."""
    fitted = inputs + 2 + inputs / MOST
    return math.ceil(fitted / FITTED * 1.02 / 1000) * 1000  # the first positions do not count


def cautions(run: Run) -> list[str]:
    """What to know before a run's numbers are believed, a line each: too few tokens, a map that is
    worse than none, percentages that are not there."""
    lines = []
    fitted = run.manifest.get("fitted")  # runs of earlier versions do not say
    few = too_few(fitted["tokens"], fitted["inputs"], run.config["ridge"]) if fitted else ""
    measures = run.table("measures")
    r2 = measures[measures["measure"] == "r2_vector_weighted"].set_index("sae")["value"]
    if (worse := r2[r2 < 0]).size:
        lines.append(
            f"r² is below 0 for {len(worse)} of {len(r2)} ({worse.min():.2g} for "
            f"{worse.idxmin()}): the linear map predicts held-out errors worse than none, so the "
            "two parts mean nothing"
            + ("" if few else " unless the error has no linear part; more --tokens tell")
        )
    if few:
        lines.append(few)
    if summary(run).filter(like="recovers").isna().any(axis=None):
        priced = run.manifest.get("documents", {}).get("priced", FEWEST)
        why = (
            f"{FEWEST} documents are the fewest that have an interval, the costs are of {priced}"
            if priced < FEWEST
            else "an SAE may cost nothing, and then any percentage may be true"
        )
        lines.append(
            f"no percentage of the loss (nan): {why}; give a larger --downstream, or a --corpus of "
            "more documents"
        )
    return lines
