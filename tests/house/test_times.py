"""The log of what each test costs."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[2] / "conftest.py"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child counts when it has ended")
def test_a_process_counts_as_it_spends(pytestconfig: pytest.Config) -> None:
    """One begun by a process of this one is charged to the test that runs."""
    plugins = pytestconfig.pluginmanager.get_plugins()
    (times,) = (p for p in plugins if getattr(p, "__file__", None) == str(CONFTEST))
    before, here = times._processor(), time.process_time()
    nested = subprocess.Popen(["sh", "-c", "(while :; do :; done) & echo $!; wait"], stdout=-1)
    try:
        busy = nested.stdout.readline().decode().strip()  # type: ignore[union-attr]
        deadline = time.monotonic() + 120
        while times._processor() - before < 0.3 + time.process_time() - here:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        subprocess.run(["kill", busy], check=True)
        nested.communicate()
    after = times._processor() - before - (time.process_time() - here)
    assert 0.3 <= after < 30, "it counts once, and once it has ended it still does"
