"""Cards in Neuronpedia's JSON, written and read.

Neuronpedia exports, and imports, folders of JSON lines: `features/batch-0.jsonl.gz` with a feature
a line, `activations/batch-0.jsonl.gz` with an example a line, by the fields of its tables (`Neuron`
and `Activation` in apps/webapp/prisma/schema.prisma; utils/neuronpedia-utils/db_models). Its API
gives one feature with its `activations` inside. All of these are read. What is written are the two
batches: who publishes adds the release's own files (model, source, release), whose names are
theirs.

    pos_str, neg_str        tokens that are raised and lowered   frac_nonzero   density
    freq_hist_data_bar_*    the histogram: middles and counts    maxActApprox   largest
    topkCosSim*             neighbours in decoder cosine
    binMin, binMax, binContains   an example's bin and its share; -1, the largest, -1 of a top one
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..model.site import Site
from ..runs.parts import write_file
from ..saes.hooks import hook_of_site
from .card import Card, Example, Pair, bars

BATCH = "batch-0.jsonl.gz"


def write(cards: Sequence[Card], folder: Path, creator: str = "interp") -> None:
    """Write an export of some latents.

    Args:
        creator: Neuronpedia's id of who made it.

    Raises:
        UserError: the folder cannot be written.
    """
    now = datetime.now(UTC).isoformat()
    lines = {
        "features": [feature(card, creator, now) for card in cards],
        "activations": [
            activation(card, example, creator, now) for card in cards for example in card.examples
        ],
    }
    for name, rows in lines.items():
        text = "".join(f"{json.dumps(row, allow_nan=False)}\n" for row in rows)
        write_file(folder / name / BATCH, gzip.compress(text.encode()))


def source_id(card: Card) -> str:
    """Neuronpedia's name of an SAE: its layer, and the set that it is of."""
    return f"{Site.parse(card.site).layer}-{card.source}" if card.site else card.source


def feature(card: Card, creator: str, created: str) -> dict[str, Any]:
    """A latent by the fields of Neuronpedia's table `Neuron`."""
    drawn = bars(card)
    hook = hook_of_site(card.site) if card.site else None
    made = {
        **{"modelId": card.model, "layer": source_id(card), "index": str(card.latent)},
        **{"creatorId": creator, "createdAt": created, "sourceSetName": card.source},
        **{"maxActApprox": _number(card.largest), "frac_nonzero": card.density},
        **{"hasVector": False, "vector": [], "hookName": hook},
        "topkCosSimIndices": [int(pair.name) for pair in card.neighbours],
        "topkCosSimValues": [pair.value for pair in card.neighbours],
        "freq_hist_data_bar_heights": [count for *_, count in drawn],
        "freq_hist_data_bar_values": [(low + high) / 2 for low, high, _ in drawn],
    }
    for prefix, pairs in (("pos", card.top), ("neg", card.bottom)):
        made |= {f"{prefix}_str": [p.name for p in pairs]}
        made |= {f"{prefix}_values": [p.value for p in pairs]}
    return made


def activation(card: Card, example: Example, creator: str, created: str) -> dict[str, Any]:
    """An example by the fields of Neuronpedia's table `Activation`."""
    values = [_number(x) for x in example.values]
    top = example.low is None
    about = f"{card.model} {source_id(card)} {card.latent} {example.place} {top} {example.tokens}"
    return {
        "id": f"c{hashlib.sha256(about.encode()).hexdigest()[:24]}",
        **{"modelId": card.model, "layer": source_id(card), "index": str(card.latent)},
        **{"creatorId": creator, "createdAt": created, "dataIndex": example.place or None},
        **{"tokens": list(example.tokens), "values": values},
        **{"maxValue": max(values), "maxValueTokenIndex": values.index(max(values))},
        **{"minValue": min(values), "qualifyingTokenIndex": example.at},
        "binMin": -1.0 if top else example.low,
        "binMax": _number(card.largest) if top else _number(example.high or 0, card.largest),
        "binContains": -1.0 if example.share is None else example.share,
    }


def _number(value: float, instead: float = 0.0) -> float:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else instead


def as_json(cards: Sequence[Card], creator: str = "interp") -> str:
    """Features with their `activations` inside, as the API gives them: one, or a list."""
    now = datetime.now(UTC).isoformat()
    rows = [
        feature(card, creator, now)
        | {"activations": [activation(card, each, creator, now) for each in card.examples]}
        for card in cards
    ]
    return json.dumps(rows[0] if len(rows) == 1 else rows, allow_nan=False)


def read(path: Path) -> list[Card]:
    """The cards in an export's folder, or in a file as `parsed` takes it.

    Raises:
        UserError: nothing there, or not of this form.
    """
    if not path.is_dir():
        return parsed(str(path), _content(path))
    features = [row for file in _batches(path, "features") for row in _rows(file)]
    own: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for file in _batches(path, "activations", needed=False):
        for row in _rows(file):
            own.setdefault(_key(row), []).append(row)
    return _cards([(row, own.get(_key(row), [])) for row in features], str(path))


def parsed(name: str, content: bytes) -> list[Card]:
    """The cards of a file of features: JSON lines, .gz or not, or a .json as the API gives it: one
    feature, or a list, with their `activations` inside.

    Raises:
        UserError: it is not of this form.
    """
    rows = _decoded(name, content)
    return _cards([(row, row.get("activations") or []) for row in rows], name)


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row.get(name)) for name in ("modelId", "layer", "index"))


def _cards(rows: Sequence[tuple[dict[str, Any], list[dict[str, Any]]]], name: str) -> list[Card]:
    if not rows:
        raise UserError(f"{name} holds no features: give an export of Neuronpedia")
    try:
        return [_card(row, activations) for row, activations in rows]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{name} is not what Neuronpedia exports ({reason})") from error


def _batches(folder: Path, name: str, needed: bool = True) -> list[Path]:
    files = sorted(
        file for end in ("jsonl", "jsonl.gz") for file in (folder / name).glob(f"*.{end}")
    )
    if needed and not files:
        raise UserError(f"{folder} holds no {name}/*.jsonl.gz: give an export of Neuronpedia")
    return files


def _rows(path: Path) -> list[dict[str, Any]]:
    return _decoded(str(path), _content(path))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{path} cannot be read ({reason}): give an export of Neuronpedia"
        ) from error


def _decoded(name: str, content: bytes) -> list[dict[str, Any]]:
    try:
        text = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
        plain = name.removesuffix(".gz").endswith(".json")
        whole = json.loads(text) if plain else list(_lines(text))
    except (OSError, EOFError, ValueError, zlib.error, RecursionError) as error:
        raise UserError(f"{name} cannot be read ({error}): give another file") from error
    rows = whole if isinstance(whole, list) else [whole]
    if not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{name} is not what Neuronpedia exports: it holds no objects")
    return rows


def _lines(text: str) -> Iterator[Any]:
    for line in text.splitlines():
        if line.strip():
            yield json.loads(line)


def _card(row: Mapping[str, Any], activations: Sequence[Mapping[str, Any]]) -> Card:
    middles = [float(x) for x in row.get("freq_hist_data_bar_values") or ()]
    largest = float(row.get("maxActApprox") or 0)
    near = zip(row.get("topkCosSimIndices") or (), row.get("topkCosSimValues") or (), strict=True)
    made = [_example(each) for each in activations]
    # the largest first, then bins from the weakest: as a survey has them
    made.sort(key=lambda e: (e.low is not None, e.low or 0.0, -e.value))
    return Card(
        model=str(row["modelId"]),
        source=str(row["layer"]),
        latent=int(row["index"]),
        density=float(row.get("frac_nonzero") or 0),
        mean=math.nan,
        largest=largest,
        edges=_edges(middles),
        counts=tuple(float(x) for x in row.get("freq_hist_data_bar_heights") or ()),
        top=_pairs(row, "pos"),
        bottom=_pairs(row, "neg"),
        neighbours=tuple(Pair(str(int(i)), float(x)) for i, x in near),
        examples=tuple(made),
    )


def _pairs(row: Mapping[str, Any], prefix: str) -> tuple[Pair, ...]:
    both = zip(row.get(f"{prefix}_str") or (), row.get(f"{prefix}_values") or (), strict=True)
    return tuple(Pair(str(token), float(x)) for token, x in both)


def _edges(middles: Sequence[float]) -> tuple[float, ...]:
    """Of bars whose middles are known: halfway between them."""
    if len(middles) < 2:
        return tuple(x * f for x in middles for f in (0.9, 1.1))
    between = [(a + b) / 2 for a, b in pairwise(middles)]
    first, last = 2 * middles[0] - between[0], 2 * middles[-1] - between[-1]
    return (first, *between, last)


def _example(row: Mapping[str, Any]) -> Example:
    tokens, values = tuple(map(str, row["tokens"])), tuple(map(float, row["values"]))
    if len(tokens) != len(values) or not tokens:
        raise ValueError(f"{len(tokens)} tokens have {len(values)} values")
    at = row.get("qualifyingTokenIndex")
    at = int(row["maxValueTokenIndex"] if at is None else at)
    if not 0 <= at < len(tokens):
        raise ValueError(f"token {at} of {len(tokens)}")
    contains = float(-1.0 if row.get("binContains") is None else row["binContains"])
    binned: dict[str, float] = {}
    if contains >= 0:
        binned = {"low": float(row["binMin"]), "high": float(row["binMax"]), "share": contains}
    return Example(tokens, values, at, place=str(row.get("dataIndex") or ""), **binned)
