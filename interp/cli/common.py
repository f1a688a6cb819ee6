"""What the commands share: their options' types, registration, and printing."""

from __future__ import annotations

import dataclasses
import functools
import json as jsonlib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import tyro
from tyro.extras import SubcommandApp

from ..errors import UserError
from ..model.vocabulary import visible
from ..runs.store import Run, Store
from ..runs.study import Study, run_or_load

if TYPE_CHECKING:
    import pandas as pd

Command = Callable[..., Any]
Show = Callable[[Run, bool], None]
"""Prints a run; the second argument asks for JSON."""
Json = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Print one JSON object.")]
Runs = Annotated[
    Path | None,
    tyro.conf.arg(help="The folder of stored runs ($INTERP_RUNS, or ./runs).", metavar="DIR"),
]
Atlas = Annotated[
    Path | None,
    tyro.conf.arg(help="An atlas's run folder; by default the newest stored one.", metavar="DIR"),
]
Fresh = Annotated[
    bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Run again even if it is stored.")
]
Out = Annotated[
    Path | None, tyro.conf.arg(help="The run's own folder, instead of a stored one.", metavar="DIR")
]
Limit = Annotated[int, tyro.conf.arg(help="Maximum rows to print.")]


def command(group: SubcommandApp, name: str) -> Callable[[Command], Command]:
    """Register a function under a name; parsing binds its arguments, `main` calls it afterwards."""

    def register(function: Command) -> Command:
        group.command(name=name)(bound(function))
        return function

    return register


def bound(function: Command) -> Callable[..., Callable[[], None]]:
    """What parsing calls in a command's place: it only binds the arguments."""

    @functools.wraps(function)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(function, *args, **kwargs)

    return bind


def report(run: Run, json: bool) -> None:
    """A run's folder and metrics."""
    if json:
        print_json({"study": run.study, "run": str(run.path), "metrics": run.metrics})
        return
    print(run.path)
    print_table(["metric", "value"], [[k, str(v)] for k, v in run.metrics.items()])


def study_command(
    group: SubcommandApp, name: str, config: type[Study], show: Show = report
) -> None:
    """Register a study under a name, with its config's docstring as help."""

    def run(
        config: Any, out: Out = None, runs: Runs = None, fresh: Fresh = False, json: Json = False
    ) -> None:
        show(run_or_load(config, Store(runs), out, fresh), json)

    run.__doc__ = config.__doc__
    kinds = {"config": options(config), "out": Out, "runs": Runs}
    run.__annotations__ = {**kinds, "fresh": Fresh, "json": Json, "return": None}
    command(group, name)(run)


def options(config: type[Study]) -> Any:
    """A config's fields as options. One with `metadata={"positional": True}` needs no name."""
    places = [f for f in dataclasses.fields(config) if f.metadata.get("positional")]
    hints = get_type_hints(config)
    shown = [(f.name, tyro.conf.Positional[hints[f.name]], f) for f in places]  # type: ignore
    kind = dataclasses.make_dataclass(config.__name__, shown, bases=(config,), frozen=True)
    return tyro.conf.OmitArgPrefixes[kind if places else config]  # type: ignore


def with_table(
    name: str, columns: Sequence[str] = (), most: int = 100, show: Show = report
) -> Show:
    """What `show` prints, then on a screen one of the run's tables (all columns by default)."""

    def shown(run: Run, json: bool) -> None:
        show(run, json)
        if not json:
            rows = run.table(name)
            print_rows(rows[list(columns or rows.columns)].head(most))
            if len(rows) > most:
                print(f"{len(rows) - most} more rows: {run.path / name}.parquet")

    return shown


def print_rows(rows: pd.DataFrame) -> None:
    print_table(list(rows.columns), [[_cell(v) for v in row] for row in rows.to_numpy(object)])


def positive(number: int, option: str = "--limit") -> int:
    if number < 1:
        raise UserError(f"{option} must be at least 1, not {number}")
    return number


def report_rows(run: Run, study: str, rows: pd.DataFrame, json: bool, columns: list[str]) -> None:
    if json:
        # through pandas' own writer: plain numbers instead of numpy's
        results = jsonlib.loads(rows.to_json(orient="records", double_precision=6))
        found = {"metrics": {"rows": len(rows)}, "results": results}
        print_json({"study": study, "run": str(run.path), **found})
        return
    print(f"{run.config['model']} ({run.path})")
    table = [
        [row["name"], row["side"], *(f"{row[c]:.3g}" for c in columns), _some(row["tokens"])]
        for row in rows.to_dict("records")
    ]
    print_table(["neuron", "side", *columns, "tokens"], table)


def print_frame(
    study: str, rows: pd.DataFrame, json: bool, columns: list[str] | None = None
) -> None:
    """A table that belongs to no run: the chosen columns (with the first) on a screen, or JSON."""
    if json:
        found = {"study": study, "run": None, "metrics": {"rows": len(rows)}}
        # through pandas' own writer: plain numbers instead of numpy's
        print_json({**found, "results": jsonlib.loads(rows.to_json(orient="records"))})
        return
    shown = list(dict.fromkeys([rows.columns[0], *(columns or rows.columns)]))
    print_rows(rows[shown])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        return _some(value)
    text = str(value)  # blanks are marked only where they would be overlooked
    return text if text and text.isprintable() and text == text.strip() else visible(text)


def _some(tokens: Sequence[str]) -> str:
    return " ".join(repr(str(token)) for token in tokens[:6])


def print_table(head: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[:-1]:  # on a narrow terminal only the last one gives way
        column.no_wrap = True
    for row in rows:
        table.add_row(*map(Text, row))

    # in a pipe there is no width to fit: do not cut what a script will read
    class Patient(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    Patient(width=None if sys.stdout.isatty() else 240).print(table)


def print_json(found: dict[str, Any]) -> None:
    """One line of JSON; a number that does not exist (0/0) is null."""
    print(jsonlib.dumps(_finite(found), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
