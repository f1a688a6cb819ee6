"""Damaged files of every kind that people open: an answer or one line, never anything else."""

import pytest

from .harness import Target, fuzz
from .targets import TARGETS

FEW, MANY = 4, 10_000
"""Inputs: of each target in `make test`, and of all together in `make test-all`."""


def counted(server, target: Target, seeds, folder) -> None:
    counts = fuzz(server, target, seeds, folder)
    print(f"{target.name}: {counts}")
    assert not counts.bad, f"{len(counts.bad)} of {len(seeds)}: {counts}\n" + "\n".join(
        counts.bad[:20]
    )


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_few(target, server, tmp_path):
    counted(server, target, range(FEW), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_many(target, server, tmp_path):
    counted(server, target, range(FEW, FEW + -(-MANY // len(TARGETS))), tmp_path)
