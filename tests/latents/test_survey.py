"""A survey of 20,000 tokens against plain passes over all activations at once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.latents import tallies
from interp.latents.firing_tokens import FiringTokens
from interp.latents.merging import Tallies
from interp.latents.survey_part import PartReader
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import open_weights
from interp.runs import checkpoint
from interp.runs.store import Store
from interp.runs.study import run_or_load
from interp.saes import open_sae
from interp.text.corpus import id_rows

from ..workers import by_copies
from .conftest import OTHELLO


@pytest.fixture(scope="module")
def z():
    """All latents [games, 59, 1024], without the first move, NaN where a move does not count."""
    subject, sae = open_subject("othello-gpt"), open_sae(OTHELLO.saes)
    rows = [row[:59] for row, _ in zip(id_rows(OTHELLO.corpus), range(340), strict=False)]
    site, games = Site.parse("2.resid_post"), []
    for row in rows:
        x = subject.capture(subject.pad([row]), [site])[site][0].float()
        games.append(sae.encode(x))
    whole = torch.stack(games)
    whole[:, 0] = torch.nan
    return whole.numpy(), np.array(rows)


def test_numbers_and_histogram_are_those_of_a_plain_pass(surveyed, z):
    activations = z[0][:, 1:].reshape(-1, 1024).astype(np.float64)
    table, edges = surveyed.table("latents"), np.array(surveyed.manifest["edges"])
    assert surveyed.metrics["tokens"] == len(activations) == 340 * 58
    count = (activations != 0).sum(0)
    # one pass in batches, the other game by game: a latent on the edge of its k may differ
    assert abs(table["count"] - count).max() <= 2
    alive = count > 2
    same = alive & (table["count"].to_numpy() == count)
    assert same.sum() > 700
    np.testing.assert_allclose(
        table["mean"][same], activations.sum(0)[same] / count[same], rtol=1e-4
    )
    np.testing.assert_allclose(table["max"][alive], activations.max(0)[alive], rtol=1e-4)
    for latent in np.flatnonzero(same)[:200]:
        sizes = activations[:, latent]
        expected = np.bincount(np.searchsorted(edges, sizes[sizes > 0], side="right"), minlength=32)
        assert np.abs(table["histogram"][latent] - expected).sum() <= 2
        assert table["histogram"][latent].sum() == count[latent]
    assert surveyed.metrics["dead"] == (table["count"] == 0).sum() > 100
    assert table["max"][table["count"] == 0].isna().all()
    assert surveyed.metrics["l0"] == 32


def test_top_examples_are_those_of_a_plain_pass(surveyed, z):
    activations, ids = z
    examples = surveyed.table("examples")
    top = examples[examples["kind"] == "top"]
    best = np.nan_to_num(activations).max(1)  # [games, latents]
    checked = 0
    for latent, rows in top.groupby("latent"):
        expected = np.sort(best[:, latent])[::-1][: len(rows)]
        np.testing.assert_allclose(rows["value"], expected, rtol=1e-4)
        assert rows["context"].is_unique
        for row in rows.itertuples():
            assert row.value == pytest.approx(activations[row.context, row.position, latent], 1e-4)
            inside = slice(row.start, row.start + len(row.ids))
            assert row.ids.tolist() == ids[row.context][inside].tolist()
            around = activations[row.context, inside, latent]
            # bfloat16 holds 8 bits of a number
            np.testing.assert_allclose(row.values, around, rtol=2**-8, atol=2e-2)
            assert row.start == max(0, row.position - tallies.BEFORE)
            checked += 1
    assert checked > 4000


def test_bins_hold_one_example_each_where_there_is_one(surveyed):
    table, examples = surveyed.table("latents"), surveyed.table("examples")
    binned = examples[examples["kind"] == "bin"]
    edges = np.array([0, *surveyed.manifest["edges"], np.inf])
    filled = np.argwhere(np.stack(table["histogram"]) > 0)
    assert binned[["latent", "rank"]].to_numpy().tolist() == filled.tolist()
    assert (edges[binned["rank"]] <= binned["value"]).all()
    assert (binned["value"] < edges[binned["rank"] + 1]).all()


def test_tokens_that_it_fires_on(surveyed, z):
    activations, ids = z
    fired = np.nan_to_num(activations) != 0
    exact = 0
    for row in surveyed.table("latents").itertuples():
        own = np.bincount(ids[fired[:, :, row.latent]], minlength=61)
        if abs(own.sum() - row.count) or row.count == 0:
            continue
        told = dict(zip(row.fires_on, row.fires_times, strict=True))
        assert sorted(told.values(), reverse=True) == list(told.values())
        assert row.short <= row.count / (tallies.TOKENS + 1)
        for token, times in enumerate(own):
            assert 0 <= times - told.get(token, 0) <= row.short
        exact += row.short == 0
    assert exact > 200


def test_logits_neighbours_and_neurons(surveyed):
    weights = open_weights("othello-gpt")
    rows = open_sae(OTHELLO.saes).W_dec.double()
    logits = rows @ weights.W_U().double().T
    unit = torch.nn.functional.normalize(rows, dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(-2)
    table = surveyed.table("latents")
    for row in table.iloc[::50].itertuples():
        own = logits[row.latent]
        assert row.top_ids.tolist() == own.topk(5).indices.tolist()
        assert row.bottom_ids.tolist() == (-own).topk(5).indices.tolist()
        np.testing.assert_allclose(row.top_logits, own.topk(5).values, rtol=1e-4)
        z = (own.max() - own.mean()) / own.std(correction=0)
        assert row.top_z == pytest.approx(float(z), rel=1e-4)
        assert row.neighbours.tolist() == cosines[row.latent].topk(4).indices.tolist()
        found = []
        for layer in range(weights.spec.n_layers):
            written = torch.nn.functional.normalize(
                weights.in_stream("down", layer).double(), dim=1
            )
            every = written @ unit[row.latent]
            found += [(abs(float(c)), f"{layer}.down.{i}", float(c)) for i, c in enumerate(every)]
        best = sorted(found, reverse=True)[:3]
        assert row.neurons.tolist() == [name for _, name, _ in best]
        np.testing.assert_allclose(row.neuron_cosines, [c for *_, c in best], rtol=1e-4)


def test_coactive_latents_are_the_largest_at_the_top_examples(surveyed, z):
    activations, _ = z
    examples = surveyed.table("examples")
    top = examples[examples["kind"] == "top"]
    table = surveyed.table("latents").set_index("latent")
    for latent, rows in list(top.groupby("latent"))[::60]:
        seen = np.zeros(1024, int)
        for row in rows.itertuples():
            there = np.argsort(-activations[row.context, row.position], kind="stable")
            seen[[i for i in there if i != latent][: tallies.COMPANIONS]] += 1
        named, times = table["coactive"][latent], table["coactive_times"][latent]
        assert (np.abs(seen[named] - times) <= 1).all()
        assert abs(seen.max() - times[0]) <= 1


def tallied(z, context, position, token, size, parts):
    """The tallies of a stream in steps of `size` contexts, merged of parts of `parts` steps."""
    whole = Tallies.empty(z.shape[1], 4)
    steps = [slice(start, start + 7 * size) for start in range(0, len(z), 7 * size)]
    for first in range(0, len(steps), parts):
        own = Tallies.empty(z.shape[1], 4)
        for rows in steps[first : first + parts]:
            step = tallies.Step(z[rows], context[rows], position[rows], token[rows], 7)
            own.add(step, tallies.Fired.of(step.z), 2.0, 0)
        whole.merge(own.packed())
    return whole.state()


def test_nothing_but_the_sketch_depends_on_the_steps_and_the_parts():
    """The same stream in steps of 1, 2 and 5 contexts, in parts of some steps, with ties; signs
    count in values alone."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randint(-3, 4, (10 * 7, 6), generator=generator).float()
    z[:, 5] = 0
    z[:42, 4] = 0
    context = torch.arange(10).repeat_interleave(7)
    position, token = torch.arange(7).repeat(10), torch.randint(0, 5, (70,), generator=generator)
    cut = ((1, 10), (1, 1), (1, 3), (2, 5), (2, 2), (5, 1))
    made = [tallied(z, context, position, token, *how) for how in cut]
    for other in made[1:]:
        for name, tensor in made[0].items():
            assert torch.equal(tensor.nan_to_num(-9), other[name].nan_to_num(-9)), name
    top = made[0]["top/value"]
    best = z.view(10, 7, 6).abs().amax(1).sort(0, descending=True).values[:4].T
    assert torch.equal(top.abs(), best)
    assert (top < 0).any()
    # of equal ones the first in the stream
    first = made[0]["top/context"][0]
    sizes = z.view(10, 7, 6)[:, :, 0].abs().amax(1)
    assert first.tolist() == sizes.sort(descending=True, stable=True).indices[:4].tolist()


def test_a_sketch_that_is_too_small_says_by_how_much():
    generator = torch.Generator().manual_seed(0)
    token = (torch.rand(4000, generator=generator) ** 3 * 300).long()
    whole, tokens, merged = (FiringTokens.empty(1) for _ in range(3))
    for number, part in enumerate(token.split(100)):
        place = torch.arange(len(part))
        step = tallies.Step(torch.ones(len(part), 1), place * 0, place, part, 100)
        for counters in (whole, tokens):
            counters.add(step, tallies.Fired.of(step.z))
        if number % 10 == 9:
            merged.merge(torch.tensor([0]), tokens)
            tokens = FiringTokens.empty(1)
    for counters in (whole, merged):
        short = int(counters.short[0])
        assert 0 < short <= 4000 / (tallies.TOKENS + 1)
        named = zip(counters.token[0].tolist(), counters.times[0].tolist(), strict=True)
        told = {i: times for i, times in named if times}
        for i, times in enumerate(torch.bincount(token).tolist()):
            assert 0 <= times - told.get(i, 0) <= short


def test_by_two_workers_and_after_a_stop_it_is_the_same_to_the_byte(
    surveyed, tmp_path, monkeypatch
):
    """The first of three parts is made in this process, the others by two workers that begin with
    them."""
    read, store, begun = PartReader.read, Store(tmp_path), []

    def stopping(self, first):
        begun.append(first)
        if first:
            raise KeyboardInterrupt
        return read(self, first)

    for name in ("SECONDS", "SHARE"):
        monkeypatch.setattr(checkpoint, name, 0)
    monkeypatch.setattr(PartReader, "read", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_or_load(OTHELLO, store)
    assert begun == [0, 136]
    monkeypatch.setattr(PartReader, "read", read)
    with by_copies():
        two = run_or_load(replace(OTHELLO, workers="2"), store)
    assert two.manifest["key"] == surveyed.manifest["key"]
    own, other = (
        {name: part["sha256"] for name, part in run.manifest["files"].items()}
        for run in (surveyed, two)
    )
    assert own == other
    for name in ("edges", "metrics", "median_length", "documents", "left_out", "parity"):
        assert surveyed.manifest[name] == two.manifest[name]
