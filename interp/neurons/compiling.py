"""An atlas's kernels, compiled before it opens anything: `python -m interp.neurons.compiling`.

In a process of its own: LLVM never gives back some .2 GiB that it compiles with, and what a worker
is said to take (`memory.py`) has no room for that.
"""

from __future__ import annotations

from pathlib import Path

import torch

from interp import kernels
from interp.compiled import mark_of
from interp.kernels.project import project_topk
from interp.kernels.screened import best_format

from ..model.building import run_helper
from ..progress import log, waiting


def compile_apart() -> None:
    """See that this machine keeps the kernels compiled; the first time that takes 20 s."""
    mark = _mark()
    if mark is None or mark.exists():
        return
    with waiting("compiling the kernels for this processor, once"):
        done = run_helper(["interp.neurons.compiling"])
    if done.returncode:
        log.warning("the kernels were not compiled apart: this process compiles its own")


def _mark() -> Path | None:
    return mark_of(Path(kernels.__file__).parent)


def main() -> None:
    numbers, mark = best_format(), _mark()
    vectors, readout = torch.randn(8, 64), torch.randn(512, 64)
    project_topk(vectors, readout, impl=numbers.name if numbers else "tiled")  # type: ignore[arg-type]
    if mark:
        mark.touch()


if __name__ == "__main__":
    main()
