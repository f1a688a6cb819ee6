"""The ladder's stream of activations: shuffled within pools, no padding, begun anywhere."""

import dataclasses
import itertools

import pytest
import torch

from interp.darkmatter import ladder
from interp.darkmatter.contexts import corpus_rows
from interp.errors import UserError
from interp.model.site import Site

from .planted import ids


def test_the_ladders_stream_can_begin_anywhere(llama, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ladder, "HELD_OUT", 3)
    monkeypatch.setattr(ladder, "POOL", 100)
    generator = torch.Generator().manual_seed(0)
    text = bytes(torch.randint(33, 127, (4000,), generator=generator).tolist()).decode()
    (tmp_path / "text.txt").write_text(text)
    config = ladder.LadderConfig(
        corpus=str(tmp_path / "text.txt"), site="0.resid_post", length=20, tokens=400, batch=32
    )
    site = Site("resid_post", 0)
    whole = [b[site] for b in itertools.islice(ladder._batches(config, llama, 0), 13)]
    assert len(whole) == 13
    for first in (1, 4, 7):
        rest = [b[site] for b in itertools.islice(ladder._batches(config, llama, first), 3)]
        assert all(map(torch.equal, whole[first : first + 3], rest))
    seen = torch.cat(whole)
    assert len(torch.unique(seen, dim=0)) == len(seen)
    rows = [ids for _, ids in corpus_rows(llama, config.corpus, 20, 3)]
    held_out = llama.capture(llama.pad(rows), [site])[site].flatten(0, 1)
    assert torch.cdist(held_out, seen).min() > 0


def test_the_ladder_reads_no_padding(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(ladder, "HELD_OUT", 2)
    monkeypatch.setattr(ladder, "POOL", 60)
    generator = torch.Generator().manual_seed(0)
    rows = [
        torch.randint(1, 200, (size,), generator=generator).tolist()
        for size in [9, 9, *([20, 3] * 12)]
    ]
    path = ids(tmp_path / "ids.safetensors", rows)
    site = Site("resid_post", 0)
    config = ladder.LadderConfig(corpus=path, site=str(site), length=20, tokens=128, batch=16)
    batches = [captured[site] for captured in ladder._batches(config, llama, 0)]
    real = torch.cat([llama.capture(torch.tensor([row]), [site])[site][0, 1:] for row in rows[2:]])
    apart = torch.cdist(torch.cat(batches), real, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = apart.min(1)
    assert float(nearest.values.max()) < 1e-4, "every activation is that of a token in its row"
    assert len(nearest.indices.unique()) == len(nearest.indices), "and none comes twice"
    pools = [tokens for _, tokens in ladder._pools(config, iter(enumerate(rows[2:])), set())]
    assert sum(pools) == sum(len(row) - 1 for row in rows[2:])
    assert len(batches) == sum(tokens // 16 for tokens in pools)
    again = [captured[site] for captured in ladder._batches(config, llama, 7)]
    assert all(map(torch.equal, batches[7:], again))
    assert len(again) == len(batches) - 7


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
