"""`interp bench …`"""

from __future__ import annotations

import tyro
from tyro.extras import SubcommandApp

from ..bench.kernels import KernelBenchConfig
from ..runs.store import Store
from ..runs.study import run_or_load
from .common import Json, Runs, answered, command, print_table, say, with_table

COLUMNS = "shape variant ratio ratio_min ratio_max ratio_cpu job_s missing"
bench = SubcommandApp()


@command(bench, "kernels")
def bench_kernels(
    config: tyro.conf.OmitArgPrefixes[KernelBenchConfig], runs: Runs = None, json: Json = False
) -> None:
    """Time the fused projection against the bare product and the naive version, interleaved."""
    run = run_or_load(config, Store(runs), fresh=True)
    if answered(json, run.study, run.metrics, run.path):
        return
    say(run.path)
    for shape, metrics in run.metrics["shapes"].items():
        print_table([shape, ""], [[name, str(value)] for name, value in metrics.items()])
    with_table("summary/variants", COLUMNS)(run)
