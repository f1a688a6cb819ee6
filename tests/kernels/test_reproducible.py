"""The same bits from a process that has just compiled the kernels as from one with a cache."""

import os
import subprocess
import sys

PROJECT = """
import hashlib, torch
from interp.kernels import project_topk

generator = torch.Generator().manual_seed(0)
for impl, (n, d, vocabulary) in {"tiled": (600, 32, 6000), "screened": (1024, 256, 9000)}.items():
    x, w = torch.randn(n, d, generator=generator), torch.randn(vocabulary, d, generator=generator)
    if impl == "screened":
        from interp.kernels.screened import sound
        if not sound():
            continue
    found = project_topk(x, w, 16, impl=impl)
    parts = [*found.moments, found.top.logits, found.top.logsumexp, found.bottom.entropy]
    print(hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest())
"""


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
