"""Agreement of two models' atlases: how often the same neuron has the same first token.

Source: Davies, 'Decoding specialised feature neurons…': 75.4 % between Llama-3.1-8B's base and
instruct models. A neuron agrees on a side when the strings of its first tokens are equal. Chance is
the agreement of independent choices with each atlas's own token frequencies, the sum over tokens of
p_A(token) p_B(token), by layer, kind and side.

The intervals resample neurons (a neuron with all its vectors and sides): they say how much a number
would move with other neurons of these two models, not with other models. Their `unit` is "neuron".

The layers are the parts that several workers can count: each needs both atlases' folders.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..errors import UserError
from ..progress import progress
from ..runs.intervals import bootstrap
from ..runs.query import query
from ..runs.store import Run, open_run
from ..runs.workers import HERE, map_parts
from ..runs.workers_task import Workers
from .index import contents, index_of
from .search import has_experts, has_words, narrow

_GROUPS = "layer, kind, side"
_NEURON = "expert, neuron"
_FIRST = f"SELECT {_GROUPS}, {{}} AS expert, neuron, {{}} AS token FROM {{}} WHERE layer = $layer"
_BOTH = f"""
WITH a AS ({{a}}), b AS ({{b}}),
same AS (SELECT {_GROUPS}, {_NEURON}, (a.token = b.token)::INT AS same
         FROM a JOIN b USING ({_GROUPS}, {_NEURON})),
pa AS (SELECT {_GROUPS}, token, count(*) AS n FROM a GROUP BY ALL),
pb AS (SELECT {_GROUPS}, token, count(*) AS n FROM b GROUP BY ALL),
luck AS (SELECT {_GROUPS}, sum(pa.n * pb.n) AS pairs
         FROM pa JOIN pb USING (layer, kind, side, token) GROUP BY ALL)
"""
_AGREEMENT = f"""
SELECT {_GROUPS}, count(*) AS neurons, sum(same) AS same,
       coalesce(any_value(pairs), 0) / count(*) ** 2 AS chance
FROM same LEFT JOIN luck USING ({_GROUPS}) GROUP BY {_GROUPS} ORDER BY {_GROUPS}
"""
_PATTERNS = """,
neurons AS (SELECT expert, neuron, kind, sum(same) AS same, count(*) AS vectors
            FROM same GROUP BY ALL),
every AS (FROM neurons UNION ALL
          SELECT expert, neuron, 'all', sum(same), sum(vectors) FROM neurons GROUP BY ALL)
SELECT kind, same, vectors, count(*) AS neurons FROM every GROUP BY ALL
"""
_Columns = dict[str, np.ndarray[Any, Any]]


class Agreement(NamedTuple):
    """How often two atlases' neurons have the same first token. Both tables have `neurons`;
    `agreement` from 0 to 1 with the ends of its 95 % interval, `agreement_low` and
    `agreement_high`, and their `unit`; and `chance`."""

    layers: pd.DataFrame
    """By `layer`, `kind` and `side`."""
    kinds: pd.DataFrame
    """Over all layers and sides: a row for all kinds together (`kind` "all") and one for each that
    both atlases have."""


def compared(a: Run, b: Run, workers: Workers = HERE) -> Agreement:
    """The agreement of two atlases.

    Args:
        workers: who counts the layers.

    Raises:
        UserError: the models differ in shape, or only one has a tokenizer; the atlases differ in
            their norm, or have no kind of neuron in common; a worker finds other atlases.
    """
    _check_comparable(a, b)
    both, layers = [], list(range(a.manifest["model"]["n_layers"]))
    task = _Layers((str(a.path.absolute()), str(b.path.absolute())), (contents(a), contents(b)))
    with progress("agreement", len(layers), "layers") as advance:
        for _, found in map_parts(task, layers, workers, advance, ordered=True):
            both.append([pd.DataFrame(columns) for columns in found])
            advance(1)
    by_layer, patterns = (
        pd.concat(tables, ignore_index=True) for tables in zip(*both, strict=True)
    )
    if by_layer.empty:
        raise UserError("the two atlases have no kind of neuron in common")
    layers_table = _with_shares(by_layer)
    return Agreement(layers_table, _over_all(layers_table, patterns))


def agreement(a: Run, b: Run, workers: Workers = HERE) -> pd.DataFrame:
    """`compared`, by layer, kind and side."""
    return compared(a, b, workers).layers


def summary(a: Run, b: Run, workers: Workers = HERE) -> pd.DataFrame:
    """`compared`, over all layers and sides."""
    return compared(a, b, workers).kinds


@dataclass(frozen=True)
class _Layers:
    """Counts of layers: the columns of `_AGREEMENT` and of `_PATTERNS`."""

    paths: tuple[str, str]
    contents: tuple[str, str]
    """Hashes of what is in the atlases."""

    def open(self) -> tuple[Run, Run]:
        a, b = (open_run(Path(path), "neurons.atlas") for path in self.paths)
        for run, wanted in zip((a, b), self.contents, strict=True):
            if contents(run) != wanted:
                raise UserError(
                    f"{run.path} is another atlas here than where the command was started: copy "
                    "the same folder to this machine"
                )
        return a, b

    def make(self, opened: tuple[Run, Run], part: int) -> tuple[_Columns, _Columns]:
        by_side, patterns = (
            query(_both(*opened).rstrip() + rest, {"layer": part})
            for rest in (_AGREEMENT, _PATTERNS)
        )
        return _columns(by_side), _columns(patterns)


def _columns(table: pd.DataFrame) -> _Columns:
    return {str(name): table[name].to_numpy() for name in table}


def _with_shares(table: pd.DataFrame) -> pd.DataFrame:
    same, neurons = table.pop("same").to_numpy(int), table["neurons"].to_numpy(int)
    found = pd.DataFrame([_share(*each) for each in zip(same, neurons, strict=True)])
    return table.drop(columns="chance").join(found).assign(chance=table["chance"], unit="neuron")


def _over_all(table: pd.DataFrame, patterns: pd.DataFrame) -> pd.DataFrame:
    """`Agreement.kinds`, of its `layers` and of every layer's patterns: few, of many neurons."""
    each = ["kind", "same", "vectors"]
    every = patterns.groupby(each)["neurons"].sum().reset_index(name="neurons")
    every = every.sort_values(["neurons", *each[1:]], ascending=[False, True, True])
    kinds = list(dict.fromkeys(table["kind"]))
    rows = []
    for name, chosen in {"all": kinds, **{kind: [kind] for kind in kinds}}.items():
        part, own = table[table["kind"].isin(chosen)], every[every["kind"] == name]
        alike = own["neurons"].to_numpy(int)
        share = bootstrap(own["same"], own["vectors"], alike=alike)
        chance = float(np.average(part["chance"], weights=part["neurons"]))
        row = {"kind": name, "neurons": alike.sum(), **share.columns("agreement")}
        rows.append({**row, "chance": chance, "unit": "neuron"})
    return pd.DataFrame(rows)


def _share(same: int, neurons: int) -> dict[str, float]:
    """Columns of a share of neurons."""
    alike = np.array([same, neurons - same])
    return bootstrap([1.0, 0.0], [1.0, 1.0], alike=alike).columns("agreement")


def _both(a: Run, b: Run) -> str:
    return _BOTH.format(a=_first(a), b=_first(b))


def _first(atlas: Run) -> str:
    """SQL: the first token of every row."""
    token = "token" if index_of(atlas) else "tokens[1]"
    return _FIRST.format("expert" if has_experts(atlas) else "''", token, narrow(atlas))


def differs(a: Run, b: Run) -> str:
    """Why two atlases cannot be compared neuron by neuron, by their manifests; "" if they can."""
    ours, theirs = a.manifest["model"], b.manifest["model"]
    for size in ("n_layers", "d_mlp", "n_experts", "d_expert", "d_shared"):
        # an atlas of an earlier version says nothing of experts, which its model does not have
        own, other = ours.get(size, 0), theirs.get(size, 0)
        if own != other:
            return (
                f"the models differ in {size} ({own} and {other}): agreement "
                "compares neuron by neuron"
            )
    norms = a.config["norm"], b.config["norm"]
    if norms[0] != norms[1]:
        return (
            f"the atlases have different norms ({norms[0]} and {norms[1]}): make both with the "
            "same --norm"
        )
    return ""


def _check_comparable(a: Run, b: Run) -> None:
    if reason := differs(a, b):
        raise UserError(reason)
    if has_words(a) != has_words(b):
        raise UserError("only one of the models has a tokenizer: their tokens cannot be compared")
