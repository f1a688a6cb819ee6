"""Which side of a token its numbers are from: against plain transformers in float64."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from interp.directions import open_directions
from interp.errors import UserError
from interp.microscope.passed import Opened, passed, seen_of
from interp.microscope.scores import scored
from interp.microscope.tokens import token_table
from interp.model.subject import open_subject

TEXT = "w3 dog w5 w9 w9"
IDS = [3, 123, 5, 9, 9]


@pytest.fixture(scope="module")
def opened(dog_model):
    return Opened(open_subject(str(dog_model), attention="eager"))


@pytest.fixture(scope="module")
def logprobs(dog_model):
    model = AutoModelForCausalLM.from_pretrained(dog_model, dtype=torch.float64)
    with torch.no_grad():
        return model(torch.tensor([IDS])).logits[0].log_softmax(-1)


def test_a_token_s_probability_is_given_at_the_position_before(opened, logprobs):
    rows = token_table(passed(opened, TEXT), 3)
    assert rows["token"].tolist() == ["w3", "dog", "w5", "w9", "w9"]
    assert math.isnan(rows["probability"][0])
    assert rows["rank"].isna().tolist() == [True, False, False, False, False]
    assert rows["rank"].dtype == "Int64", "whole numbers, none for the first"
    for position in range(1, len(IDS)):
        before, token = logprobs[position - 1], IDS[position]
        row = rows.iloc[position]
        assert row["surprise"] == pytest.approx(-float(before[token]), rel=1e-3)
        assert row["probability"] == pytest.approx(float(before[token].exp()), rel=1e-3)
        place = before.argsort(descending=True).tolist().index(token) + 1
        assert row["rank"] == place


def test_a_look_of_before_shows_no_rank_of_the_first_token(opened):
    from interp.apps.prompt import shown_tokens

    rows = token_table(passed(opened, TEXT), 3)
    before = rows.assign(rank=rows["rank"].fillna(0).astype(int))
    assert shown_tokens(before)["rank"].equals(rows["rank"])


def test_what_is_said_after_a_token_is_said_at_its_position(opened, logprobs):
    rows = token_table(passed(opened, TEXT), 3)
    for position, own in enumerate(logprobs):
        names = ["dog" if i == 123 else f"w{i}" for i in own.topk(3).indices.tolist()]
        assert list(rows["next"][position]) == names
        expected = own.topk(3).values.exp().tolist()
        assert list(rows["next_probabilities"][position]) == pytest.approx(expected, rel=1e-3)
        entropy = torch.distributions.Categorical(logits=own).entropy()
        assert rows["entropy"][position] == pytest.approx(float(entropy), rel=1e-3)


def test_a_soft_cap_counts_for_probabilities(model_folder):
    """Gemma 2: what transformers gives, cap and all."""
    folder = model_folder("gemma2", final_logit_softcapping=0.05)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    opened = Opened(open_subject(str(folder), attention="eager", dtype=torch.float64))
    ids = [[3, 17, 5]]
    with torch.no_grad():
        own = model(torch.tensor(ids)).logits[0].log_softmax(-1)
    seen = seen_of(opened, opened.subject.pad(ids))
    for position in range(3):
        torch.testing.assert_close(seen.logprobs(position), own[position], atol=1e-6, rtol=0)
        assert float((seen.logits(position) - own[position]).std()) > 0.01


def test_special_tokens_are_marked(opened, monkeypatch):
    monkeypatch.setitem(opened.subject.prompting.__dict__, "special", (5,))
    rows = token_table(passed(opened, TEXT), 3)
    assert rows["special"].tolist() == [False, False, True, False, False]


def test_a_token_s_score_is_its_reading_s(opened, dog_model):
    directions = open_directions("1.down.17,1.down.3", str(dog_model))
    seen = passed(opened, TEXT)
    rows = scored(seen, directions)
    x = opened.subject.capture(seen.batch, ["1.mlp_post"])
    expected = next(iter(x.values()))[0][:, [17, 3]]
    found = rows.pivot(index="position", columns="name", values="score")[["1.down.17", "1.down.3"]]
    torch.testing.assert_close(torch.tensor(found.to_numpy()).float(), expected)


def test_what_is_too_long_is_refused(opened):
    with pytest.raises(UserError, match="shorten it"):
        passed(opened, TEXT, 3)
    with pytest.raises(UserError, match="0 to 4"):
        passed(opened, TEXT).position(5)
    with pytest.raises(UserError, match="empty"):
        passed(opened, "")


def test_the_last_two_texts_are_kept(opened):
    first = opened.passed(TEXT)
    opened.passed("w1 w2")
    assert opened.passed(TEXT) is first
    opened.passed("w1")
    opened.passed("w1 w2")
    assert opened.passed(TEXT) is not first
