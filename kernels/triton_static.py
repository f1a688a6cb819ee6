"""`python -m interp.kernels.triton_static`: the GPU kernels compiled for sm_90, without a GPU.

Prints one JSON object: kernel -> registers, stack (bytes a thread, where spills go), hgmma (calls
of the tensor cores in the machine code), shared (bytes a block). Nothing is run.
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

TYPES = {"x_ptr": "*bf16", "w_ptr": "*bf16", "bins_ptr": "*i32"}
POINTERS = "*fp32"
"""Type of the other pointers; what is no pointer is an i32 or a constant."""
FUSED = {"M": 128, "K": 64, "BAND": 12, "STATS": True, "UPCAST": False}


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
        "shared": int(made.metadata.shared),
    }


def _said(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


def main() -> None:
    found = {
        f"fused d={d}": compile_for_hopper(
            fused_kernel, {"D": d, **FUSED}, num_warps=8, num_stages=3
        )
        for d in (576, 4096)
    }
    found["scan"] = compile_for_hopper(scan_kernel, {"M": 16, "STATS": True}, num_warps=4)
    sys.stdout.write(json.dumps({**found}) + "\n")


if __name__ == "__main__":
    main()
