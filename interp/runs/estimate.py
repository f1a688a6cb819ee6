"""What a run will take, from what runs like it took: here, else where the workbench was made.

`data/estimates.json` is made by `interp jobs measured` from stored runs: seconds and peak memory of
a study with a model, and the settings that were not the usual ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from interp.data import FOLDER

from ..errors import UserError
from ..model.catalog import resolve
from ..model.tensor_files import stored_tensors
from ..plain_json import read_json
from ..progress import in_words
from .command import settings
from .fit import class_of
from .store import Run

SHIPPED = FOLDER / "estimates.json"
UNKNOWN = "Time and memory are unknown: no run of this study has been measured."
NOT_COMPARED = {"model", "device", "seed", "bos"}


@dataclass(frozen=True)
class Measured:
    """What a run took."""

    model: str
    settings: Mapping[str, Any]
    """Those that are not as usual."""
    seconds: float
    bytes: int
    parameters: int = 0
    """Of the model; 0 where they are not known."""


def of_run(run: Run) -> Measured:
    """What a stored run took."""
    kind = class_of(run.study)
    given = settings(kind, run.config) if kind else {}
    model = str(run.config.get("model") or "")
    took = float(run.manifest["wall_s"]), int(run.manifest["peak_memory_bytes"])
    return Measured(model, _plain(given), *took)


def _plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON has them, without what makes no difference in time."""
    kept = {name: value for name, value in given.items() if name not in NOT_COMPARED}
    plain: dict[str, Any] = json.loads(json.dumps(kept))
    return plain


@cache
def shipped() -> tuple[str, dict[str, list[Measured]]]:
    """The machine of the shipped figures, and the figures by study."""
    content = read_json(SHIPPED)
    rows = {study: [Measured(**row) for row in rows] for study, rows in content["studies"].items()}
    return content["machine"], rows


def estimate(config: Any, runs: Iterable[Run], parameters: int = 0) -> str:
    """One sentence about the time and the memory that a config's run takes.

    Args:
        runs: the store's of this study.
        parameters: of the config's model; 0 where they are not known.
    """
    model = getattr(config, "model", "")
    values = {name: getattr(config, name) for name in config.__dataclass_fields__}
    asked = _plain(settings(type(config), values))
    here = [of_run(run) for run in runs]
    machine, rows = shipped()
    elsewhere = rows.get(config.STUDY, [])
    own, theirs = _nearest(here, asked, model), _nearest(elsewhere, asked, model)
    if own and own.model == model:
        return f"Took {_amounts(own)} here{_with(own, asked)}."
    if theirs and theirs.model == model:
        return f"About {_amounts(theirs)} on {machine}{_with(theirs, asked)}."
    if theirs and parameters and theirs.parameters:
        scale = parameters / theirs.parameters
        guess = Measured(model, theirs.settings, theirs.seconds * scale, int(theirs.bytes * scale))
        return (
            f"A guess, by the number of parameters from {theirs.model} on {machine}: about "
            f"{_amounts(guess)}{_with(theirs, asked)}."
        )
    if own:
        return f"Took {_amounts(own)} here, of {own.model}{_with(own, asked)}."
    return UNKNOWN


def _nearest(rows: Sequence[Measured], asked: Mapping[str, Any], model: str) -> Measured | None:
    """Of the same model, if there is one, that with the fewest other settings."""
    return min(
        rows,
        key=lambda row: (row.model != model, len(_differing(row, asked))),
        default=None,
    )


def _differing(row: Measured, asked: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys([*row.settings, *asked])
    return [name for name in names if row.settings.get(name) != asked.get(name)]


def _with(row: Measured, asked: Mapping[str, Any], most: int = 3) -> str:
    """How a run's settings were others: ", with k 20"."""
    names = _differing(row, asked)
    told = [
        f"{name} {_short(row.settings[name])}" if name in row.settings else f"the usual {name}"
        for name in names[:most]
    ]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f", with {', '.join(told)}{more}" if told else ""


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 40 else f"{text[:40]} …"


def _amounts(row: Measured) -> str:
    size = row.bytes / 2**30
    memory = f"{size:.1f} GiB" if size >= 1 else f"{row.bytes / 2**20:.0f} MiB"
    return f"{in_words(row.seconds)} and {memory}"


def parameters_of(folder: Path) -> int:
    """The number of parameters of a model's folder; 0 where its files do not say."""
    try:
        return sum(prod(tensor.shape) for tensor in stored_tensors(folder))
    except (UserError, ValueError):
        return 0


def table(runs: Iterable[Run], machine: str) -> str:
    """The text of a file like the shipped one: of each study and model the run with the fewest
    settings that are not as usual, and of those the quickest. Only models that go by a name."""
    found: dict[tuple[str, str], Measured] = {}
    for run in runs:
        row = of_run(run)
        place, known = (run.study, row.model), class_of(run.study)
        if not known or "/" in row.model or any(map(_is_path, row.settings.values())):
            continue
        if place not in found or _rank(row) < _rank(found[place]):
            found[place] = row
    studies: dict[str, list[dict[str, Any]]] = {}
    for (study, model), row in sorted(found.items()):
        parameters = _counted(model)
        if parameters or not hasattr(class_of(study), "stored_weights"):
            studies.setdefault(study, []).append(vars(row) | {"parameters": parameters})
    return json.dumps({"machine": machine, "studies": studies}, indent=1) + "\n"


def _rank(row: Measured) -> tuple[int, float]:
    return len(row.settings), row.seconds


def _counted(model: str) -> int:
    try:
        return parameters_of(resolve(model)) if model else 0
    except UserError:  # a network for pictures
        return 0


def _is_path(value: Any) -> bool:
    return any("/" in str(each) for each in (value if isinstance(value, list) else [value]))
