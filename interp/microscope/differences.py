"""Whose direct contribution to a logit differs most between two texts."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from torch import Tensor

from .direct import Direct
from .names import part_name
from .tables import Every, every_head, every_neuron, parts


def differences(here: Direct, there: Direct, keep: int = 20) -> pd.DataFrame:
    """Contributions to one logit in either text, the largest difference first: every part, and of
    heads and neurons the `keep` that differ most. `of` (part, head or neuron), `name`, `kind`,
    `layer`, `here`, `there`, `difference`; of neurons also the activations `active_here` and
    `active_there`.
    """
    nan = float("nan")
    rows = [
        {
            "of": "part",
            "name": part_name(a.kind, a.layer),
            **{"kind": a.kind, "layer": a.layer},
            **{"here": float(a.contribution[0]), "there": float(b.contribution[0])},
            **{"active_here": nan, "active_there": nan},
        }
        for a, b in zip(parts(here), parts(there), strict=True)
    ]
    for of, every, form in (
        ("head", every_head, "{}.{}"),
        ("neuron", every_neuron, "{}.down.{}"),
    ):
        rows += _most(of, every, form, here, there, keep)
    table = pd.DataFrame(rows)
    table["difference"] = table["here"] - table["there"]
    order = table["difference"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)


def _most(
    of: str,
    every: Callable[[Direct], Every | None],
    form: str,
    here: Direct,
    there: Direct,
    keep: int,
) -> list[dict[str, object]]:
    """The heads or neurons that differ most."""
    own, other = every(here), every(there)
    if own is None or other is None:
        return []
    differs = (own.contributions[0] - other.contributions[0]).abs()
    made: list[dict[str, object]] = []
    for i in differs.topk(min(keep, len(differs))).indices.tolist():
        active = {
            f"active_{name}": _at(each.activations, i)
            for name, each in (("here", own), ("there", other))
        }
        made.append(
            {
                "of": of,
                "name": form.format(own.layers[i], own.numbers[i]),
                **{"kind": of, "layer": own.layers[i]},
                **{"here": float(own.contributions[0, i])},
                **{"there": float(other.contributions[0, i])},
                **active,
            }
        )
    return made


def _at(values: Tensor | None, i: int) -> float:
    return float("nan") if values is None else float(values[0, i])
