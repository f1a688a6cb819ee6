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
    """kernel -> registers, spills (bytes of stack), hgmma, shared memory."""
    quiet = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "interp.kernels.triton_static"]
    done = subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_fused_kernel_uses_the_tensor_cores(compiled):
    for name in ("fused d=4096", "fused d=576"):
        found = compiled[name]
        assert found["hgmma"] >= 4, found
        assert found["registers"] <= 255
        # one block of 8 warps and its stages must fit a multiprocessor
        assert found["shared"] <= 227 * 1024


def test_hardly_anything_is_spilled(compiled):
    """None at all with triton 3.6; up to 26 words a tile, outside the inner loop, with 3.9."""
    for name, found in compiled.items():
        assert found["stack"] <= (128 if name.startswith("fused") else 0), (name, found)
