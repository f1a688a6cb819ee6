"""Feature vectors as Directions, and their scores on activations, prompts and whole corpora.

    score(x) = vector . (P x / sigma(x)) + constant      at resid_pre (heads), x's own scale
    score(x) = vector . x + constant                     at mlp_in (MLPs), behind the norm

`Directions` carry the folded vector at its site, and its reading; `constant` and what the vector
was made from are columns of their index. One pass reads only the sites the features need, stops
after the last of them, and holds one batch: naive equivalent,
`feature.vector @ norm(x) + feature.offset`.
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
from ..directions.provenance import Provenance
from ..directions.reading import Product, Scale
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
    analysis: str,
    names: Sequence[str] = (),
    **notes: Any,
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
    site, made = sites.pop(), Provenance.of(analysis, weights.stored, **notes)
    reading = feature_reading(site, weights.spec)
    return Directions(site, torch.stack(vectors), pd.DataFrame(rows), made, reading)


def feature_reading(site: Site, spec: ModelSpec) -> Product:
    """How features at a site are read: behind the norm, x's own scale at the stream."""
    return Product(Scale.before_heads(site, spec))


def stream_scores(
    subject: Subject,
    rows: Iterable[Sequence[int]],
    features: Directions,
    batch_size: int = 8,
    special: bool = False,
) -> Iterator[Float[Tensor, "tokens n"]]:
    """Scores of features over rows of ids, batch by batch."""
    scorer = features.scorer
    for activations in stream(subject, rows, [features.site], batch_size, special):
        yield scorer(activations[features.site])


def corpus_rows(subject: Subject, corpus: str | None, tokens: int) -> list[list[int]]:
    """A corpus (by default the installed Python's own text) in rows of ROW ids, or of as many as
    the model's context has; `tokens` ids at most.

    Raises:
        UserError: no tokenizer, or too little text for one row.
    """
    length = min(ROW, subject.context or ROW)
    return list(token_rows(read_corpus(corpus), subject.prompting, length, tokens))
