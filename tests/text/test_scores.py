"""Statistics and scores of sites against brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import UserError
from interp.kernels import Statistics
from interp.kernels import scores as kernel
from interp.text.stream import project_scores, stream
from interp.text.stream import statistics as site_statistics

from .conftest import HEADS, RESID, close, places


class TestStatistics:
    def test_equals_torch_on_the_concatenation(self, subject, rows):
        sites = [RESID, HEADS]
        batches = list(stream(subject, rows, sites, 4))
        found = site_statistics(subject, rows, sites, second_moment=True, batch_size=4)
        for site in sites:
            x = torch.cat([batch[site] for batch in batches]).double()
            _same(found[site], x)
            assert found[site].mean.shape == x.shape[1:]

    @settings(max_examples=60, deadline=None)
    @given(
        sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8),
        seed=st.integers(0, 2**16),
        offset=st.sampled_from([0.0, 3.0, 1e6]),
        order=st.randoms(use_true_random=False),
    )
    def test_any_split_merges_to_the_same(self, sizes, seed, offset, order):
        x = torch.randn(sum(sizes), 3, generator=torch.Generator().manual_seed(seed)).double()
        x[:, 1] += offset
        parts = [Statistics.of(part, second_moment=True) for part in x.split(sizes)]
        while len(parts) > 1:
            two = [parts.pop(order.randrange(len(parts))) for _ in range(2)]
            parts.append(two[0].merge(two[1]))
        _same(parts[0], x)

    def test_far_from_zero(self):
        """Where the sum of squares would lose every digit."""
        x = torch.randn(1000, 2).double() + 1e8
        merged = Statistics.of(x[:300]).merge(Statistics.of(x[300:]))
        torch.testing.assert_close(merged.var, x.var(0, correction=0), rtol=1e-6, atol=0)

    def test_mistakes(self):
        with pytest.raises(ValueError, match="no vectors"):
            Statistics.of(torch.zeros(0, 3))
        with pytest.raises(ValueError, match="second_moment=True"):
            _ = Statistics.of(torch.zeros(2, 3)).second_moment


def _same(found, x):
    near = {"atol": 1e-10, "rtol": 1e-10}
    assert found.count == len(x)
    torch.testing.assert_close(found.mean, x.mean(0), **near)
    torch.testing.assert_close(found.var, x.var(0, correction=0), **near)
    flat = x.flatten(1)
    torch.testing.assert_close(found.second_moment, flat.T @ flat / len(x), **near)
    apart = flat - flat.mean(0)
    torch.testing.assert_close(found.covariance, apart.T @ apart / len(x), **near)


class TestScores:
    @pytest.fixture(scope="class")
    def directions(self):
        generator = torch.Generator().manual_seed(1)
        made = {RESID: torch.randn(5, 32, generator=generator)}
        made[HEADS] = torch.randn(3, 32, generator=generator)
        made[RESID][4] = 0  # every token ties
        return made

    @pytest.mark.parametrize("chunk", [2, 1024])
    def test_equals_brute_force(self, subject, rows, directions, chunk, monkeypatch):
        monkeypatch.setattr(kernel, "CHUNK", chunk)
        found = project_scores(subject, rows, directions, keep_top=6, batch_size=4, special=True)
        batches = list(stream(subject, rows, list(directions), 4))
        where = torch.tensor(places(rows))
        for site, vectors in directions.items():
            x = torch.cat([batch[site] for batch in batches]).flatten(1)
            scores, ours = vectors @ x.T, found[site]
            close(ours.top, scores.topk(6).values)
            close(ours.smallest, scores.amin(1))
            close(ours.largest, scores.amax(1))
            moments = scores.double()
            close(ours.statistics.mean, moments.mean(1))
            close(ours.statistics.var, moments.var(1, correction=0))
            at = torch.stack([ours.rows, ours.positions], -1)
            for direction in range(len(vectors)):
                order = scores[direction].sort(descending=True, stable=True).indices[:6]
                close(scores[direction][_index(where, at[direction])], scores[direction][order])
        assert found[RESID].statistics.count == len(where)

    def test_ties_come_in_the_order_of_the_rows(self, subject, rows, directions):
        found = project_scores(subject, rows, directions, keep_top=9, batch_size=4, special=True)[
            RESID
        ]
        tied = torch.stack([found.rows[4], found.positions[4]], 1)
        assert tied.tolist() == [list(place) for place in places(rows)[:9]]
        # one row again and again, in equal batches: equal scores up to the last bit
        again = project_scores(
            subject, [rows[0]] * 12, directions, keep_top=5, batch_size=3, special=True
        )
        assert again[RESID].rows[:4].tolist() == [[0, 1, 2, 3, 4]] * 4
        assert (again[RESID].positions[:4] == again[RESID].positions[:4, :1]).all()

    @given(
        scores=st.lists(
            st.sampled_from([-0.0, 0.0, 1.5, -1.5, 2.0**-140, -1e30, 3e38]), min_size=1, max_size=40
        ),
        keep=st.integers(1, 50),
    )
    def test_best_is_a_stable_sort(self, scores, keep):
        row = np.array([scores, scores], dtype=np.float32)
        columns = torch.arange(len(scores)).expand(2, -1)
        top, at, again = kernel._best(torch.from_numpy(row), columns, columns, keep)
        want = np.argsort(-row, axis=1, kind="stable")[:, :keep]
        assert at.tolist() == want.tolist() == again.tolist()
        assert top.tolist() == np.take_along_axis(row, want, 1).tolist()

    def test_fewer_tokens_than_are_kept(self, subject, directions):
        found = project_scores(subject, [[1, 2], [3]], directions, 10, special=True)[HEADS]
        assert found.top.shape == (3, 3)

    def test_mistakes(self, subject, rows, directions):
        with pytest.raises(UserError, match=r"0.resid_post, .*directions of 5 numbers do not fit"):
            project_scores(subject, rows, {RESID: torch.ones(2, 5)})
        with pytest.raises(UserError, match="keep at least 1"):
            project_scores(subject, rows, directions, keep_top=0)
        with pytest.raises(
            UserError, match="rows 0 to 7: a score is not finite: compute in float32"
        ):
            project_scores(subject, rows, {RESID: torch.full((1, 32), float("inf"))})


def _index(where, at):
    """Positions in `where` of the places `at`."""
    return [(where == place).all(1).nonzero().item() for place in at]
