"""What is known of one latent, whoever found it: from a survey, or from Neuronpedia's JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..errors import UserError
from ..model.vocabulary import visible
from ..runs.query import query
from ..runs.store import Run
from .search import _list, tokens


class Pair(NamedTuple):
    """Something named, and its number: a token and its logit, a latent and its cosine."""

    name: str
    value: float


@dataclass(frozen=True)
class Example:
    """A text where the latent fires."""

    tokens: tuple[str, ...]
    values: tuple[float, ...]
    """The latent at each; NaN where a token does not count."""
    at: int
    """Which of the tokens this is an example of."""
    low: float | None = None
    """Of an example of a bin: its edges, 0 and infinity at the ends; None of a largest one."""
    high: float | None = None
    share: float | None = None
    """How much of what the latent fires on is in the bin."""
    place: str = ""
    """Where it stands: document, context and position."""

    @property
    def value(self) -> float:
        return self.values[self.at]


@dataclass(frozen=True)
class Card:
    """One latent."""

    model: str
    source: str
    """The SAE's name."""
    latent: int
    density: float
    """Share of the tokens that it fires on."""
    mean: float
    """Of the sizes where it fires; NaN if it never does, or where that is not known."""
    largest: float
    edges: tuple[float, ...]
    """Of the histogram's bars, one more than there are bars; none without a histogram."""
    counts: tuple[float, ...]
    top: tuple[Pair, ...]
    """Tokens that its decoder row raises, with their logits."""
    bottom: tuple[Pair, ...]
    fires_on: tuple[Pair, ...] = ()
    """Tokens, with how often it fires on each."""
    short: int = 0
    """By how much these counts may be too small."""
    neighbours: tuple[Pair, ...] = ()
    """Latents, with their decoder rows' cosines."""
    coactive: tuple[Pair, ...] = ()
    """Latents, with in how many of its top examples they are among the largest."""
    neurons: tuple[Pair, ...] = ()
    """MLP neurons, with the cosine of what they write."""
    examples: tuple[Example, ...] = ()
    site: str = ""

    @property
    def largest_examples(self) -> tuple[Example, ...]:
        return tuple(e for e in self.examples if e.low is None)

    @property
    def binned_examples(self) -> tuple[Example, ...]:
        """The strongest bin first."""
        return tuple(e for e in reversed(self.examples) if e.low is not None)

    @property
    def title(self) -> str:
        return f"latent {self.latent} of {self.source}"


def of_survey(survey: Run, latent: int) -> Card:
    """A latent's card.

    Raises:
        UserError: the survey has no such latent.
    """
    rows = query(f"SELECT * FROM {survey.sql('latents')} WHERE latent = {int(latent)}")
    if rows.empty:
        last = survey.metrics["latents"] - 1
        raise UserError(f"no latent {latent} in this survey: it has 0..{last}")
    row = rows.iloc[0]
    examples = query(
        f"SELECT * FROM {survey.sql('examples')} WHERE latent = {int(latent)} "
        "ORDER BY kind DESC, rank"
    )
    ids = {int(i) for name in ("top_ids", "bottom_ids", "fires_on") for i in _list(row[name])}
    ids |= {int(i) for window in examples["ids"] for i in window}
    texts = tokens(survey, ids)

    def named(ids: str, values: str, words: bool = True) -> tuple[Pair, ...]:
        both = zip(_list(row[ids]), _list(row[values]), strict=True)
        return tuple(Pair(texts[int(i)] if words else str(i), float(x)) for i, x in both)

    counts = tuple(float(x) for x in row["histogram"])
    edges = (0.0, *survey.manifest["edges"], math.inf)
    return Card(
        model=survey.config["model"],
        source=survey.manifest["sae"],
        latent=latent,
        density=float(row["density"]),
        mean=float(row["mean"]),
        largest=float(row["max"]),
        edges=edges,
        counts=counts,
        top=named("top_ids", "top_logits"),
        bottom=named("bottom_ids", "bottom_logits"),
        fires_on=named("fires_on", "fires_times"),
        short=int(row["short"]),
        neighbours=named("neighbours", "neighbour_cosines", words=False),
        coactive=named("coactive", "coactive_times", words=False),
        neurons=named("neurons", "neuron_cosines", words=False),
        examples=tuple(
            _example(about, texts, edges, counts) for about in examples.to_dict("records")
        ),
        site=survey.manifest["site"],
    )


def _example(
    row: dict[Any, Any], texts: dict[int, str], edges: Sequence[float], counts: Sequence[float]
) -> Example:
    at = int(row["position"] - row["start"])
    values = np.ma.filled(row["values"], np.nan).tolist()  # DuckDB masks what is NaN
    values[at] = float(row["value"])
    binned: dict[str, float] = {}
    if row["kind"] == "bin":
        rank = int(row["rank"])
        share = counts[rank] / sum(counts)
        binned = {"low": edges[rank], "high": edges[rank + 1], "share": share}
    place = f"document {row['document']}, context {row['context']}, position {row['position']}"
    words = tuple(texts[int(i)] for i in row["ids"])
    return Example(words, tuple(values), at, place=place, **binned)


def bars(card: Card) -> list[tuple[float, float, float]]:
    """The filled part of a histogram: (low, high, count), open ends cut at half an octave."""
    filled = [i for i, count in enumerate(card.counts) if count]
    if not filled or len(card.edges) != len(card.counts) + 1:
        return []
    made = []
    for i in range(filled[0], filled[-1] + 1):
        low, high = card.edges[i], card.edges[i + 1]
        low = low or high / math.sqrt(2)
        high = high if math.isfinite(high) else low * math.sqrt(2)
        made.append((low, high, card.counts[i]))
    return made


def plain_rows(card: Card) -> pd.DataFrame:
    """A card's lists below each other: `what`, `name`, `value`."""
    lists = {
        "raises": card.top,
        "lowers": card.bottom,
        "fires on": card.fires_on,
        "decoder like latent": card.neighbours,
        "together with latent": card.coactive,
        "decoder like neuron": card.neurons,
    }
    rows = [(what, pair.name, pair.value) for what, pairs in lists.items() for pair in pairs]
    return pd.DataFrame(rows, columns=["what", "name", "value"])


def plain_text(example: Example) -> str:
    """An example's text on one line, the token that it is of between «»."""
    marked = (f"«{t}»" if i == example.at else t for i, t in enumerate(example.tokens))
    return visible("".join(marked)).replace("␣", " ")
