"""What a run will take, from what runs like it took: here, else where the workbench was made.

`data/estimates.json` is made by `interp jobs measured` from stored runs: seconds and peak memory of
a study with a model, and the settings that were not the usual ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from interp.data import FOLDER

from ..errors import UserError
from ..model.catalog import resolve
from ..model.tensor_files import stored_tensors
from ..plain_json import read_json
from ..plain_numbers import size_said
from ..progress import in_words
from .command import settings
from .fit import class_of
from .store import Run

SHIPPED = FOLDER / "estimates.json"
UNKNOWN = "Time and memory are unknown: no run of this study has been measured."
NOT_COMPARED = {"model", "device", "seed", "bos"}
NO_AMOUNTS = {
    *("layer", "position", "after", "skip", "alpha", "batch", "batch_size", "checkpoint"),
    *("workers", "memory_per_worker"),
}
"""Numbers that are no more work where they are larger."""


@dataclass(frozen=True)
class Measured:
    """What a run took."""

    model: str
    settings: Mapping[str, Any]
    """Those that are not as usual."""
    seconds: float
    bytes: int
    """The peak of the process that made it, which may have done more than this run."""
    parameters: int = 0
    """Of the model; 0 where they are not known."""
    device: str = "cpu"


def of_run(run: Run) -> Measured:
    """What a stored run took."""
    kind = class_of(run.study)
    given = settings(kind, run.config) if kind else {}
    model = str(run.config.get("model") or "")
    took = float(run.manifest["wall_s"]), int(run.manifest["peak_memory_bytes"])
    return Measured(model, _plain(given), *took, device=str(run.config.get("device", "cpu")))


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
    """What is known of the time and the memory that a config's run takes, in sentences.

    Args:
        runs: the store's of this study.
        parameters: of the config's model; 0 where they are not known.
    """
    wish = _wish(config)
    machine, rows = shipped()
    own, theirs = _nearest(map(of_run, runs), wish), _nearest(rows.get(config.STUDY, []), wish)
    if own and own.model == wish.model:
        return _sentence(f"Took {in_words(own.seconds)} here", own, wish)
    if theirs and theirs.model == wish.model:
        return _sentence(f"About {in_words(theirs.seconds)} on {machine}", theirs, wish)
    if theirs and parameters and theirs.parameters:
        scale = parameters / theirs.parameters
        guess = replace(theirs, bytes=int(theirs.bytes * scale))
        said = f"A guess, by the number of parameters from {theirs.model} on {machine}: about "
        return _sentence(said + in_words(theirs.seconds * scale), guess, wish, "may peak at about")
    if own:
        return _sentence(f"Took {in_words(own.seconds)} here, of {own.model}", own, wish)
    return UNKNOWN


@dataclass(frozen=True)
class _Wish:
    """What a config asks for."""

    model: str
    device: str
    settings: Mapping[str, Any]
    """Those that are not as usual."""
    usual: Mapping[str, Any]
    """All of its fields as they are by default."""


def _wish(config: Any) -> _Wish:
    about = config.__dataclass_fields__
    values = {name: getattr(config, name) for name in about}
    usual = {name: None if f.default is MISSING else f.default for name, f in about.items()}
    asked = _plain(settings(type(config), values))
    return _Wish(values.get("model", ""), str(values.get("device", "cpu")), asked, usual)


def _nearest(rows: Iterable[Measured], wish: _Wish) -> Measured | None:
    """Of the same model and device, if there is one, that with the least work missing and the
    fewest other settings."""

    def distance(row: Measured) -> tuple[bool, bool, int, int]:
        other = row.model != wish.model, row.device != wish.device
        return *other, len(_more(row, wish)), len(_differing(row, wish.settings))

    return min(rows, key=distance, default=None)


def _differing(row: Measured, asked: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys([*row.settings, *asked])
    return [name for name in names if row.settings.get(name) != asked.get(name)]


def _more(row: Measured, wish: _Wish) -> dict[str, tuple[int, int]]:
    """Amounts that are asked for and were smaller in a run (asked, there), by setting."""
    found = {}
    for name in _differing(row, wish.settings):
        asked, there = (
            _amount(given.get(name, wish.usual.get(name)))
            for given in (wish.settings, row.settings)
        )
        if name not in NO_AMOUNTS and asked and there is not None and asked > there:
            found[name] = (asked, there)
    return found


def _amount(value: Any) -> int | None:
    """A number, or how many things a list has; None of what is neither."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return len(value) if isinstance(value, list | tuple) else None


def _sentence(took: str, row: Measured, wish: _Wish, peaked: str = "peaked at") -> str:
    """What a run took, how it was another, and what is more work in the one that is asked for."""
    more = _more(row, wish)
    others = [name for name in _differing(row, wish.settings) if name not in more]
    said = f"{took}{_with(row, others)}; its process {peaked} {size_said(row.bytes)}."
    if more:
        each = (f"{name} {asked:,}, not {there:,}" for name, (asked, there) in more.items())
        said += f" Yours is more work: {'; '.join(each)}."
    if row.device != wish.device:
        said += f" It ran on {row.device}, and yours runs on {wish.device}."
    return said


def _with(row: Measured, names: Sequence[str], most: int = 3) -> str:
    """A run's settings of some names: ", with k 20"."""
    told = [
        f"{name} {_short(row.settings[name])}" if name in row.settings else f"the usual {name}"
        for name in names[:most]
    ]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f", with {', '.join(told)}{more}" if told else ""


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 40 else f"{text[:40]} …"


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
