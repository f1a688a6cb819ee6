"""`python -m interp.kernels.triton_static`: the GPU kernels compiled for sm_90, without a GPU.

Prints one JSON object: kernel -> registers, stack (bytes a thread, where spills go) and shared
(bytes a block). Nothing is run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from . import triton_scan as scan
from . import triton_select as select
from .triton_lengths import lengths_kernel

POINTERS = {
    **dict.fromkeys(("x_ptr", "w_ptr", "rounded_ptr"), "*bf16"),
    **dict.fromkeys(("list_ptr", "listed_ptr", "ids_ptr", "count_ptr"), "*i32"),
    **dict.fromkeys(
        ("length_ptr", "loss_ptr", "dot_ptr", "mean_ptr", "factor_ptr", "best_ptr", "along_ptr"),
        "*fp64",
    ),
    **dict.fromkeys(("error_ptr", "scores_ptr", "merged_ptr", "out_logits_ptr"), "*fp64"),
    "out_ids_ptr": "*i64",
}
"""Other pointers are to float32."""
NUMBERS = {"least": "fp32"}
"""Everything else is an i32 or a constant."""
ONES = {"vocabulary": 1, "tiles": 1}
"""Triton makes an argument of 1 a constant, which gives other code that has to compile too."""


def compile_for_hopper(kernel: Any, constants: dict[str, Any], **options: int) -> dict[str, int]:
    names = kernel.arg_names
    pointers = {n: POINTERS.get(n, "*fp32") for n in names if n.endswith("_ptr")}
    kinds = {
        n: pointers.get(n, "constexpr" if n in constants else NUMBERS.get(n, "i32")) for n in names
    }
    aligned = [*pointers, *({"stride"} & set(names))]
    source = ASTSource(
        fn=kernel,
        signature=kinds,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    tools = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [str(tools / "cuobjdump"), "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers = dict(part.split(":") for part in usage.split() if part.count(":") == 1)
    return {
        "registers": int(numbers["REG"]),
        "stack": int(numbers["STACK"]),
        "shared": int(made.metadata.shared),
    }


def main() -> None:
    bins = {"RUNS": scan.RUNS, "WIDTH": scan.WIDTH, "RUN": scan.RUN}
    kernels: dict[str, tuple[Any, dict[str, Any], dict[str, int]]] = {
        "lengths": (lengths_kernel, {"D": 4096, "K": 256, "EXACT": False}, {"num_warps": 1}),
        "scan": (scan.scan_kernel, {**bins, "STATS": True}, scan.OPTIONS),
        "scan, sizes of 1": (scan.scan_kernel, {**bins, "STATS": True, **ONES}, scan.OPTIONS),
        "merge": (scan.merge_kernel, {"TILES": 128}, {"num_warps": 1}),
        "levels": (select.levels_kernel, {"GROUPS": 128, "STEP": 2048}, {"num_warps": 1}),
        "candidates": (select.candidates_kernel, {**bins, "PART": select.BINS}, {"num_warps": 1}),
        "dots": (
            select.dots_kernel,
            {"D": 4096, "C": select.BLOCK, "K": select.INNER, "RUN": select.RUN},
            {"num_warps": 4},
        ),
        "correct": (scan.correct_kernel, {"PART": select.PART}, {"num_warps": 1}),
        "rank": (select.rank_kernel, {"C": 64, "PART": select.PART}, {"num_warps": 4}),
    }
    resources = {
        name: compile_for_hopper(kernel, constants, **options)
        for name, (kernel, constants, options) in kernels.items()
    }
    sys.stdout.write(json.dumps(resources) + "\n")


if __name__ == "__main__":
    main()
