"""Feature vectors as Directions, and their scores on activations, prompts and whole corpora.

    score(x) = vector . (P x / sigma(x)) + constant      at resid_pre (heads), x's own scale
    score(x) = vector . x + constant                     at mlp_in (MLPs), behind the norm

`Directions` carry the folded vector at its site; `constant` and what the vector was made from are
columns of their index. One pass reads only the sites the features need, stops after the last of
them, and holds one batch: naive equivalent, `feature.vector @ norm(x) + feature.offset`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..directions import Directions
from ..errors import UserError
from ..model.families import ModelSpec
from ..model.site import Site
from ..model.subject import Subject
from ..text.corpus import read_corpus, token_rows
from ..text.stream import stream
from .model_weights import StackedWeights
from .paths import Feature, show

ROW = 128
"""Tokens of a row of a corpus, where the model's context allows."""


def as_directions(
    weights: StackedWeights,
    features: Sequence[Feature],
    provenance: dict[str, Any],
    names: Sequence[str] = (),
) -> Directions:
    """Features of one site as Directions. Index columns: name, path, mode, constant, length (of
    the vector behind the norm, which the paper's figures are).

    Raises:
        UserError: features of several sites, or made with true gradients.
    """
    sites = {feature.site for feature in features}
    if len(sites) != 1:
        raise UserError("directions need features that are read at one site")
    if any(feature.mode == "gradient" for feature in features):
        raise UserError(
            "a feature made with true gradients has no score (its dot product with the "
            "activation is zero by construction): use norms 'frozen' or 'ignore'"
        )
    vectors, rows = [], []
    for feature, name in itertools.zip_longest(features, names):
        vector, constant, first = feature.vector, feature.offset, feature.path[0]
        if first.kind == "attn":
            norm = weights.norm("attn", first.layer)
            vector, constant = norm.fold(vector), constant + float(vector @ norm.offset)
        vectors.append(vector.float())
        about = {"name": name or show(feature.path), "path": show(feature.path)}
        length = float(feature.vector.norm())
        rows.append({**about, "mode": feature.mode, "constant": constant, "length": length})
    made = {"from": "obsprop", "model": str(weights.stored.folder), **provenance}
    return Directions(sites.pop(), torch.stack(vectors), pd.DataFrame(rows), made)


def behind_norm(x: Float[Tensor, "... d"], site: Site, spec: ModelSpec) -> Tensor:
    """Activations at a site as the vectors there read them: P x / sigma(x) at the stream, x itself
    where the site is behind the norm already or the family has none. In float32 or better."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    if site.kind != "resid_pre" or not spec.family.attn_norm:
        return x
    if spec.norm == "layer":
        x = x - x.mean(-1, keepdim=True)
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + spec.eps)


def scores(
    directions: Directions, x: Float[Tensor, "... d"], spec: ModelSpec
) -> Float[Tensor, "... n"]:
    """Scores of features on activations at their site.

    Raises:
        UserError: directions of another analysis, whose scores are plain dot products.
    """
    if "constant" not in directions.index:
        raise UserError("these directions are not features of observable propagation")
    constants = torch.tensor(directions.index["constant"].to_numpy())
    dots = directions.scores(behind_norm(x, directions.site, spec))
    return dots + constants.to(dots)


def stream_scores(
    subject: Subject,
    rows: Iterable[Sequence[int]],
    features: Directions,
    batch_size: int = 8,
    special: bool = False,
) -> Iterator[Float[Tensor, "tokens n"]]:
    """Scores of features over rows of ids, batch by batch."""
    for activations in stream(subject, rows, [features.site], batch_size, special):
        yield scores(features, activations[features.site], subject.spec)


def corpus_rows(subject: Subject, corpus: str | None, tokens: int) -> list[list[int]]:
    """A corpus (by default the installed Python's own text) in rows of ROW ids, or of as many as
    the model's context has; `tokens` ids at most.

    Raises:
        UserError: no tokenizer, or too little text for one row.
    """
    length = min(ROW, subject.context or ROW)
    return list(token_rows(read_corpus(corpus), subject.prompting, length, tokens))
