"""The machine that something is measured on, in words."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
"""What decides which products are fast."""
PACKAGES = ("torch", "numpy", "numba", "transformers")


def described() -> dict[str, str]:
    """Its processor, what that can do, its cores and how busy they are, threads and versions."""
    import torch

    about = _processor()
    found = about.get("flags", about.get("Features", "")).split()
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return {
        "processor": about.get("model name", platform.processor() or platform.machine()),
        "features": " ".join(name for name in FEATURES if name in found)
        or "none of those looked for",
        "cores": f"{own} of {os.cpu_count()}",
        "load": f"{load:.1f} as it began",
        "threads": str(torch.get_num_threads()),
        "versions": ", ".join(
            [
                f"Python {platform.python_version()}",
                *(f"{p} {metadata.version(p)}" for p in PACKAGES),
            ]
        ),
    }


def _processor() -> dict[str, str]:
    """What Linux says of the first core; nothing elsewhere."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return {}
    first = file.read_text().partition("\n\n")[0]
    return {
        key.strip(): value.strip()
        for key, _, value in (x.partition(":") for x in first.splitlines())
    }
