"""Gemma 3 270M: its loss on the default corpus, by every way that feeds text."""

import itertools
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from interp.directions import Directions
from interp.knob.effects import text_nats
from interp.model.catalog import resolve
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.obsprop.scoring import corpus_rows
from interp.text.contexts import ContextStream
from interp.text.corpus import read_corpus, token_rows

pytestmark = pytest.mark.slow
LENGTH, ROWS = 128, 16


@pytest.fixture(scope="module")
def subject():
    return open_subject("gemma3-270m")


@pytest.fixture(scope="module")
def plain():
    """transformers and its own tokenizer: rows of ids behind <bos>, and the loss of each token but
    the first [rows, LENGTH - 2] in nats."""
    folder = resolve("gemma3-270m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    texts = (tokenizer(text).input_ids for text in read_corpus(None))
    ids = list(itertools.islice(itertools.chain.from_iterable(t[1:] for t in texts), 2**12))
    rows = torch.tensor(ids[: ROWS * (LENGTH - 1)]).view(ROWS, LENGTH - 1)
    rows = torch.cat([torch.full((ROWS, 1), tokenizer.bos_token_id), rows], 1)
    return rows, losses(lambda x: model(input_ids=x).logits, rows)


@torch.no_grad()
def losses(logits, rows):
    parts = []
    for row in rows.split(2):
        logprobs = logits(row)[:, 1:-1].float().log_softmax(-1)
        parts.append(-logprobs.gather(2, row[:, 2:, None])[..., 0])
    return torch.cat(parts)


def test_the_rows_of_every_path_are_transformers(subject, plain):
    rows = plain[0].tolist()
    assert list(token_rows(read_corpus(None), subject.prompting, LENGTH, ROWS * LENGTH)) == rows
    assert corpus_rows(subject, None, ROWS * LENGTH) == rows
    stream = ContextStream(subject, [Site("resid_post", 0)], "", LENGTH)
    assert [ids for _, ids in stream.rows(ROWS)] == rows


def test_the_loss_is_transformers_and_bos_is_what_makes_it(subject, plain):
    rows, wanted = plain
    torch.testing.assert_close(losses(subject.logits, rows), wanted, atol=1e-3, rtol=0)
    stream = ContextStream(subject, [Site("resid_post", 0)], "", LENGTH, longest=0.0)
    parts = stream.contexts(stream.rows(ROWS), ROWS, 4)
    measured = torch.cat([p.losses(subject.logits(p.batch))[p.chosen.cpu()] for p in parts])
    measured = measured[~measured.isnan()]
    torch.testing.assert_close(measured, wanted.flatten(), atol=1e-3, rtol=0)
    bare = losses(subject.logits, rows[:, 1:]).mean()
    assert float(bare) > float(wanted.mean()) + 1


def test_the_knobs_cost_of_text_begins_there(subject, plain):
    rows, wanted = plain
    knob = Directions.of(torch.eye(640)[:1], "9.resid_post", "gemma3-270m", "any", "a test")
    unsteered = [x for x in text_nats(subject, knob, rows.tolist(), []) if math.isnan(x["c"])]
    total = sum(line["nats"] * line["tokens"] for line in unsteered)
    assert sum(line["tokens"] for line in unsteered) == ROWS * (LENGTH - 2)
    assert total / wanted.numel() == pytest.approx(float(wanted.mean()), abs=1e-3)


def test_it_goes_on_as_transformers_does(subject):
    batch = subject.tokens("My friend Mary is an excellent")
    assert subject.text(subject.generate(batch, 1)[0]) == " teacher"
