"""Ids of every CPU path against float64: all kinds of data, odd shapes, scales from 1e-30 to 1e30,
alone and mixed within one call. `pytest -m slow` goes through all of them."""

from itertools import product

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from interp.kernels import project_topk
from interp.kernels.data import KINDS

from .paths import MIXES, at_every_scale, check, every_path

WIDTHS = (1, 7, 63, 65)
SHAPES = ((1, 1), (1, 130), (3, 577), (17, 1031), (2, 4099))
"""Vectors and tokens."""
KEPT = (1, 2, 16, 100, 511, 512)


@every_path
@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    mix=st.sampled_from(sorted(MIXES)),
    n=st.integers(1, 40),
    vocabulary=st.integers(1, 2100),
    d=st.sampled_from(WIDTHS) | st.integers(1, 200),
    k=st.integers(1, 512),
    seed=st.integers(0, 10**6),
)
@example(kind="gaussian", mix="tokens", n=5, vocabulary=60, d=7, k=60, seed=0)
@example(kind="near-ties", mix="numbers", n=1, vocabulary=577, d=65, k=512, seed=0)
def test_ids_at_every_scale(
    impl: str, kind: str, mix: str, n: int, vocabulary: int, d: int, k: int, seed: int
) -> None:
    operands = at_every_scale(kind, mix, n, vocabulary, d, seed)
    check(*operands, min(k, vocabulary), impl, stats=seed % 2 == 0)


@pytest.mark.slow
@every_path
def test_every_kind_scale_and_shape(impl: str) -> None:
    for seed, (kind, mix, d, (n, vocabulary)) in enumerate(product(KINDS, MIXES, WIDTHS, SHAPES)):
        operands = at_every_scale(kind, mix, n, vocabulary, d, seed)
        for k in sorted({min(k, vocabulary) for k in KEPT}):
            check(*operands, k, impl, stats=k % 2 == 0)


@every_path
@pytest.mark.parametrize(
    ("kind", "n", "vocabulary", "d"),
    [
        ("gaussian", 1300, 2100, 64),
        # rows searched again, and a single one whose statistics are computed again
        pytest.param("near-ties", 1, 40_001, 65, id="a row in doubt"),
        pytest.param("duplicated", 700, 3100, 96, id="rows searched again"),
    ],
)
def test_the_same_bits_on_any_number_of_threads(
    impl: str, kind: str, n: int, vocabulary: int, d: int
) -> None:
    x, w = KINDS[kind](n, vocabulary, d, 0)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(project_topk(x, w, 16, impl=impl))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        for one, another in zip(found[0][:3], other[:3], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, another, strict=True))
