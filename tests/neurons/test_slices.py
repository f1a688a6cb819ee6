"""Wide layers in slices: every neuron once, the same rows, and memory that does not grow."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interp.model.places import Bank
from interp.neurons import atlas as module
from interp.neurons.atlas import AtlasConfig
from interp.neurons.slices import slices
from interp.runs.store import Store
from interp.runs.study import run_or_load

BANKS = st.one_of(
    st.builds(lambda n: [Bank("", n)], st.integers(1, 60)),
    st.builds(
        lambda n, m, k: [*(Bank(f"e{i}", n, i) for i in range(k)), Bank("shared", m)],
        *(st.integers(1, 12), st.integers(1, 60), st.integers(1, 6)),
    ),
)
KINDS = st.sampled_from([("up", "down"), ("up", "gate", "down"), ("gate",)])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(BANKS, KINDS, st.integers(1, 9), st.integers(0, 50), st.integers(1, 400))
def test_every_vector_once_and_no_slice_too_large(banks, kinds, width, random, most):
    found = slices(banks, kinds, width, random, most)
    seen = [
        (piece.expert, kind, neuron)
        for part in found
        for piece in part.pieces
        for kind in piece.kinds
        for neuron in range(piece.start, piece.stop)
    ]
    every = [(bank.expert, kind, i) for bank in banks for kind in kinds for i in range(bank.size)]
    assert sorted(seen) == sorted(every)
    for part in found:
        assert part.vectors * width <= most or part.vectors == 1
    for kind in kinds:
        drawn = [
            count
            for part in found
            for piece, count in zip(part.pieces, part.random, strict=True)
            if kind in piece.kinds
        ]
        assert sum(drawn) == random
        assert max(drawn) - min(drawn) <= 1
    for one, two in itertools.pairwise(found):
        assert (one.vectors + two.pieces[0].vectors) * width > most, "no slice too many"


@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_the_rows_are_those_of_one_slice(family, model_folder, own_home, tmp_path, monkeypatch):
    config = AtlasConfig(model=str(model_folder(family)), k=8, random=64)
    whole = run_or_load(config, Store(tmp_path / "whole"))
    monkeypatch.setattr(module, "NUMBERS", config.stored_weights.spec.d_model * 20)
    cut = run_or_load(config, Store(tmp_path / "cut"))
    assert len(cut.below("neurons")) > 2 * len(whole.below("neurons"))
    keys = ["layer", "kind", *["expert"] * (family == "qwen3_moe"), "neuron", "side"]
    one, two = (run.table("neurons").sort_values(keys, ignore_index=True) for run in (whole, cut))
    for name in [*keys, "ids", "tokens"]:
        assert one[name].map(str).equals(two[name].map(str)), name
    for name in ["z", "std", "margin", "coherence", "skewness", "kurtosis", "norm"]:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-5, atol=1e-6)
    assert cut.table("random").groupby(["kind", "side"]).size().eq(64).all()
    drawn, rows = cut.table("random"), two.set_index(keys)["norm"]
    lengths = rows[list(drawn[keys].itertuples(index=False))]
    np.testing.assert_allclose(drawn["norm"], lengths, rtol=1e-6)
    indexed = cut.table("index/rows")[keys].map(str)
    assert indexed.equals(cut.table("neurons")[keys].map(str)), "in the order of the files"
