"""`interp bench …`"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tyro
from tyro.extras import SubcommandApp

from ..bench.kernels import KernelBenchConfig
from ..runs.store import Store
from ..runs.study import run_or_load
from .common import Json, Runs, command, print_table, report

if TYPE_CHECKING:
    import pandas as pd

bench = SubcommandApp()


@command(bench, "kernels")
def bench_kernels(
    config: tyro.conf.OmitArgPrefixes[KernelBenchConfig], runs: Runs = None, json: Json = False
) -> None:
    """Time the fused projection against the bare product and the naive version, interleaved."""
    run = run_or_load(config, Store(runs), fresh=True)
    if json:
        report(run, json)
        return
    print(run.path)
    rows = run.table("summary/variants")
    columns = ["shape", "variant", "ratio", "ratio_min", "ratio_max", "ratio_cpu", "job_s"]
    print_table([*columns, "missing"], _cells(rows, columns))
    for shape, found in run.metrics["shapes"].items():
        print_table([shape, ""], [[name, str(value)] for name, value in found.items()])


def _cells(rows: pd.DataFrame, numbers: list[str]) -> list[list[str]]:
    names = rows[["shape", "variant"]].to_numpy().tolist()
    values = rows[numbers[2:]].map(lambda x: f"{x:.3g}").to_numpy().tolist()
    return [[*a, *b, c] for a, b, c in zip(names, values, rows["missing"], strict=True)]
