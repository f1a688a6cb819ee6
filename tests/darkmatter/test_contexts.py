"""The stream of contexts: which document each is of, and rows with nothing to read."""

import dataclasses

import pytest
import torch

from interp.darkmatter.batches import MEASURED, Opened, parts_of, read_back
from interp.darkmatter.measure import DarkMatterConfig
from interp.darkmatter.run_pass import ErrorPass
from interp.darkmatter.synthetic import SyntheticConfig
from interp.errors import UserError
from interp.model.site import Site
from interp.saes.open import open_saes
from interp.text.contexts import ContextStream, corpus_rows

from .planted import OTHELLO, ids

SAE = {**OTHELLO, "saes": f"{OTHELLO['saes']}/saes/topk-L2-S0"}


@pytest.fixture(scope="module")
def saes():
    return open_saes(SAE["saes"], SAE["site"])


def error_pass(subject, saes, earlier=(), **changes):
    """As the study makes it."""
    config = DarkMatterConfig(**{**SAE, **changes})
    stream = config.stream(subject, saes, (each.site for each in earlier))
    return ErrorPass(stream, saes, config.contexts, config.ridge, config.downstream, earlier)


def test_a_token_knows_its_document(llama, tmp_path):
    for name, size in (("a", 45), ("b", 8), ("c", 60)):
        (tmp_path / f"{name}.txt").write_text(name * size)
    stream = ContextStream(llama, [Site("resid_post", 0)], str(tmp_path), 10, longest=0.0)
    (part,) = stream.contexts(stream.rows(9), 9, 9)
    _, tokens = stream.read(part)
    assert part.document.tolist() == [0, 0, 0, 0, 1, 2, 2, 2, 2]
    assert tokens.document.tolist() == [d for d in part.document.tolist() for _ in range(9)]
    some = part.rows(part.document == 1)
    assert some.context.tolist() == [4]
    assert torch.equal(stream.read(some)[1].token, tokens.token[tokens.document == 1])


def test_every_stored_row_is_a_document(llama, tmp_path):
    path = ids(tmp_path / "ids.safetensors", [[1, 2, 3, 4], [5, 6], [7, 8, 9]])
    assert list(corpus_rows(llama, path, 3)) == [(0, [1, 2, 3]), (1, [5, 6]), (2, [7, 8, 9])]


def test_rows_that_are_skipped_whole(llama, tmp_path):
    path = ids(tmp_path / "ids.safetensors", [[1, 2], [3], [4], [5], [6, 7, 8]])
    stream = ContextStream(llama, [Site("resid_post", 0)], path, 3)
    parts = list(stream.contexts(stream.rows(5), 5, 2))
    assert [part.context.tolist() for part in parts] == [[0, 1], [4]]


def test_a_study_of_rows_that_are_too_short(othello, saes, tmp_path):
    rows = [[1 + i % 60 for i in range(20)]] * 30 + [[5]] * 70
    path = ids(tmp_path / "ids.safetensors", rows)
    made = error_pass(othello, saes, corpus=path, length=20, tokens=2000, ridge=1e-3)
    with pytest.raises(
        UserError, match="the contexts to fit norms on have no token past the first"
    ):
        made.read()


def test_too_few_tokens_are_refused_before_they_are_read(othello, saes, monkeypatch):
    monkeypatch.setattr(ContextStream, "contexts", None)
    with pytest.raises(UserError, match="76 tokens do not determine a linear map of 128 numbers"):
        error_pass(othello, saes, length=20, tokens=200)


def test_earlier_is_earlier(othello, saes):
    def at(site):
        return error_pass(othello, saes, (dataclasses.replace(saes, site=Site.parse(site)),))

    assert at("2.mlp_out").stream.sites[1] == Site.parse("2.mlp_out")
    for site in ("2.resid_post", "3.resid_post"):
        with pytest.raises(UserError, match=f"--earlier {site} is not before 2.resid_post"):
            at(site)


def test_planted_noise_is_scaled_by_what_is_read(othello, monkeypatch):
    """One massive activation among the first contexts does not set the noise of all."""
    config = SyntheticConfig(**SAE)
    usual = config.error_source(othello).variance
    capture = othello.capture

    def with_a_sink(batch, sites):
        captured = capture(batch, sites)
        captured[sites[0]][0, 8] *= 1000
        return captured

    monkeypatch.setattr(othello, "capture", with_a_sink)
    assert config.error_source(othello).variance == pytest.approx(usual, rel=0.05)


def test_the_contexts_run_again_are_spread_evenly(othello, saes):
    made = error_pass(othello, saes, tokens=59 * 21, downstream=3, ridge=1e-3)
    made.read()
    assert made.costs.documents == [16, 18, 20]
    assert made.documents == {"measured": 7, "priced": 3}


def test_a_part_is_the_same_whatever_came_before(othello, saes):
    config = DarkMatterConfig(**SAE)
    stream = config.stream(othello, saes)
    stream.median = 10.0
    first, second = parts_of(stream.rows(4), MEASURED, 0, 4)
    opened = Opened(stream, saes)
    alone = opened.read(second)
    opened.read(first)
    again = opened.read(second)
    one, other = (read_back(made, torch.device("cpu")) for made in (alone, again))
    assert one.contexts.context.tolist() == [2, 3]
    assert torch.equal(one.tokens.x, other.tokens.x)
    assert torch.equal(one.errors.error, saes.errors(one.tokens.x).error)
    assert torch.equal(one.losses.nan_to_num(-1), other.losses.nan_to_num(-1))
    assert str(second) == "contexts 2 to 3"


def test_planted_noise_is_made_in_order_and_not_by_part(othello):
    """It goes on from one part to the next."""
    config = SyntheticConfig(**SAE)
    planted = config.error_source(othello)
    stream = config.stream(othello, planted)
    (part,) = parts_of(stream.rows(2), 0, 0, 2)
    state = planted.generator.get_state()
    assert read_back(Opened(stream, planted).read(part), torch.device("cpu")).errors is None
    assert torch.equal(planted.generator.get_state(), state)


def test_a_corpus_that_ends_is_said_before_it_is_read(othello, saes, tmp_path):
    path = ids(tmp_path / "ids.safetensors", [[1 + i % 60 for i in range(20)]] * 33)
    made = error_pass(othello, saes, corpus=path, length=20, tokens=2000, ridge=1e-3)
    with pytest.raises(UserError, match="the corpus ended after 33 contexts"):
        made.read()
