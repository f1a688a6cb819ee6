"""The GPU kernels compiled for sm_90 where there is no GPU: registers and spills.

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
    """kernel -> registers, stack (bytes), shared memory."""
    quiet = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "interp.kernels.triton_static"]
    done = subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_no_kernel_spills(compiled):
    assert len(compiled) == 9
    for name, found in compiled.items():
        assert found["stack"] == 0, (name, found)
        assert found["registers"] <= 168, (name, found)
        assert found["shared"] <= 16 * 1024, (name, found)
