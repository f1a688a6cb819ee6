"""The tokens that neurons and heads raise and lower at a position, through the unembedding.

A neuron writes its row of W_down times its activation, so where that is negative it raises what the
row lowers. The words of a row are those of a stored atlas of the model, or decoded here. A norm's
scale behind it and the final norm's gain are left out, as in the atlas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..model.neuron import parse_neuron
from ..model.site import Site
from ..runs.query import query
from ..runs.store import Run, Store
from .direct import Direct
from .passed import Opened

SHOWN = 8
"""Tokens of a side."""


class Words(NamedTuple):
    """What a vector raises most, and what it lowers most."""

    raises: list[str]
    lowers: list[str]

    def times(self, factor: float) -> Words:
        """Of a multiple of the vector; nothing of nothing."""
        if not factor:
            return Words([], [])
        return self if factor > 0 else Words(self.lowers, self.raises)


def with_words(opened: Opened, neurons: pd.DataFrame, atlas: Run | None = None) -> pd.DataFrame:
    """The rows of `tables.neuron_table`, with what each neuron `raises` and `lowers` there."""
    names = list(dict.fromkeys(neurons["name"]))
    found = of_atlas(atlas, names) if atlas else {}
    found |= _decoded(opened, [name for name in names if name not in found])
    pairs = zip(neurons["name"], neurons["activation"], strict=True)
    return _beside(neurons, [found[name].times(a) for name, a in pairs])


def heads_with_words(direct: Direct, heads: pd.DataFrame) -> pd.DataFrame:
    """The rows of `tables.head_table` of one logit, with what each head `raises` and `lowers` by
    all that it writes at the position."""
    if heads.empty:
        return _beside(heads, [])
    seen, weights, vectors = direct.passed.seen, direct.passed.opened.weights, []
    at = int(direct.at[0])
    for layer, head in zip(heads["layer"], heads["head"], strict=True):
        z = seen[Site("head_z", layer)][at, head].float()
        vectors.append(weights.W_O(layer)[head].float() @ z * weights.gain("attn_post", layer))
    return _beside(heads, _said(direct.passed.opened, torch.stack(vectors)))


def atlas_of(opened: Opened, store: Store) -> Run | None:
    """The newest stored atlas of a model as it is, read through no lens."""
    assert opened.subject.weights is not None
    model = opened.subject.weights.fingerprint()
    return next(
        (
            run
            for run in store.looked_through("neurons.atlas")[0]
            if run.manifest.get("fingerprints", {}).get("model") == model
            and not run.manifest.get("lens")
            and "down" in run.manifest["kinds"]
        ),
        None,
    )


def of_atlas(atlas: Run, names: Sequence[str]) -> dict[str, Words]:
    """The words of `down` vectors, by name, of those that an atlas has."""
    neurons = [parse_neuron(name) for name in names]
    wanted = ", ".join(f"({each.layer}, {each.neuron})" for each in neurons)
    rows = query(
        f"SELECT layer, neuron, side, tokens[1:{SHOWN}] AS tokens FROM {atlas.sql('neurons')} "
        f"WHERE kind = 'down' AND (layer, neuron) IN ({wanted or '(NULL, NULL)'})"
    )
    sides: dict[str, dict[str, list[str]]] = {}
    for layer, neuron, side, tokens in rows.itertuples(index=False):
        sides.setdefault(f"{layer}.down.{neuron}", {})[side] = list(tokens)
    return {name: Words(each["top"], each["bottom"]) for name, each in sides.items()}


def _decoded(opened: Opened, names: Sequence[str]) -> dict[str, Words]:
    """The words of `down` vectors from the weights."""
    if not names:
        return {}
    neurons = [parse_neuron(name) for name in names]
    rows = {n: opened.weights.in_stream("down", n) for n in {each.layer for each in neurons}}
    vectors = torch.stack([rows[each.layer][each.neuron].float() for each in neurons])
    return dict(zip(names, _said(opened, vectors), strict=True))


def _said(opened: Opened, vectors: Float[Tensor, "n d_model"]) -> list[Words]:
    found = opened.readout.decode(vectors, SHOWN)
    sides = [side.ids.tolist() for side in (found.top, found.bottom)]
    return [
        Words(*([opened.strings[token] for token in side] for side in pair))
        for pair in zip(*sides, strict=True)
    ]


def _beside(rows: pd.DataFrame, words: list[Words]) -> pd.DataFrame:
    sides: dict[str, Any] = {
        side: [getattr(each, side) for each in words] for side in Words._fields
    }
    return rows.assign(**sides)
