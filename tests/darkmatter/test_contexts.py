"""The stream of contexts: which document each is of, and rows with nothing to read."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from interp.darkmatter import ladder, streamed
from interp.darkmatter.contexts import Contexts, contexts, corpus_rows
from interp.darkmatter.measure import DarkMatterConfig
from interp.darkmatter.streamed import Streamed
from interp.darkmatter.synthetic import SyntheticConfig
from interp.errors import UserError
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.saes.open import open_saes
from tests.conftest import make_model

from .test_studies import OTHELLO
from .test_training import Bytes

SAE = {**OTHELLO, "saes": f"{OTHELLO['saes']}/saes/topk-L2-S0"}


@pytest.fixture(scope="module")
def othello():
    return open_subject("othello-gpt")


@pytest.fixture(scope="module")
def llama():
    return open_subject(make_model("llama"), tokenizer=Bytes())


def ids(path, rows):
    """Rows of ids, stored."""
    table = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for number, row in enumerate(rows):
        table[number, : len(row)] = torch.tensor(row)
    save_file({"ids": table}, path)
    return str(path)


def test_a_token_knows_its_document(llama, tmp_path):
    for name, size in (("a", 45), ("b", 8), ("c", 60)):
        (tmp_path / f"{name}.txt").write_text(name * size)
    rows = corpus_rows(llama, str(tmp_path), 10, 9)
    site = Site("resid_post", 0)
    (part,) = contexts(llama, rows, 9, 1, 9)
    found = part.tokens(llama, [site])
    assert part.document.tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 2]
    assert found.document.tolist() == [d for d in part.document.tolist() for _ in range(9)]
    some = part.rows(part.document == 1)
    assert some.context.tolist() == [4]
    assert torch.equal(some.tokens(llama, [site]).token, found.token[found.document == 1])


def test_every_stored_row_is_a_document(llama, tmp_path):
    path = ids(tmp_path / "ids.safetensors", [[1, 2, 3, 4], [5, 6], [7, 8, 9]])
    assert list(corpus_rows(llama, path, 3)) == [(0, [1, 2, 3]), (1, [5, 6]), (2, [7, 8, 9])]


def test_rows_that_are_skipped_whole(llama, tmp_path):
    path = ids(tmp_path / "ids.safetensors", [[1, 2], [3], [4], [5], [6, 7, 8]])
    parts = list(contexts(llama, corpus_rows(llama, path, 3), 5, 1, 2))
    assert [part.context.tolist() for part in parts] == [[0, 1], [4]]


def test_a_study_of_rows_that_are_too_short(othello, tmp_path):
    rows = [[1 + i % 60 for i in range(20)]] * 30 + [[5]] * 70
    path = ids(tmp_path / "ids.safetensors", rows)
    config = DarkMatterConfig(
        **{**SAE, "corpus": path, "length": 20, "tokens": 2000, "ridge": 1e-3}
    )
    made = Streamed(config, othello, open_saes(config.source, config.site), ())
    with pytest.raises(
        UserError, match="the contexts to fit norms on have no token past the first"
    ):
        made.read()


def test_too_few_tokens_are_refused_before_they_are_read(othello, monkeypatch):
    monkeypatch.setattr(streamed, "contexts", None)
    config = DarkMatterConfig(**{**SAE, "length": 20, "tokens": 200})
    with pytest.raises(UserError, match="76 tokens do not determine a linear map of 128 numbers"):
        Streamed(config, othello, open_saes(config.source, config.site), ())


@pytest.mark.parametrize("site", ["2.resid_post", "2.mlp_out", "3.resid_post"])
def test_earlier_is_earlier(othello, site):
    saes = open_saes(SAE["saes"], SAE["site"])
    earlier = dataclasses.replace(saes, site=Site.parse(site))
    if site == "2.mlp_out":
        Streamed(DarkMatterConfig(**SAE), othello, saes, (earlier,))
        return
    with pytest.raises(UserError, match=f"--earlier {site} is not before 2.resid_post"):
        Streamed(DarkMatterConfig(**SAE), othello, saes, (earlier,))


def test_planted_noise_is_scaled_by_what_is_read(othello, monkeypatch):
    """One massive activation among the first contexts does not set the noise of all."""
    config = SyntheticConfig(**SAE)
    usual = config.readers(othello).variance
    tokens = Contexts.tokens

    def with_a_sink(self, subject, sites):
        found = tokens(self, subject, sites)
        found.x[7] *= 1000
        return found

    monkeypatch.setattr(Contexts, "tokens", with_a_sink)
    assert config.readers(othello).variance == pytest.approx(usual, rel=0.05)


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
    batches = [found[site] for found in ladder._batches(config, llama, 0)]
    real = torch.cat([llama.capture(torch.tensor([row]), [site])[site][0, 1:] for row in rows[2:]])
    apart = torch.cdist(torch.cat(batches), real, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = apart.min(1)
    assert float(nearest.values.max()) < 1e-4, "every activation is that of a token in its row"
    assert len(nearest.indices.unique()) == len(nearest.indices), "and none comes twice"
    pools = [tokens for _, tokens in ladder._pools(config, iter(enumerate(rows[2:])))]
    assert sum(pools) == sum(len(row) - 1 for row in rows[2:])
    assert len(batches) == sum(tokens // 16 for tokens in pools)
    again = [found[site] for found in ladder._batches(config, llama, 7)]
    assert all(map(torch.equal, batches[7:], again))
    assert len(again) == len(batches) - 7


def test_what_is_priced_is_spread_evenly(othello):
    config = DarkMatterConfig(**{**SAE, "tokens": 59 * 50, "downstream": 3})
    made = Streamed(config, othello, open_saes(config.source, config.site), ())
    made.read()
    assert made.prices.documents == [39, 44, 49]
    assert made.documents == {"measured": 15, "priced": 3}
