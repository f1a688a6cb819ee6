"""The same bits from a process that has just compiled the kernels as from one with a cache."""

import os
import subprocess
import sys

import pytest

PROJECT = """
import hashlib, torch
from interp.kernels import project_topk
from interp.kernels.accuracy import CPU_IMPLS

generator = torch.Generator().manual_seed(0)
for impl in CPU_IMPLS:
    n, d, vocabulary = (600, 32, 6000) if impl == "tiled" else (1024, 256, 9000)
    x, w = torch.randn(n, d, generator=generator), torch.randn(vocabulary, d, generator=generator)
    found = project_topk(x, w, 16, impl=impl)
    parts = [*found.moments, found.top.logits, found.top.logsumexp, found.bottom.entropy]
    print(hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest())
"""


@pytest.mark.slow
def test_fresh_and_cached_code_give_the_same_bits(tmp_path):
    def run():
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", PROJECT], env=environment, check=True, capture_output=True
        ).stdout

    fresh = run()
    assert list(tmp_path.rglob("*.nbi")), "nothing was cached: this test would say nothing"
    assert fresh == run()
    assert fresh
