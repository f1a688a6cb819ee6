"""Streams, activation sets, statistics and scores, each against the naive whole capture."""

import gc
import json
import os
import statistics as stdlib_statistics
import time
import weakref
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file

from interp import edits
from interp.activation_sets import ActivationSet, collect
from interp.activations import project_scores, stream
from interp.activations import statistics as site_statistics
from interp.corpus import read_corpus, token_rows
from interp.errors import UserError
from interp.kernels import Statistics
from interp.kernels import scores as kernel
from interp.site import Site
from interp.store import SCHEMA, RunWriter
from interp.subject import open_subject

RESID, HEADS = Site("resid_post", 0), Site("head_z", 1)
SITES = [RESID, Site("head_v", 1, 1), HEADS, Site("final_norm_in")]


@pytest.fixture(scope="module")
def subject(model_folder):
    return open_subject(model_folder("llama"))


@pytest.fixture(scope="module")
def rows():
    """Some of unequal length, so that some batches are padded; a repeated row makes ties."""
    generator = torch.Generator().manual_seed(0)
    lengths = [7] * 9 + [3, 7, 1, 5] + [7] * 4
    made = [torch.randint(0, 211, (n,), generator=generator).tolist() for n in lengths]
    return [*made, made[2], made[0]]


@pytest.fixture(scope="module")
def whole(subject, rows):
    """The naive twin: every row alone, everything kept."""
    alone = [subject.capture(torch.tensor([row]), SITES) for row in rows]
    return {site: torch.cat([found[site][0] for found in alone]) for site in SITES}


def places(rows):
    return [(i, j) for i, row in enumerate(rows) for j in range(len(row))]


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)


class TestStream:
    @pytest.mark.parametrize("batch_size", [1, 4, 100])
    def test_equals_the_whole_capture(self, subject, rows, whole, batch_size):
        batches = list(stream(subject, rows, map(str, SITES), batch_size))
        assert len(batches) == -(-len(rows) // batch_size)
        for site in SITES:
            close(torch.cat([batch[site] for batch in batches]), whole[site])

    def test_edits_in_scope_apply(self, subject, rows):
        with subject.edited(edits.clamp(RESID, 3, 7.0)):
            assert all((found[RESID][:, 3] == 7).all() for found in stream(subject, rows, [RESID]))

    def test_holds_one_batch(self, subject, rows):
        """Rows are read as they are needed, and nothing survives its turn."""
        read, alive, turns = [], [], 0

        def reading():
            for row in rows:
                read.append(row)
                yield row

        with mock.patch.object(subject, "capture", _remembering(subject.capture, alive)):
            for found in stream(subject, reading(), [RESID, HEADS], 4):  # enumerate would hold it
                turns += 1
                assert len(read) == min(4 * turns, len(rows))
                alive.extend(weakref.ref(x) for x in found.values())
                assert len(found[RESID]) <= 4 * 7
                del found
                gc.collect()
                assert not [x for x in (ref() for ref in alive) if x is not None]
        assert len(alive) == 2 * 2 * 5

    def test_stops_early(self, subject, rows):
        ran = []
        layer = subject._backend.model.model.layers[1]
        handle = layer.register_forward_hook(lambda *_: ran.append(1))
        list(stream(subject, rows, [RESID]))
        handle.remove()
        assert not ran

    def test_mistakes(self, subject, rows):
        with pytest.raises(UserError, match="no site '7.resid_post'"):
            stream(subject, rows, ["7.resid_post"])
        with pytest.raises(UserError, match="batches of 0 rows"):
            list(stream(subject, rows, [RESID], 0))
        for none in ([], iter([])):
            with pytest.raises(UserError, match="there are no rows of tokens"):
                list(stream(subject, none, [RESID]))
        with pytest.raises(UserError, match="an empty prompt"):
            list(stream(subject, [[1], []], [RESID]))

    def test_patterns_are_refused(self, model_folder):
        eager = open_subject(model_folder("llama"), attention="eager")
        with pytest.raises(UserError, match="attn_pattern has no vector per token"):
            stream(eager, [[1]], ["0.attn_pattern"])


def _remembering(capture, alive):
    def both(*args):
        found = capture(*args)
        alive.extend(weakref.ref(x) for x in found.values())
        return found

    return both


class TestCollect:
    @pytest.fixture(scope="class")
    def stored(self, subject, rows, tmp_path_factory):
        """`stored(seed, rows)`: a set with shards of 20 tokens."""
        home = tmp_path_factory.mktemp("home")

        def make(seed=0, given=rows, **more):
            out = tmp_path_factory.mktemp("set")
            with mock.patch.dict(os.environ, {"INTERP_HOME": str(home)}):
                return collect(subject, given, SITES, out, 20, seed, 4, **more)

        return make

    def test_every_token_once_and_sites_in_step(self, stored, rows, whole):
        found = stored()
        assert found.sites == tuple(SITES)
        assert found.tokens == len(places(rows))
        assert [s["tokens"] for s in found.index["shards"]] == [20] * 6 + [found.tokens - 120]
        seen = [torch.cat(column) for column in zip(*found.sources(), strict=True)]
        where = list(zip(seen[0].tolist(), seen[1].tolist(), strict=True))
        assert sorted(where) == places(rows)
        assert seen[2].tolist() == [rows[i][j] for i, j in where]
        order = [places(rows).index(place) for place in where]
        for site in SITES:
            close(torch.cat([shard[site] for shard in found.shards()]), whole[site][order])
        assert next(found.shards(["0.resid_post"])).keys() == {RESID}

    def test_the_shuffle_follows_the_seed_and_is_bounded(self, stored):
        orders = [
            [s.row.tolist() + s.position.tolist() for s in stored(seed).sources()]
            for seed in (0, 0, 1)
        ]
        assert orders[0] == orders[1] != orders[2]
        # 40 tokens and one batch are held when the first shard is drawn: the first 8 rows at most
        first = next(stored().sources())
        assert max(first.row.tolist()) < 8
        assert first.row.tolist() != sorted(first.row.tolist())

    def test_index(self, subject, stored, rows):
        index = stored(fingerprints={"corpus": "abc"}).index
        assert index["sites"]["1.head_z"] == {"dtype": "float32", "shape": [4, 8]}
        assert index["seed"] == 0
        assert index["fingerprints"]["corpus"] == "abc"
        assert index["fingerprints"]["model"] == subject.weights.fingerprint()
        other = stored(given=[*rows[:-1], [1, 2, 3]]).index["fingerprints"]
        assert other["rows"] != index["fingerprints"]["rows"]

    def test_random_batches(self, stored, whole):
        found = stored()
        batches = [list(found.batches(13, seed)) for seed in (0, 0, 1)]
        sizes = [len(batch[RESID]) for batch in batches[0]]
        assert sizes == [13] * (found.tokens // 13) + [found.tokens % 13]
        drawn = [torch.cat([batch[RESID] for batch in turn]) for turn in batches]
        assert torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])
        for turn in drawn:
            close(turn.double().sum(0), whole[RESID].double().sum(0))
            close(turn.sort(0).values, whole[RESID].sort(0).values)
        assert len(list(found.batches(found.tokens, sites="0.resid_post"))) == 1
        with pytest.raises(UserError, match="batches of 0 tokens"):
            next(found.batches(0))

    def test_in_a_run_folder(self, subject, rows, own_home):
        plan = {"schema": SCHEMA, "study": "test", "key": "k", "version": 1, "config": {}}
        run = RunWriter(own_home / "run", plan)
        collect(subject, rows, [RESID], run, 50)
        assert ActivationSet(own_home / "run" / "activations").tokens == len(places(rows))
        finished = run.finish({})
        assert "activations/activations-00000.safetensors" in finished.manifest["files"]

    def test_the_edits_in_scope_are_written_down(self, subject, rows, own_home):
        with subject.edited(edits.clamp(RESID, 3, 7.5)):
            found = collect(subject, rows, [RESID], own_home / "set")
        assert found.index["edits"] == ["clamp [3] to 7.5 at 0.resid_post, all positions"]
        assert {float(x) for shard in found.shards() for x in shard[RESID][:, 3]} == {7.5}

    def test_an_interrupted_one_does_not_look_finished(self, subject, rows, own_home):
        out = own_home / "set"
        with pytest.raises(UserError, match="an empty prompt"):
            collect(subject, [*rows, []], SITES, out, 5, batch_size=1)
        assert len(list(out.glob("*.safetensors"))) > 5
        with pytest.raises(UserError, match="holds no finished activation set"):
            ActivationSet(out)
        again = collect(subject, rows[:2], SITES, out, 50)
        assert again.tokens == 14
        assert [path.name for path in sorted(out.iterdir())] == [
            "activations-00000.safetensors", "index.json",
        ]  # fmt: skip
        with pytest.raises(UserError, match="holds an activation set already"):
            collect(subject, rows, SITES, out)

    def test_a_full_disk(self, subject, rows, own_home):
        error = SafetensorError("I/O error: No space left (os error 28)")
        with (
            mock.patch("safetensors.torch.save_file", side_effect=error),
            pytest.raises(UserError, match="cannot write .*free some space"),
        ):
            collect(subject, rows, SITES, own_home / "set")

    def test_mistakes(self, subject, rows, own_home, stored):
        with pytest.raises(UserError, match="shards of 0 tokens"):
            collect(subject, rows, SITES, own_home / "set", 0)
        (own_home / "file").write_text("")
        with pytest.raises(UserError, match="cannot write"):
            collect(subject, rows, SITES, own_home / "file" / "set")
        found = stored()
        for site in ("1.resid_post", "1.head_v"):
            with pytest.raises(UserError, match=r"holds 0.resid_post, .*: choose of these"):
                next(found.shards([site]))

    def test_damage_is_noticed(self, stored):
        found = stored()
        shard, index = found.folder / "activations-00001.safetensors", found.folder / "index.json"
        content, about = shard.read_bytes(), json.loads(index.read_text())
        about["shards"][0]["tokens"] = 19
        index.write_text(json.dumps(about))
        with pytest.raises(UserError, match="does not hold what index.json says"):
            next(ActivationSet(found.folder).shards())
        for damage in (lambda: shard.write_bytes(content[:-5]), shard.unlink):
            damage()
            with pytest.raises(UserError, match=r"00001\S* is missing or damaged"):
                list(found.shards())
        for text, says in (("[", "cannot read"), ("3", "cannot read"), ("{}", "layout")):
            index.write_text(text)
            with pytest.raises(UserError, match=says):
                ActivationSet(found.folder)

    def test_shards_are_plain_safetensors(self, stored):
        tensors = load_file(stored().folder / "activations-00000.safetensors")
        assert set(tensors) == {*map(str, SITES), "row", "position", "token"}
        assert tensors["1.head_z"].shape == (20, 4, 8)


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
        found = project_scores(subject, rows, directions, keep_top=6, batch_size=4)
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
        found = project_scores(subject, rows, directions, keep_top=9, batch_size=4)[RESID]
        tied = torch.stack([found.rows[4], found.positions[4]], 1)
        assert tied.tolist() == [list(place) for place in places(rows)[:9]]
        # one row again and again, in equal batches: equal scores up to the last bit
        again = project_scores(subject, [rows[0]] * 12, directions, keep_top=5, batch_size=3)
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
        found = project_scores(subject, [[1, 2], [3]], directions, keep_top=10)[HEADS]
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


@pytest.mark.slow
def test_a_stream_costs_little_more_than_the_bare_forward():
    """A ratio, interleaved in one process: 15.resid_post against the first 16 layers alone."""
    assert stdlib_statistics.median(overheads()) <= 1.15


def overheads(tokens=20_000, length=128, repeats=5):
    """Seconds of `stream` over seconds of the bare truncated model, a repeat each.

    They take turns batch by batch, so that what else the machine does hits both.
    """
    subject = open_subject("smollm2-135m")
    rows = list(token_rows(read_corpus(None), subject.tokenizer.encode, length, None, tokens))
    batches = [torch.tensor(rows[i : i + 8]) for i in range(0, len(rows), 8)]
    inner = subject._backend.model.model
    layers, first = inner.layers, inner.layers[:16]

    def bare(ids):
        inner.layers = first
        start = time.perf_counter()
        with torch.no_grad():
            inner(input_ids=ids)
        took = time.perf_counter() - start
        inner.layers = layers
        return took

    def one(passes):
        start = time.perf_counter()
        next(passes)
        return time.perf_counter() - start

    ratios = []
    bare(batches[0])  # warms up
    for turn in range(repeats):
        passes, spent = stream(subject, rows, ["15.resid_post"], 8), [0.0, 0.0]
        for number, ids in enumerate(batches):
            for which in (0, 1) if (turn + number) % 2 else (1, 0):
                spent[which] += one(passes) if which else bare(ids)
        ratios.append(spent[1] / spent[0])
    return ratios
