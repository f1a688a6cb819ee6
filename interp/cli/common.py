"""What the commands share: their options' types, registration, and printing."""

from __future__ import annotations

import dataclasses
import functools
import json as jsonlib
import sys
from collections.abc import Callable, Iterable
from itertools import islice
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import tyro
from tyro.conf import arg
from tyro.extras import SubcommandApp

from ..errors import UserError
from ..model.vocabulary import visible
from ..plain_text import printable
from ..runs.store import Run, Store
from ..runs.study import PartedStudy, Study, run_or_load

if TYPE_CHECKING:
    import pandas as pd
    from rich.text import Text

    from ..runs.query import Record

Command = Callable[..., Any]
Show = Callable[[Run], None]
"""Prints on a screen what is worth seeing of a run."""
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
Folder = Annotated[Path | None, arg(metavar="DIR")]
Json = Annotated[Flag, arg(help="Print one JSON object.")]
Runs = Annotated[Folder, arg(help="The folder of stored runs ($INTERP_RUNS, or ./runs).")]
Atlas = Annotated[
    Folder, arg(help="An atlas's run folder or key; by default the newest stored one.")
]
Fresh = Annotated[Flag, arg(help="Run again even if it is stored.")]
Out = Annotated[Folder, arg(help="The run's own folder, instead of a stored one.")]
Parted = tyro.conf.OmitArgPrefixes[PartedStudy]
"""Who makes the parts of a command that is no study."""
ALONE = PartedStudy()
"""This process does."""
Limit = Annotated[int, arg(help="Maximum rows to print.")]


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
    if not answered(json, run.study, run.metrics, run.path):
        say(run.path)
        print_metrics(run.metrics)


def study_command(
    group: SubcommandApp,
    config: type[Study],
    *shows: Show,
    report: Callable[[Run, bool], None] = report,
) -> None:
    """Register a study under its name, with its config's docstring as help. It prints the run as
    `report` does, and on a screen what `shows` print after that."""

    def run(
        config: Any, out: Out = None, runs: Runs = None, fresh: Fresh = False, json: Json = False
    ) -> None:
        made = run_or_load(config, Store(runs), out, fresh)
        report(made, json)
        for show in () if json else shows:
            show(made)

    run.__doc__ = config.__doc__
    run.__annotations__["config"] = options(config)
    command(group, config.STUDY.partition(".")[2])(run)


def options(config: type[Study]) -> Any:
    """A config's fields as options. One with `metadata={"positional": True}` needs no name."""
    places = [f for f in dataclasses.fields(config) if f.metadata.get("positional")]
    hints = get_type_hints(config)
    shown = [(f.name, tyro.conf.Positional[hints[f.name]], f) for f in places]  # type: ignore
    kind = dataclasses.make_dataclass(config.__name__, shown, bases=(config,), frozen=True)
    return tyro.conf.OmitArgPrefixes[kind if places else config]  # type: ignore


def with_table(name: str, columns: str = "", most: int = 100) -> Show:
    """Prints one of a run's tables."""

    def show(run: Run) -> None:
        rows = run.table(name)
        print_rows(rows.head(most), columns)
        if len(rows) > most:
            say(f"{len(rows) - most} more rows: {run.path / name}.parquet")

    return show


def say(*lines: object) -> None:
    """Print lines on standard output. All that the commands print goes through here or
    `print_table`: what is in it may be anybody's, and a terminal obeys control characters."""
    print(*(printable(str(line)) for line in lines), sep="\n", flush=True)


def positive(number: int, option: str = "--limit") -> int:
    if number < 1:
        raise UserError(f"{option} must be at least 1, not {number}")
    return number


def print_metrics(metrics: dict[str, Any], digits: str = "") -> None:
    """Numbers by name; `digits` is how a float is written, such as .3g."""
    rows = [[k, f"{v:{digits}}" if isinstance(v, float) else str(v)] for k, v in metrics.items()]
    print_table(["metric", "value"], rows)


def print_frame(
    study: str,
    rows: pd.DataFrame,
    json: bool,
    columns: str = "",
    run: Run | None = None,
    **more: Any,
) -> None:
    """A table, of a run or of none: its columns between blanks (all) on a screen, or JSON."""
    # not by pandas' own writer: it keeps ten decimals, and 1e-11 becomes 0
    results = rows.to_dict("records") if json else []
    path = run.path if run else None
    if answered(json, study, {"rows": len(rows)}, path, **more, results=results):
        return
    if run:
        say(f"{run.config['model']} ({run.path})")
    print_rows(rows, columns)


def _plain(value: Any) -> Any:
    """A value of numpy's or pandas' in Python's own types, and of any other type its text."""
    from pandas import NA

    if value is NA:
        return None
    return value.tolist() if hasattr(value, "tolist") else str(value)


def print_records(study: str, rows: list[Record], json: bool, columns: str, run: Run) -> None:
    """Rows of a run: those of the columns between blanks that they have on a screen, or JSON."""
    if not answered(json, study, {"rows": len(rows)}, run.path, results=rows):
        names = [name for name in columns.split() if name in rows[0]]
        say(f"{run.config['model']} ({run.path})")
        print_table(names, [[_cell(row[name]) for name in names] for row in rows])


def print_rows(rows: pd.DataFrame, columns: str = "") -> None:
    """A table on a screen: the columns named between blanks, by default all."""
    from pandas import NA  # what a column of whole numbers has where there is none

    names = columns.split() or list(rows.columns)
    cells = rows[names].to_numpy(object)
    print_table(names, [[_cell(nan if v is NA else v) for v in row] for row in cells])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Iterable) and not isinstance(value, str):  # a list, from DuckDB an array
        return " ".join(repr(str(token)) for token in islice(value, 6))
    text = str(value)  # blanks are marked only where they would be overlooked
    return text if text and text.isprintable() and text == text.strip() else visible(text)


def print_table(head: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in head:
        table.add_column(_literal(name))
    for column in table.columns[:-1]:  # on a narrow terminal only the last one gives way
        column.no_wrap = True
    for row in rows:
        table.add_row(*map(_literal, row))

    # in a pipe there is no width to fit: do not cut what a script will read
    class Patient(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    Patient(width=None if sys.stdout.isatty() else 240).print(table)


def _literal(cell: str) -> Text:
    """A cell as it is: no markup, and nothing that a terminal obeys."""
    from rich.text import Text

    return Text(printable(cell))


def print_markdown(head: list[str], rows: list[list[str]]) -> None:
    """A table of the docs."""
    lines = [head, ["---"] * len(head), *rows]
    say(*(f"| {' | '.join(line)} |" for line in lines))


def answered(
    json: bool, study: str, metrics: dict[str, Any], run: Path | None = None, **more: Any
) -> bool:
    """Print a command's one JSON object if it is asked for; returns whether it is. What JSON has
    no number for (0/0, or infinite) is null."""
    if json:
        about = {"study": study, "run": str(run) if run else None, "metrics": metrics, **more}
        plain = jsonlib.dumps(about, default=_plain)
        finite = jsonlib.loads(plain, parse_constant=lambda _: None)
        print(jsonlib.dumps(finite).replace("\x7f", "\\u007f"))  # the one it leaves as it is
    return json
