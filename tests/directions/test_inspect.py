"""Directions at work: examples in a corpus, steering, and the commands that do both."""

import json
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from interp.cli import main
from interp.directions import Directions
from interp.directions.inspect import next_logprobs, steered, top_examples
from interp.directions.scoring import Named, prints_of
from interp.directions.sources import neuron_directions
from interp.errors import UserError
from interp.model.neuron import parse_neuron
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.text.stream import project_scores

from ..manifests import finish_by_hand
from ..workers import by_copies


@pytest.fixture(scope="module")
def subject(dog_model):
    return open_subject(dog_model)


@pytest.fixture(scope="module")
def dog(subject):
    return neuron_directions(subject.weights, [parse_neuron("1.down.17")])


def test_top_examples_are_the_highest_scores_in_their_context(subject):
    rows = [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]
    site = Site("resid_post", 0)
    torch.manual_seed(0)
    index = pd.DataFrame({"name": ["a", "b"]})
    found = Directions(site, torch.randn(2, 32), index)
    table = top_examples(subject, rows, found, keep=3, special=True)
    scores = found.scores(subject.capture(torch.tensor(rows), [site])[site])
    for n, name in enumerate("ab"):
        own = table[table["name"] == name]
        want = scores[..., n].flatten().sort(descending=True).values[:3]
        torch.testing.assert_close(torch.tensor(own["score"].to_numpy()), want)
        for r in own.to_dict("records"):
            ids = rows[r["row"]]
            words = [f"w{i}" for i in ids]
            place = r["position"]
            assert r["token"] == words[place]
            assert r["before"] == "".join(words[:place])
            assert r["after"] == "".join(words[place + 1 : place + 5])
            assert float(scores[r["row"], place, n]) == pytest.approx(r["score"], rel=1e-5)
        mean, std = scores[..., n].mean(), scores[..., n].std(correction=0)
        assert own["z"].iloc[0] == pytest.approx(float((want[0] - mean) / std), rel=1e-4)
    inner = top_examples(subject, rows, found, keep=12)
    assert len(inner) == 20
    assert inner["position"].min() == 1
    assert inner["mean"].iloc[0] == pytest.approx(float(scores[:, 1:, 0].mean()), rel=1e-5)


def test_several_workers_score_the_same(subject, dog_model, tmp_path, capsys):
    """To the last bit, with parts of which no token counts; and a worker knows what it is for."""
    torch.manual_seed(1)
    ids = torch.randint(3, 100, (40, 16))
    ids[8:16, 1:] = 0  # rows of one token each
    save_file({"ids": ids}, tmp_path / "ids.safetensors")
    command = ["directions", "score", "1.down.17,1.down.3", "--model", str(dog_model)]
    command += ["--corpus", str(tmp_path / "ids.safetensors"), "--length", "16", "--json"]
    tables = []
    for number in ("1", "2"):
        with by_copies():
            assert main([*command, "--workers", number]) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]
    rows = [row[:1].tolist() if 8 <= at < 16 else row.tolist() for at, row in enumerate(ids)]
    found = neuron_directions(subject.weights, [parse_neuron(f"1.down.{n}") for n in (17, 3)])
    site = found.read_at
    want = project_scores(subject, rows, {site: found.scorer.pieces}, 5)[site]
    first = pd.DataFrame(json.loads(tables[0])["results"]).groupby("name", sort=False)["row"]
    assert [each.tolist() for _, each in first] == want.rows.tolist()


def test_a_worker_with_another_model_says_so(subject, dog, dog_model):
    names = ("1.down.17", str(dog_model), "runs", "auto", 3, False)
    assert Named(*names, prints_of(subject, dog)).open().keep == 3
    with pytest.raises(UserError, match="is another here"):
        Named(*names, ("0", "1")).open()


def test_rows_of_which_no_token_counts_are_a_plain_error(subject, dog):
    with pytest.raises(UserError, match="no token of the rows counts"):
        top_examples(subject, [[5], [6]], dog)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_examples_are_the_same_at_any_length(scale, subject):
    rows, site = [[1, 2, 3, 4, 5, 6]], Site("resid_post", 0)
    vector = torch.randn(1, 32, generator=torch.Generator().manual_seed(0)) * 10
    index = pd.DataFrame({"name": ["a"]})
    want, got = (
        top_examples(subject, rows, Directions(site, (vector.double() * s).float(), index), keep=3)
        for s in (1.0, scale)
    )
    for name in ("score", "mean", "std"):
        assert got[name].tolist() == pytest.approx((want[name] * scale).tolist(), rel=1e-4)
    if scale:
        assert got["position"].tolist() == want["position"].tolist()
        assert got["z"].tolist() == pytest.approx(want["z"].tolist(), rel=1e-4)
    else:
        assert got["z"].isna().all()


def test_steering_along_the_planted_direction_says_its_word(subject, dog):
    batch = subject.tokens("w1 w2 w3")
    table = steered(subject, batch, dog, 0, (-5.0, 5.0), tokens=3)
    assert table["scale"].tolist() == [0.0, -5.0, 5.0]
    assert table["kl"].iloc[0] == 0.0
    assert table["next"].iloc[2] == "dog"
    assert table["text"].iloc[2] == "dogdogdog"
    assert "dog" not in table["text"].iloc[1]
    with subject.edited(dog.steer(0, 5.0)):
        after = next_logprobs(subject, batch)
    plain = next_logprobs(subject, batch)
    assert table["kl"].iloc[2] == pytest.approx(float((plain.exp() * (plain - after)).sum()))
    with pytest.raises(UserError, match="no direction 1: there are 1"):
        steered(subject, batch, dog, 1, (1.0,))


class TestCommands:
    def ran(self, capsys, *arguments):
        assert main(["directions", *map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])["results"]

    def test_decode_neurons_and_saved_ones(self, dog_model, dog, tmp_path, capsys):
        dog.save(tmp_path / "saved")
        named = self.ran(capsys, "decode", "1.down.17", "--model", dog_model, "--limit", 2)
        saved = self.ran(capsys, "decode", tmp_path / "saved", "--limit", 2)
        assert named == saved
        assert named[0]["top"][0] == "dog"

    def test_compare(self, dog_model, capsys):
        rows = self.ran(capsys, "compare", "1.up.17", "1.up.3,1.up.17", "--model", dog_model)
        assert [r["other"] for r in rows] == ["1.up.17", "1.up.3"]
        assert rows[0]["cosine"] == pytest.approx(1.0)
        assert rows[0]["coupling"] == pytest.approx(1.0)

    def test_what_is_read_elsewhere_has_no_coupling(self, dog_model, capsys, caplog):
        """What a neuron adds does not change how a neuron of its layer fires."""
        rows = self.ran(capsys, "compare", "1.down.17", "1.down.3", "--model", dog_model)
        assert rows[0]["coupling"] is None
        assert "the activation at 1.mlp_post" in caplog.text

    def test_score_reads_a_corpus(self, dog_model, tmp_path, capsys):
        (tmp_path / "text.txt").write_text(" ".join(f"w{i % 200 + 1}" for i in range(600)))
        found = self.ran(
            capsys, "score", "1.up.3", "--model", dog_model, "--corpus", tmp_path / "text.txt",
            "--tokens", 512, "--length", 32, "--limit", 4,
        )  # fmt: skip
        assert len(found) == 4
        assert found[0]["z"] >= found[3]["z"]

    def test_score_reads_rows_of_ids(self, dog_model, tmp_path, capsys):
        rows = torch.randint(1, 200, (6, 20), generator=torch.Generator().manual_seed(0))
        save_file({"ids": rows}, tmp_path / "ids.safetensors")
        where = ["--model", dog_model, "--corpus", tmp_path / "ids.safetensors", "--length", 16]
        [found] = self.ran(capsys, "score", "1.up.3", *where, "--tokens", 64, "--limit", 1)
        subject, site = open_subject(dog_model), Site("mlp_up", 1)
        want = subject.capture(rows[:4, :16], [site])[site][:, 1:, 3]
        assert found["score"] == pytest.approx(float(want.max()), rel=1e-5)

    def test_steer(self, dog_model, capsys):
        rows = self.ran(
            capsys, "steer", "1.down.17", "--model", dog_model, "--prompt", "w1 w2", "--no-chat",
            "--scale", "5", "--tokens", 2,
        )  # fmt: skip
        assert [r["text"] for r in rows][1] == "dogdog"

    def test_list_finds_what_runs_hold(self, own_home, dog, capsys):
        assert main(["directions", "list"]) == 2
        dog.save(finish_by_hand(own_home / "runs", "a.b") / "finds")
        finish_by_hand(own_home / "runs", "a.b")
        rows = self.ran(capsys, "list")
        assert [(r["site"], r["directions"], r["analysis"]) for r in rows] == [
            ("1.mlp_out", 1, "neurons")
        ]

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["decode", "nonsense"], "no folder of directions, no run's key, and names no neurons"),
            (["decode", "1.down.17", "--lens", "x"], "'x' is no lens"),
            (["steer", "1.down.17", "--prompt", " "], "the prompt is empty"),
            (["steer", "1.down.17", "--prompt", "w1"], "has no chat template"),
            (["score", "1.down.17", "--corpus", "/no/such/file"], "no corpus at /no/such/file"),
            (["decode", "1.down.99"], "no 1.down.99 in this model: layers 0..1, neurons 0..47"),
        ],
    )
    def test_mistakes_are_a_line(self, dog_model, arguments, says, capsys):
        assert main(["directions", *arguments, "--model", str(dog_model)]) == 2
        told = capsys.readouterr().err.strip().splitlines()[-1]
        assert says in told

    def test_damaged_directions(self, tmp_path, dog, capsys):
        dog.save(tmp_path / "d")
        shutil.copy(tmp_path / "d" / "index.parquet", tmp_path / "d" / "vectors.safetensors")
        assert main(["directions", "decode", str(tmp_path / "d")]) == 2
        assert "is not what was saved with directions.json" in capsys.readouterr().err
