"""`interp bench …`"""

from __future__ import annotations

import tyro
from tyro.extras import SubcommandApp

from ..bench.kernels import KernelBenchConfig, ShapeName
from ..errors import UserError
from ..runs.store import Store
from ..runs.study import run_or_load
from .common import (
    Flag,
    Json,
    Runs,
    answered,
    command,
    positive,
    print_markdown,
    print_table,
    say,
    with_table,
)

COLUMNS = "shape variant ratio ratio_min ratio_max ratio_cpu job_s missing"
HEAD = ["page", "what", "beside", "ratio", "from", "to", "processor"]
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


@command(bench, "all")
def bench_all(
    model: str = "smollm2-135m",
    repeats: int = 9,
    only: tuple[str, ...] = (),
    shape: tuple[ShapeName, ...] = ("smollm2-135m",),
    markdown: Flag = False,
    json: Json = False,
) -> None:
    """Measure every speed that the docs state as a ratio, ours and the bare work in turns.

    Args:
        model: A catalog name, hub id or folder: of what the analyses do.
        repeats: Turns of each; the medians, smallest and largest ratios are printed.
        only: Analyses to measure (bench: the kernels); by default all that have speeds.
        shape: The kernels' shapes.
        markdown: Print a table of the docs.
    """
    from ..analyses import analyses, load
    from ..bench.machine import described
    from ..bench.ratios import measured

    sources = {entry.name: entry.speeds for entry in analyses().values() if entry.speeds}
    if unknown := set(only) - {*sources, "bench"}:
        there = ", ".join(("bench", *sources))
        raise UserError(f"'{min(unknown)}' has no speeds: give some of {there}")
    positive(repeats, "--repeats")
    chosen = {name: load(where) for name, where in sources.items() if not only or name in only}
    kernels = KernelBenchConfig(shape, repeats=repeats) if not only or "bench" in only else None
    machine = described()
    ratios = list(measured(chosen, kernels, model, repeats))
    metrics = {row.what: row.ratio for row in ratios if not row.missing}
    rows = [row._asdict() for row in ratios]
    if answered(json, "bench.all", metrics, machine=machine, ratios=rows):
        return
    show = print_markdown if markdown else print_table
    show(["machine", ""], [list(pair) for pair in machine.items()])
    show(HEAD, [[*row[:3], *map(_digits, row[3:7])] for row in ratios if not row.missing])
    for row in ratios:
        if row.missing:
            say(f"{row.what}: {row.missing}")


def _digits(ratio: float) -> str:
    return f"{ratio:.3g}"
