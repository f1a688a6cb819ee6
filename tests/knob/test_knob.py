"""The learned knob: a planted one is found, and its algebra holds."""

import pytest
import torch

from interp.errors import UserError
from interp.knob.evaluate import scores
from interp.knob.last import LastToken
from interp.knob.learn import knobs_of, saved
from interp.knob.prompts import Prompter, Row, rows_of
from interp.knob.steer import baselines, chosen, make_knob, perplexity, states, steered, sweep
from interp.knob.subspace import Learning, Pairs, interchange, learn, orthonormal, swapped
from interp.model.edits import set_coordinate
from interp.model.site import Site

from .planted import KNOB, TOLD, WIDTH, items, planted, tokenizer

LAYER = 1  # the switch layer's output, before the last layer's MLP
SITE = Site("resid_post", LAYER)


@pytest.fixture(scope="module")
def subject():
    prompter = Prompter(tokenizer(), template="plain")
    length = len(prompter.ids(rows_of(items())[0]))
    return planted(3, range(LAYER, LAYER + 1), length)


@pytest.fixture(scope="module")
def prompter(subject):
    return Prompter(subject.tokenizer, template="plain")


@pytest.fixture(scope="module")
def learned(subject, prompter):
    bases, curve = learn(subject, prompter, items() * 6, [0, LAYER], Learning(lr=0.02))
    return bases, curve


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
    pairs = [Pairs.of(subject, prompter, items()[:20])]
    assert swapped(pairs, SITE, bases[LAYER])[1] == 1
    # before the switch layer there is no intent at the last token yet
    assert swapped(pairs, Site("resid_post", 0), None)[1] == 0


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
    pairs = Pairs.of(subject, prompter, items()[:2])
    u = torch.zeros(1, WIDTH)
    u[0, KNOB] = 1
    h = pairs.last.run(sites=[SITE]).sites[SITE]
    after = pairs.last.run([interchange(SITE, u, h[pairs.other])], [SITE]).sites[SITE]
    torch.testing.assert_close(after @ u[0], h[pairs.other] @ u[0])
    nothing = pairs.last.run([interchange(SITE, u, h)]).logits
    torch.testing.assert_close(nothing, pairs.last.run().logits)


def test_the_sweep_finds_both_ends_and_steering_needs_no_intent(subject, prompter, learned):
    bare = Prompter(subject.tokenizer, "none", template="plain")
    rows = rows_of(items()[::3])
    h = states(subject, prompter, rows, SITE)
    others = baselines(SITE, h, rows, 0)
    vectors = {"learned": learned[0][LAYER][0], **others}
    knobs = [make_knob(name, SITE, v, h, rows) for name, v in vectors.items()]
    curve = sweep(subject, bare, items()[:20], knobs)
    found, values = {}, {}
    for knob in knobs:
        context, prior = chosen(curve, knob.name)
        assert (context - prior) * (knob.context - knob.prior) > 0 or knob.name == "random"
        values[knob.name] = context, prior
    table = steered(subject, bare, items()[20:40], knobs, values, 16)
    for name, rows in table.groupby("direction"):
        found[name] = scores(rows)["pair_acc"]
    _steers_as_an_edit_in_scope_does(subject, bare, knobs[0], values, table)
    assert found["learned"] == 1
    assert found["mean difference"] == 1
    assert found["random"] < 1  # in so few dimensions a long way along any is a turn of the knob
    rest = curve[curve["step"].isna()]
    assert len(rest) == len(knobs)
    assert rest["told"].max() == 0


def _steers_as_an_edit_in_scope_does(subject, bare, knob, values, table):
    """Naive: the subject's own generate, edited."""
    told = {(x.subject, x.told): x for x in items()}
    rows = table[table["direction"] == knob.name].to_dict("records")[:6]
    for row in rows:
        prompt = bare.ids(Row(told[row["subject"], row["told"]], row["intent"]))
        c = values[knob.name][0 if row["intent"] == "context" else 1]
        with subject.edited(set_coordinate(SITE, knob.vector, c, "last")):
            ids = subject.generate(subject.pad([prompt]), 10)
        assert subject.text(ids[0]).strip() == row["text"]


def test_the_saved_knob_is_the_same_knob(tmp_path, subject, prompter):
    from interp.directions import Directions

    rows = rows_of(items()[:8])
    h = states(subject, prompter, rows, SITE)
    knob = make_knob("learned", SITE, torch.eye(WIDTH)[KNOB], h, rows)
    assert knob.context > 0 > knob.prior
    saved([knob], {"learned": (3.0, -2.0)}, {"model": "own"}).save(tmp_path / "knob")
    found = Directions.load(tmp_path / "knob")
    again = knobs_of(found)[0]
    assert again[:2] == knob[:2]
    assert again[3:] == knob[3:]
    torch.testing.assert_close(again.vector, knob.vector)
    assert found.index["context_c"].tolist() == [3.0]
    assert found.model == "own"


def test_perplexity_without_a_turn_is_plain_and_with_one_is_not(subject, prompter, learned):
    rows = [prompter.ids(row) for row in rows_of(items()[:2])]
    vector = torch.eye(WIDTH)[TOLD]
    knob = make_knob("told", SITE, vector, torch.randn(4, WIDTH), rows_of(items()[:2]))
    found = perplexity(subject, knob, rows, [0.0, 50.0])
    logprobs = [subject.logits(torch.tensor(row))[0, :-1].log_softmax(-1) for row in rows]
    chances = [p[range(len(row) - 1), row[1:]] for p, row in zip(logprobs, rows, strict=True)]
    for start in (0, 16):
        plain, zero, turned = (x for x in found if x["position"] == start)
        part = torch.cat([x[start : start + 16] for x in chances])
        assert plain["nats"] == pytest.approx(-float(part.mean()), rel=1e-5)
        assert plain["tokens"] == len(part)
    assert turned["nats"] != pytest.approx(plain["nats"], rel=1e-3)  # after the intent, that is
    assert sum(x["tokens"] for x in found) == 3 * sum(len(row) - 1 for row in rows)


def test_answers_that_begin_alike_are_refused(subject, prompter):
    from dataclasses import replace

    alike = replace(items()[0], told=items()[0].prior)
    with pytest.raises(UserError, match="same token"):
        Pairs.of(subject, prompter, [alike])
    with pytest.raises(UserError, match="make no batch"):
        learn(subject, prompter, items()[:2], [0], Learning())
    with pytest.raises(UserError, match="at least two tokens"):
        LastToken(subject, [[1]])
    bare = Prompter(subject.tokenizer, "instruction", template="plain")
    with pytest.raises(UserError, match="leaves the intent out"):
        sweep(subject, bare, items()[:1], [])
    assert bare.ids(Row(items()[0], "prior")) != bare.ids(Row(items()[0], "context"))
