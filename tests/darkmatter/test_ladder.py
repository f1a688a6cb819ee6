"""The ladder's stream of activations: shuffled within pools, no padding, begun anywhere."""

import dataclasses

import pytest
import torch

from interp.darkmatter import ladder
from interp.errors import UserError
from interp.model.site import Site
from interp.saes import feed
from interp.text.contexts import corpus_rows

from .planted import ids

SITE = Site("resid_post", 0)


def begun(subject, corpus, longest=10.0):
    """The feed as the study makes it, or with another limit of what is massive."""
    made = feed.TextFeed(subject, [SITE], corpus, 20)
    made._stream.longest = longest
    return made


def batches(config, made, first=0):
    stream = made.batches(config.batch, config.tokens, config.seed, first)
    return [batch[SITE] for batch in stream]


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Text of 4,000 tokens in rows of 20; 3 of them are held out, and pools are small."""
    monkeypatch.setattr(feed, "HELD_OUT", 3)
    monkeypatch.setattr(feed, "MEASURED", 2)
    monkeypatch.setattr(feed, "POOL", 100)
    generator = torch.Generator().manual_seed(0)
    text = bytes(torch.randint(33, 127, (4000,), generator=generator).tolist()).decode()
    (tmp_path / "text.txt").write_text(text)
    corpus = str(tmp_path / "text.txt")
    return ladder.LadderConfig(corpus=corpus, site=str(SITE), length=20, tokens=400, batch=32)


def test_the_ladders_stream_can_begin_anywhere(llama, settings, monkeypatch) -> None:
    stream = begun(llama, settings.corpus)
    whole = batches(settings, stream)
    passes = []
    capture = llama.capture
    monkeypatch.setattr(llama, "capture", lambda *given: passes.append(0) or capture(*given))
    batches(settings, stream)
    every = len(passes)
    for first in (1, 4, 7, len(whole) - 1):
        rest = batches(settings, stream, first)
        assert len(rest) == len(whole) - first
        assert all(map(torch.equal, whole[first:], rest))
    passes.clear()
    batches(settings, stream, len(whole) - 1)
    assert len(passes) < every / 10, "the model does not run on what comes before"
    seen = torch.cat(whole[:13])
    assert len(torch.unique(seen, dim=0)) == len(seen)
    rows = [ids for _, ids in corpus_rows(llama, settings.corpus, 20, 3)]
    held_out = llama.capture(llama.pad(rows), [SITE])[SITE].flatten(0, 1)
    assert torch.cdist(held_out, seen).min() > 0


def test_massive_activations_are_not_trained_on(llama, settings, monkeypatch) -> None:
    """As `darkmatter run`: a token of a hundred times the length is in none of the batches, which
    are that much smaller, and no other token moves."""
    plain = batches(settings, begun(llama, settings.corpus))
    capture = llama.capture

    def with_sinks(batch, sites):
        captured = capture(batch, sites)
        captured[SITE][1, 5] *= 100
        return captured

    monkeypatch.setattr(llama, "capture", with_sinks)
    left = batches(settings, begun(llama, settings.corpus))
    short = [len(batch) < 32 for batch in left]
    assert any(short)
    for before, after, fewer in zip(plain, left, short, strict=True):
        if fewer:
            kept = (before[:, None] == after).all(2).any(1)
            assert torch.equal(before[kept], after)
        else:
            assert torch.equal(before, after)
    every = batches(settings, begun(llama, settings.corpus, longest=0.0))
    assert {len(batch) for batch in every} == {32}


def test_the_ladder_reads_no_padding(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(feed, "HELD_OUT", 2)
    monkeypatch.setattr(feed, "MEASURED", 2)
    monkeypatch.setattr(feed, "POOL", 60)
    generator = torch.Generator().manual_seed(0)
    rows = [
        torch.randint(1, 200, (size,), generator=generator).tolist()
        for size in [9, 9, *([20, 3] * 12)]
    ]
    path = ids(tmp_path / "ids.safetensors", rows)
    config = ladder.LadderConfig(corpus=path, site=str(SITE), length=20, tokens=128, batch=16)
    made = batches(config, begun(llama, path))
    real = torch.cat([llama.capture(torch.tensor([row]), [SITE])[SITE][0, 1:] for row in rows[2:]])
    apart = torch.cdist(torch.cat(made), real, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = apart.min(1)
    assert float(nearest.values.max()) < 1e-4, "every activation is that of a token in its row"
    assert len(nearest.indices.unique()) == len(nearest.indices), "and none comes twice"
    tokens = sum(len(row) - 1 for row in rows[2:])
    assert 16 * len(made) > tokens - 4 * 16, "and few are left out at the ends of pools"


def test_too_little_text_names_the_rows_that_are_held_out(llama, settings, monkeypatch):
    monkeypatch.setattr(feed, "HELD_OUT", 199)
    with pytest.raises(UserError, match="batch of 32 tokens past the first 199 rows of 20 tokens"):
        batches(settings, begun(llama, settings.corpus))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"precision": "int8"}, "--precision must be"),
        ({"k": (0,)}, "every k from 1"),
        ({"widths": ()}, "at least one width"),
        ({"tokens": 10}, "at least one step"),
        ({"batch": 0}, "at least one step"),
        ({"widths": (768, 1536, 768)}, "--widths has a number twice"),
        ({"k": (32, 32)}, "--k has a number twice"),
        ({"lr": float("nan")}, "--lr must be above 0, not nan"),
    ],
)
def test_settings_that_cannot_work(change, words) -> None:
    with pytest.raises(UserError, match=words):
        dataclasses.replace(ladder.LadderConfig(), **change).check()
