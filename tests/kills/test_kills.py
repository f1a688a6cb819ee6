"""Every study that can be resumed, killed: it ends with what an unbroken run leaves.

`make test` kills one study a few times, `make test-all` each of them, and one at its every step. A
failure names its seed: `Killing(server, STUDIES[name], folder).trial(seed)` repeats it.
"""

import pytest

from ..fuzz.harness import Server
from .harness import CHILD, Killing
from .studies import HEAVY, STUDIES

FEW = 3
"""Trials of the quick study in `make test`."""
QUICK = "knob.data"
"""Half a second, with pieces and a part."""


@pytest.fixture(scope="module")
def heavy():
    made = Server(CHILD, *HEAVY)
    yield made
    made.close()


def killed(server, name: str, seeds, folder) -> None:
    killing = Killing(server, STUDIES[name], folder)
    for seed in seeds:
        killing.trial(seed)
    print(f"{name}: {killing.counts}")
    assert killing.counts.kills.total() >= len(seeds) // 2
    if STUDIES[name].over:
        assert killing.counts.kept == killing.counts.redone


def test_a_few(server, tmp_path):
    killed(server, QUICK, range(FEW), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_each_study(name, heavy, tmp_path):
    killed(heavy, name, range(STUDIES[name].trials), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("fresh", [False, True])
def test_each_step(fresh, server, tmp_path):
    """Of a run, and of one that takes the place of another."""
    killing = Killing(server, STUDIES[QUICK], tmp_path)
    step = 1
    while killing.killed_at(step, fresh):
        step += 1
    print(f"{QUICK}, every step: {killing.counts}")
    assert step - 1 > killing.steps if fresh else step - 1 == killing.steps
