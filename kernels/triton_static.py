"""`python -m interp.kernels.triton_static`: the GPU kernels compiled for sm_90, without a GPU.

Prints one JSON object: kernel -> registers, stack (bytes a thread, where spills go), hgmma (calls
of the tensor cores in the machine code), spilled_inside (loads and stores of spilled registers in
the loop that has the calls), shared (bytes a block). Nothing is run.
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

from .triton_bins import fused_kernel, scan_kernel
from .triton_dots import BLOCK, INNER, dots_kernel

TYPES = {
    **{"x_ptr": "*bf16", "w_ptr": "*bf16", "bins_ptr": "*i32"},
    **{"rows_ptr": "*i64", "ids_ptr": "*i64", "out_ptr": "*fp64"},
}
POINTERS = "*fp32"
"""Type of the other pointers; what is no pointer is an i32 or a constant."""
FUSED = {"M": 128, "K": 64, "BAND": 12, "UPCAST": False}
ONES = {"n": 1, "vocabulary": 1, "tiles": 1}
"""Triton makes an argument of 1 a constant: other code, which has to compile too."""


def compile_for_hopper(kernel: Any, constants: dict[str, Any], **options: int) -> dict[str, int]:
    names = kernel.arg_names
    pointers = {n: TYPES.get(n, POINTERS) for n in names if n.endswith("_ptr")}
    kinds = {n: pointers.get(n, "constexpr" if n in constants else "i32") for n in names}
    source = ASTSource(
        fn=kernel,
        signature=kinds,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in pointers},
    )
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    tools = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage = _said(tools / "cuobjdump", "--dump-resource-usage", file.name)
        code = _said(tools / "nvdisasm", file.name)
    numbers = dict(part.split(":") for part in usage.split() if part.count(":") == 1)
    return {
        "registers": int(numbers["REG"]),
        "stack": int(numbers["STACK"]),
        "hgmma": code.count("HGMMA"),
        "spilled_inside": _spilled_inside(code),
        "shared": int(made.metadata.shared),
    }


def _spilled_inside(code: str) -> int:
    """Local loads and stores between the first and the last HGMMA, and around them to the ends of
    their loop. (Short loops over d come unrolled; the loop over tiles, which writes, is not meant.)
    """
    before, *between, after = code.split("HGMMA") if "HGMMA" in code else ("", "")
    label, _, start = before.rpartition("\n.L_")[2].partition(":")
    end, _, target = after.partition("BRA")
    looped = f"(.L_{label})" in target.split(";")[0] and "STG" not in end
    inside = "".join([start, *between, end] if looped else between)
    return inside.count("LDL") + inside.count("STL")


def _said(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


def main() -> None:
    hopper: dict[str, int] = {"num_warps": 8, "num_stages": 3}
    found = {}
    for name, columns in (("fused", 128), ("wide", 256)):
        for d in (576, 4096):
            constants = {"D": d, "N": columns, **FUSED, "STATS": True}
            found[f"{name} d={d}"] = compile_for_hopper(fused_kernel, constants, **hopper)
    plain = {"D": 4096, "N": 256, **FUSED, "STATS": False}
    found["wide d=4096 without statistics"] = compile_for_hopper(fused_kernel, plain, **hopper)
    single = {"D": 123, "N": 128, **FUSED, "STATS": True, **ONES}
    found["fused, sizes of 1"] = compile_for_hopper(fused_kernel, single, **hopper)
    scan = {"M": 16, "N": 128, "STATS": True}
    found["scan"] = compile_for_hopper(scan_kernel, scan, num_warps=4)
    found["scan, sizes of 1"] = compile_for_hopper(scan_kernel, {**scan, **ONES}, num_warps=4)
    dots = {"D": 4096, "C": BLOCK, "K": INNER}
    found["dots"] = compile_for_hopper(dots_kernel, dots, num_warps=4)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
