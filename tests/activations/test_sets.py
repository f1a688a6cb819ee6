"""Stored sets of activations: resumed, read back, refused."""

import json
import os
from unittest import mock

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from interp import edits
from interp.activation_sets import ActivationSet, collect
from interp.errors import UserError
from interp.store import SCHEMA, RunWriter

from .conftest import RESID, SITES, close, places


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
