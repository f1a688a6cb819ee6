"""How many tokens a linear map needs, and what is said of a run that has fewer."""

import numpy as np
import pytest

from interp.darkmatter.enough import cautions, too_few
from interp.runs.disk import sha256
from interp.runs.store import Store, open_run
from interp.saes.excess import excess

from ..manifests import seal_again
from .planted import stored_runs


@pytest.mark.parametrize("tokens", [60, 120])
def test_the_excess_is_that_of_least_squares(tokens):
    """Noise that 20 inputs say nothing of, fitted 3,000 times; the best map leaves 1."""
    inputs, rng = 20, np.random.default_rng(0)
    left = []
    for _ in range(3000):
        x = rng.normal(size=(tokens, inputs))
        y = rng.normal(size=tokens)
        slope = np.linalg.lstsq(x - x.mean(0), y - y.mean(), rcond=None)[0]
        # of other tokens: their own noise, the slopes' error and the intercept's
        left.append(1 + slope @ slope + (y.mean() - x.mean(0) @ slope) ** 2)
    assert np.mean(left) - 1 == pytest.approx(excess(tokens, inputs), rel=0.05)


def test_what_is_said_of_few_tokens():
    assert too_few(1229, 576) == (
        "1,229 tokens fit maps of 576 inputs: the nonlinear parts come out too large, by 89 % or "
        "more; give --tokens 17000 or more"
    )
    assert "by far" in too_few(100, 576)
    assert not too_few(int(0.4 * 17000), 576)
    assert not too_few(700, 576, ridge=0.1)
    assert too_few(500, 576, ridge=0.1), "no ridge stands for tokens that are not there"


def test_a_map_that_is_worse_than_none(own_home):
    run, _ = stored_runs(Store())
    assert not cautions(run)
    measures = run.table("measures")
    worse = (measures["sae"] == "w1-k8") & (measures["measure"] == "r2_vector_weighted")
    measures.loc[worse, "value"] = -0.74
    path = run.path / "measures.parquet"
    measures.to_parquet(path)
    about = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    files = run.manifest["files"] | {path.name: about}
    fitted = {"tokens": 1229, "inputs": 576}
    seal_again(run.path, run.manifest | {"files": files, "fitted": fitted})
    first, second = cautions(open_run(run.path))
    assert first.startswith("r² is below 0 for 1 of 2 (-0.74 for w1-k8)")
    assert first.endswith("so the two parts mean nothing")
    assert second == too_few(1229, 576)
