"""The GPU kernels compiled for sm_90 where there is no GPU: registers, spills, tensor-core calls.

In a process of its own: the interpreter of `test_triton.py` must not be on.
"""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed: pip install -e '.[gpu]'",
)


@pytest.fixture(scope="module")
def compiled():
    """kernel -> registers, stack (bytes), hgmma, spilled_inside, shared memory."""
    quiet = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "interp.kernels.triton_static"]
    done = subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["fused d=4096", "fused d=576", "wide d=4096", "wide d=576"])
def test_the_fused_kernel_uses_the_tensor_cores(compiled, name):
    found = compiled[name]
    assert found["hgmma"] >= 4, found
    assert found["registers"] <= 255
    # one block of 8 warps and its stages must fit a multiprocessor
    assert found["shared"] <= 227 * 1024


def test_what_is_spilled(compiled):
    """In the loop over d nothing, and where it comes unrolled (d = 576) at most 16 words a tile.
    After it, up to 26 words with tiles of 128 columns; with 256, for the statistics only, more."""
    for name, found in compiled.items():
        assert found["spilled_inside"] <= (16 if "d=576" in name else 0), (name, found)
        if not name.startswith("wide d"):
            assert found["stack"] <= (128 if name.startswith("fused") else 0), (name, found)
    assert compiled["wide d=4096 without statistics"]["stack"] == 0
