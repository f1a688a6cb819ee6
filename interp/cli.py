"""The `interp` command.

Contract: results go to standard output, everything else to standard error; `--json` prints exactly
one JSON object, `{"study": …, "run": …, "metrics": {…}, …}`, on the last line of standard output;
a user's mistake is one line on standard error and exit code 2. Heavy imports happen only inside
the commands that need them: `interp --help` and browsing stored runs import no torch.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import io
import json as jsonlib
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.extras import SubcommandApp

from .bench import KernelBenchConfig
from .errors import UserError
from .neurons.atlas import AtlasConfig
from .store import Run, Store
from .study import Study, run_or_load

if TYPE_CHECKING:
    import pandas as pd

Command = Callable[..., Any]
neurons, models, bench, app = (SubcommandApp() for _ in range(4))
app.command(neurons, name="neurons", help="Every MLP neuron of a model, through its LM head.")
app.command(models, name="models", help="Models by name: list, add, describe.")
app.command(bench, name="bench", help="Benchmarks.")

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
Limit = Annotated[int, tyro.conf.arg(help="Most rows to print.")]


def command(group: SubcommandApp, name: str) -> Callable[[Command], Command]:
    """Register a function under a name; parsing binds its arguments, `main` calls it afterwards."""

    def register(function: Command) -> Command:
        @functools.wraps(function)
        def bind(*args: Any, **kwargs: Any) -> Callable[[], None]:
            return functools.partial(function, *args, **kwargs)

        group.command(name=name)(bind)
        return function

    return register


@command(neurons, "atlas")
def atlas(
    config: tyro.conf.OmitArgPrefixes[AtlasConfig],
    model: Annotated[
        tuple[str, ...],
        tyro.conf.arg(help="Catalog names, hub ids, folders or .gguf files; one atlas each."),
    ] = ("smollm2-135m",),
    out: Annotated[
        Path | None,
        tyro.conf.arg(help="The run's own folder (with several models: one folder in it each)."),
    ] = None,
    runs: Runs = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Decode every MLP neuron of a model (or several) through its LM head.

    An interrupted atlas resumes when the same command is given again.
    """
    if not model:
        raise UserError("--model needs at least one model")
    for name in model:
        own = out / re.sub(r"[^\w.-]+", "-", name).strip("-") if out and len(model) > 1 else out
        run = _run(dataclasses.replace(config, model=name), runs, own, fresh)
        _report(run, json)


@command(neurons, "search")
def search(
    word: tyro.conf.Positional[str],
    atlas: Atlas = None,
    exact: Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.arg(help="Match this token's text alone, not its word family."),
    ] = False,
    limit: Limit = 20,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Neurons that decode to a word, most specialised first."""
    from .neurons import search as questions

    run = questions.open_atlas(atlas, Store(runs))
    rows = questions.find(run, word, exact, _positive(limit))
    _report_rows(run, "neurons.search", rows, json, ["score", "rank", "word_z", "lead"])


@command(neurons, "show")
def show(
    neuron: tyro.conf.Positional[str],
    atlas: Atlas = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """One neuron vector, such as 29.gate.808: its tokens and statistics, both sides."""
    from .neurons import search as questions

    run = questions.open_atlas(atlas, Store(runs))
    rows = questions.show(run, questions.parse_neuron(neuron))
    _report_rows(run, "neurons.show", rows, json, ["z", "margin", "kurtosis", "max_prob", "norm"])


@command(neurons, "top")
def top(
    atlas: Atlas = None,
    limit: Limit = 20,
    layer: Annotated[int | None, tyro.conf.arg(help="Only this layer.")] = None,
    kind: Annotated[
        Literal["up", "gate", "down"] | None, tyro.conf.arg(help="Only this kind.")
    ] = None,
    words_only: Annotated[
        bool,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.arg(help="Leave out punctuation and fragments under three letters."),
    ] = False,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """The most specialised neurons of an atlas."""
    from .neurons import search as questions

    run = questions.open_atlas(atlas, Store(runs))
    rows = questions.top(run, _positive(limit), layer, kind, words_only)
    _report_rows(run, "neurons.top", rows, json, ["score", "z", "margin", "kurtosis"])


@command(models, "list")
def list_models(json: Json = False) -> None:
    """The models known by name."""
    from . import catalog

    rows = [
        {"name": name, "local": catalog.is_local(name), "source": wheel.about}
        for name, wheel in catalog.WHEELS.items()
    ] + [{"name": n, "local": True, "source": source} for n, source in catalog.added().items()]
    if json:
        _print_json({"study": "models.list", "run": None, "metrics": {}, "models": rows})
        return
    _print_table(["name", "local", "source"], [[str(v) for v in row.values()] for row in rows])


@command(models, "add")
def add_model(
    name: tyro.conf.Positional[str], source: tyro.conf.Positional[str], json: Json = False
) -> None:
    """Give a hub id, a folder or a .gguf file a name, and fetch it."""
    from . import catalog

    folder = catalog.add(name, source)
    found = {"name": name, "folder": str(folder)}
    _print_json({"study": "models.add", "run": None, "metrics": {}, **found}) if json else print(
        f"{name}: {folder}"
    )


@command(models, "info")
def model_info(name: tyro.conf.Positional[str], json: Json = False) -> None:
    """Family, sizes and folder of a model (fetched if need be)."""
    from .catalog import resolve
    from .families import read_spec

    folder = resolve(name)
    path = folder / "config.json"
    try:
        spec = read_spec(jsonlib.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    facts = {**vars(spec), "kinds": list(spec.kinds), "folder": str(folder)}
    if json:
        _print_json({"study": "models.info", "run": None, "metrics": facts})
    else:
        _print_table(["", name], [[key, str(value)] for key, value in facts.items()])


@command(bench, "kernels")
def bench_kernels(
    config: tyro.conf.OmitArgPrefixes[KernelBenchConfig], runs: Runs = None, json: Json = False
) -> None:
    """Time the fused projection against the bare product and the naive version, interleaved."""
    run = _run(config, runs, None, fresh=True)
    _report(run, json)


@command(app, "app")
def explorer(
    runs: Runs = None,
    address: Annotated[str, tyro.conf.arg(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, tyro.conf.arg(help="Port to listen on.")] = 8501,
) -> None:
    """Explore stored runs in the browser."""
    found = importlib.util.find_spec("interp.apps.main")
    assert found is not None
    assert found.origin is not None
    root = str(Store(runs).root.resolve())
    options = {"address": address, "port": port, "headless": "true", "fileWatcherType": "none"}
    command = [sys.executable, "-m", "streamlit", "run", found.origin]
    command += [f"--server.{name}={value}" for name, value in options.items()]
    command += ["--browser.gatherUsageStats=false", "--client.toolbarMode=minimal"]
    # in place of this process, so that whoever stops it stops the server
    os.execve(sys.executable, command, os.environ | {"INTERP_RUNS": root})


def _run(study: Study, runs: Path | None, out: Path | None, fresh: bool) -> Run:
    return run_or_load(study, Store(runs), out, fresh)


def _positive(limit: int) -> int:
    if limit < 1:
        raise UserError(f"--limit must be at least 1, not {limit}")
    return limit


def _report(run: Run, json: bool) -> None:
    if json:
        _print_json({"study": run.study, "run": str(run.path), "metrics": run.metrics})
        return
    print(run.path)
    _print_table(["metric", "value"], [[k, str(v)] for k, v in run.metrics.items()])


def _report_rows(run: Run, study: str, rows: pd.DataFrame, json: bool, columns: list[str]) -> None:
    if json:
        # through pandas' own writer: plain numbers instead of numpy's
        results = jsonlib.loads(rows.to_json(orient="records", double_precision=6))
        found = {"metrics": {"rows": len(rows)}, "results": results}
        _print_json({"study": study, "run": str(run.path), **found})
        return
    print(f"{run.config['model']} ({run.path})")
    table = [
        [row["name"], row["side"], *(f"{row[c]:.3g}" for c in columns), _some(row["tokens"])]
        for row in rows.to_dict("records")
    ]
    _print_table(["neuron", "side", *columns, "tokens"], table)


def _some(tokens: Sequence[str]) -> str:
    return " ".join(repr(str(token)) for token in tokens[:6])


def _print_table(head: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False)
    table.columns[-1].no_wrap = True
    for row in rows:
        table.add_row(*map(Text, row))
    # in a pipe there is no width to fit: do not cut what a script will read
    Console(width=None if sys.stdout.isatty() else 240).print(table)


def _print_json(found: dict[str, Any]) -> None:
    print(jsonlib.dumps(found))


def _parse(arguments: Sequence[str] | None) -> Callable[[], None]:
    """The bound command. tyro's boxed complaint becomes one line."""
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            bound: Callable[[], None] = app.cli(
                prog="interp",
                description="A mechanistic interpretability workbench.",
                args=arguments,
            )
    except SystemExit as stop:
        if stop.code == 2:
            raise UserError(_first_sentence(complaint.getvalue())) from stop
        raise
    return bound


def _first_sentence(box: str) -> str:
    """The text of a box up to its first inner rule."""
    body: list[str] = []
    for line in box.splitlines():
        text = line.strip("│ ")
        if text and not set(text) <= set("─╭╮╰╯ ") and not text.startswith("╭"):
            body.append(text)
        elif body:
            break
    return " ".join(body) + " (see --help)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.getLogger("interp").addHandler(handler)
    logging.getLogger("interp").setLevel(logging.INFO)
    try:
        _parse(arguments)()
    except UserError as error:
        print(f"interp: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interp: interrupted; the same command resumes", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0
