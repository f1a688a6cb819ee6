"""`interp darkmatter …`"""

from __future__ import annotations

from typing import Any

import tyro
from tyro.extras import SubcommandApp

from ..darkmatter.error_saes import ErrorSaesConfig
from ..darkmatter.ladder import LadderConfig
from ..darkmatter.measure import DarkMatterConfig, PursuitConfig
from ..darkmatter.synthetic import SyntheticConfig
from ..store import Run, Store
from ..study import run_or_load
from .common import Fresh, Json, Out, Runs, command, print_json, print_table, report

darkmatter = SubcommandApp()


@command(darkmatter, "run")
def run(
    config: tyro.conf.OmitArgPrefixes[DarkMatterConfig],
    out: Out = None,
    runs: Runs = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Cut the errors of a site's SAEs into a linear and a nonlinear part, and price both."""
    _shown(run_or_load(config, Store(runs), out, fresh), json)


@command(darkmatter, "pursuit")
def pursuit(
    config: tyro.conf.OmitArgPrefixes[PursuitConfig],
    out: Out = None,
    runs: Runs = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """The same with every SAE's latents also found by gradient pursuit instead of its encoder."""
    _shown(run_or_load(config, Store(runs), out, fresh), json)


@command(darkmatter, "synthetic")
def synthetic(
    config: tyro.conf.OmitArgPrefixes[SyntheticConfig],
    out: Out = None,
    runs: Runs = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Plant absent features and noise in an SAE's output: which does the regression call linear?"""
    _shown(run_or_load(config, Store(runs), out, fresh), json)


@command(darkmatter, "errors")
def errors(
    config: tyro.conf.OmitArgPrefixes[ErrorSaesConfig],
    out: Out = None,
    runs: Runs = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Train an SAE on the linear and one on the nonlinear error of an SAE."""
    report(run_or_load(config, Store(runs), out, fresh), json)


@command(darkmatter, "ladder")
def ladder(
    config: tyro.conf.OmitArgPrefixes[LadderConfig],
    out: Out = None,
    runs: Runs = None,
    fresh: Fresh = False,
    json: Json = False,
) -> None:
    """Train SAEs of several widths and sparsities on one site; the same command again resumes."""
    report(run_or_load(config, Store(runs), out, fresh), json)


def _shown(made: Run, json: bool) -> None:
    from ..darkmatter.results import summary

    table = summary(made.path)
    if json:
        rows: Any = table.to_dict("records")
        both = {"study": made.study, "run": str(made.path), "metrics": made.metrics}
        print_json({**both, "saes": rows})
        return
    print(made.path)
    kept = [name for name in table.columns if "corrected" not in name]
    rows = [[row[0], *(f"{value:.3f}" for value in row[1:])] for row in table[kept].to_numpy()]
    print_table(kept, rows)
    seconds = made.manifest["seconds"]
    print("seconds:", ", ".join(f"{name} {value:g}" for name, value in seconds.items()))
