"""The learned knob: a planted one is found, and its algebra holds."""

import pandas as pd
import pytest
import torch

from interp.directions import Directions
from interp.errors import UserError
from interp.knob.effects import text_nats
from interp.knob.evaluate import scores
from interp.knob.last_token_cache import CachedPrompts
from interp.knob.prompts import Prompter, Row, rows_of
from interp.knob.steer import (
    at_best,
    baselines,
    knobs_along,
    last_token_states,
    steered_answers,
    sweep,
    sweep_values,
)
from interp.knob.subspace import (
    IntentPairs,
    interchange,
    learn_subspaces,
    orthonormal,
    swap_loss_and_share,
)
from interp.model.edits import set_coordinate
from interp.model.site import Site

from .conftest import SWITCH as LAYER  # its output is read before the last layer's MLP
from .planted import CONTEXT, KNOB, WIDTH, items

SITE = Site("resid_post", LAYER)


@pytest.fixture(scope="module")
def learned(subject, prompter):
    return learn_subspaces(subject, prompter, items() * 3, [0, LAYER], lr=0.05)


def test_the_planted_knob_is_learned(subject, prompter, learned):
    bases, curve = learned
    u = bases[LAYER][0]
    assert abs(float(u[KNOB])) > 0.95
    first, last = (
        sum(c["loss"] for c in part) / len(part)
        for part in (
            [c for c in curve if c["layer"] == LAYER][:5],
            [c for c in curve if c["layer"] == LAYER][-5:],
        )
    )
    assert last < first / 3
    pairs = [IntentPairs.of(subject, prompter, items()[:20])]
    assert swap_loss_and_share(pairs, SITE, bases[LAYER])[1] == 1
    # before the switch layer there is no intent at the last token yet
    assert swap_loss_and_share(pairs, Site("resid_post", 0), None)[1] == 0


def test_projections_equal_the_naive_matrix():
    torch.manual_seed(0)
    h, source = (torch.randn(5, 1, 12, dtype=torch.float64) for _ in range(2))
    rows = orthonormal(torch.randn(3, 12, dtype=torch.float64))
    torch.testing.assert_close(rows @ rows.T, torch.eye(3, dtype=torch.float64))
    projection = rows.T @ rows
    eye = torch.eye(12, dtype=torch.float64)
    naive = h @ (eye - projection) + source @ projection
    edit = interchange(SITE, rows, source[:, 0])
    torch.testing.assert_close(edit.change(h), naive)
    everything = interchange(SITE, eye, source[:, 0])
    torch.testing.assert_close(everything.change(h), source)


def test_the_knobs_algebra():
    torch.manual_seed(1)
    h = torch.randn(4, 3, 10, dtype=torch.float64)
    u = torch.randn(10, dtype=torch.float64)
    u = u / u.norm()
    new = set_coordinate(SITE, u, 2.5).change(h)
    torch.testing.assert_close(new @ u, torch.full((4, 3), 2.5, dtype=torch.float64))
    rest = torch.eye(10, dtype=torch.float64) - torch.outer(u, u)
    torch.testing.assert_close(new @ rest, h @ rest)
    torch.testing.assert_close(set_coordinate(SITE, -u, -2.5).change(h), new)
    one = h[:1, :1]
    same = set_coordinate(SITE, u, float(one[0, 0] @ u)).change(one)
    torch.testing.assert_close(same, one)


def test_a_source_takes_its_coordinate_along(subject, prompter):
    """After the interchange u.h is the source's; an edit to the value it has changes nothing."""
    pairs = IntentPairs.of(subject, prompter, items()[:2])
    u = torch.zeros(1, WIDTH)
    u[0, KNOB] = 1
    h = pairs.prompts.run(sites=[SITE]).sites[SITE]
    after = pairs.prompts.run([interchange(SITE, u, h[pairs.other])], [SITE]).sites[SITE]
    torch.testing.assert_close(after @ u[0], h[pairs.other] @ u[0])
    nothing = pairs.prompts.run([interchange(SITE, u, h)]).logits
    torch.testing.assert_close(nothing, pairs.prompts.run().logits)


def test_the_sweep_finds_both_ends_and_steering_needs_no_intent(subject, prompter, learned):
    bare = Prompter(subject.prompting, "none", template="plain")
    rows = rows_of(items()[::3])
    h = last_token_states(subject, prompter, rows, SITE)
    vectors = {"learned": learned[0][LAYER][0], **baselines(h, rows, 0)}
    knobs = knobs_along(SITE, vectors, h, rows)
    curve = sweep(subject, bare, items()[:12], knobs)
    pair_acc, knobs = {}, at_best(knobs, curve)
    for knob in knobs.index.itertuples():
        swept = (knob.context_c - knob.prior_c) * (knob.context - knob.prior)
        assert swept > 0 or knob.direction == "random"
    table = steered_answers(subject, bare, items()[20:40], knobs, 16)
    for name, rows in table.groupby("direction"):
        pair_acc[name] = scores(rows)["pair_acc"]
    _steers_as_an_edit_in_scope_does(subject, bare, knobs, table)
    assert pair_acc["learned"] == 1
    assert pair_acc["mean difference"] == 1
    assert pair_acc["random"] < 1  # in so few dimensions a long way along any is a turn of the knob
    rest = curve[curve["step"].isna()]
    assert len(rest) == len(knobs)
    assert rest["told"].max() == 0


def _steers_as_an_edit_in_scope_does(subject, bare, knobs, table):
    """Naive: the subject's own generate, edited."""
    item_of = {(x.subject, x.context_answer): x for x in items()}
    rows = table[table["direction"] == "learned"].to_dict("records")[:4]
    for row in rows:
        prompt = bare.ids(Row(item_of[row["subject"], row["told"]], row["intent"]))
        c = float(knobs.index[f"{row['intent']}_c"][0])
        with subject.edited(set_coordinate(SITE, knobs.vectors[0], c, "last")):
            ids = subject.generate(subject.pad([prompt]), 10)
        assert subject.text(ids[0]).strip() == row["text"]


def test_a_knob_is_a_unit_vector_with_its_values(subject, prompter):
    rows = rows_of(items()[:8])
    h = last_token_states(subject, prompter, rows, SITE)
    knob = knobs_along(SITE, {"learned": 3 * torch.eye(WIDTH)[KNOB]}, h, rows)
    assert torch.equal(knob.vectors, torch.eye(WIDTH)[[KNOB]])
    follows = h[[row.intent == "context" for row in rows], KNOB]
    row = knob.index.iloc[0]
    assert row["context"] > 0 > row["prior"]
    assert row["context"] == pytest.approx(float(follows.double().mean()))
    assert row["spread"] == pytest.approx(float(h[:, KNOB].double().std()))
    assert sweep_values(knob)[0][8] == (row["context"] + row["prior"]) / 2


def test_text_costs_what_it_does_unsteered_and_more_steered(subject, prompter):
    rows = [prompter.ids(row) for row in rows_of(items()[:2])]
    vector = torch.eye(WIDTH)[CONTEXT]
    knob = Directions(SITE, vector[None], pd.DataFrame({"name": ["context's"]}))
    lines = text_nats(subject, knob, rows, [0.0, 50.0])
    logprobs = [subject.logits(torch.tensor(row))[0, :-1].log_softmax(-1) for row in rows]
    chances = [p[range(len(row) - 1), row[1:]] for p, row in zip(logprobs, rows, strict=True)]
    for start in (0, 16):
        plain, zero, turned = (x for x in lines if x["position"] == start)
        part = torch.cat([x[start : start + 16] for x in chances])
        assert plain["nats"] == pytest.approx(-float(part.mean()), rel=1e-5)
        assert plain["tokens"] == len(part)
    assert turned["nats"] != pytest.approx(plain["nats"], rel=1e-3)  # after the intent, that is
    assert sum(x["tokens"] for x in lines) == 3 * sum(len(row) - 1 for row in rows)


def test_answers_that_begin_alike_are_refused(subject, prompter):
    from dataclasses import replace

    alike = replace(items()[0], context_answer=items()[0].prior_answer)
    with pytest.raises(UserError, match="same token"):
        IntentPairs.of(subject, prompter, [alike])
    with pytest.raises(UserError, match="a batch of 8 rows needs more than 2 items"):
        learn_subspaces(subject, prompter, items()[:2], [0])
    with pytest.raises(UserError, match="at least two tokens"):
        CachedPrompts(subject, [[1]])
    bare = Prompter(subject.prompting, "instruction", template="plain")
    with pytest.raises(UserError, match="leaves the intent out"):
        sweep(subject, bare, items()[:1], None)
    assert bare.ids(Row(items()[0], "prior")) != bare.ids(Row(items()[0], "context"))
