"""The layer search: on made curves, and on a model whose switch layers are planted."""

import math

import pytest
import torch

from interp.errors import UserError
from interp.knob.last_token_cache import CachedPrompts
from interp.knob.layer_search import Curves, Patching, find_layers
from interp.knob.prompts import Prompter, Row
from interp.model import edits
from interp.model.prompting import Prompting
from interp.model.site import Site

from ..conftest import make_model
from .planted import ANSWERS, items, planted, tokenizer


def needs(n_layers, wanted):
    """Curves of a model whose answer needs all of some layers."""

    def probe(layers):
        high = 0.95 if set(wanted) <= set(layers) else 0.1
        return Curves(torch.full((n_layers,), high), torch.full((n_layers,), 1 - high))

    return probe


@pytest.mark.parametrize("n_layers", [1, 2, 5, 12, 31])
def test_any_planted_range_is_found_exactly(n_layers):
    for low in range(n_layers):
        for high in range(low + 1, n_layers + 1):
            result = find_layers(needs(n_layers, range(low, high)), n_layers)
            assert result.layers == tuple(range(low, high))
            assert len(result.history) <= 2 * math.ceil(math.log2(n_layers)) + n_layers + 2
            assert result.history[-1][0] == result.layers


def test_a_layer_that_brings_the_target_back_is_added_once():
    """Layer 8 writes the target's answer again unless it is patched too."""

    def probe(layers):
        source = torch.full((10,), 0.95 if {3, 4} <= set(layers) else 0.1)
        if 8 not in layers:
            source[8:] = 0.2
        return Curves(source, 1 - source)

    result = find_layers(probe, 10)
    assert result.layers == (3, 4, 8)
    assert float(result.curves.source[-1]) == pytest.approx(0.95)


def test_a_target_that_never_gives_way_ends_the_search():
    flat = Curves(torch.full((6,), 0.5), torch.full((6,), 0.5))
    result = find_layers(lambda layers: flat, 6)
    assert result.layers == (0,)


def pair_of_answers(subject, n_layers):
    """A probe over two pairs of prompts that differ in what the context says."""
    prompter = Prompter(subject.prompting, "none", template="plain")
    by_answers = {(x.prior_answer, x.context_answer): x for x in items()}
    source = [by_answers[ANSWERS[0], ANSWERS[1]], by_answers[ANSWERS[2], ANSWERS[3]]]
    target = [by_answers[ANSWERS[0], ANSWERS[4]], by_answers[ANSWERS[2], ANSWERS[5]]]
    sides = [
        CachedPrompts(subject, [prompter.ids(Row(item, "context")) for item in side])
        for side in (source, target)
    ]
    ids = torch.tensor(
        [[prompter.first_token(item.context_answer) for item in side] for side in (source, target)]
    )
    identity = CachedPrompts(subject, [subject.tokenizer.encode("cat -> cat ?")])
    return Patching(subject, *sides, ids, identity)


@pytest.mark.parametrize("switch", [range(2, 4), range(0, 3), range(5, 8)])
def test_a_planted_models_switch_layers_are_found_exactly(switch):
    prompter = Prompter(Prompting(tokenizer()), "none", template="plain")
    length = len(prompter.ids(Row(items()[0], "context")))
    subject = planted(8, switch, length, straight=True)
    result = find_layers(pair_of_answers(subject, 8), 8)
    assert result.layers == tuple(switch)


def test_passes_grow_linearly_with_depth():
    prompter = Prompter(Prompting(tokenizer()), "none", template="plain")
    length = len(prompter.ids(Row(items()[0], "context")))
    passes = {}
    for depth in (8, 16):
        probe = pair_of_answers(planted(depth, range(1, 3), length, straight=True), depth)
        find_layers(probe, depth)
        passes[depth] = probe.passes
        assert probe.passes <= 1 + 2 * (2 * math.log2(depth) + depth + 2)
    assert passes[16] - passes[8] <= 2 * (16 - 8)


@pytest.mark.parametrize("start", [[], [3, 4, 2, 1]])
def test_the_last_token_alone_gives_what_the_whole_prompt_gives(start):
    """Rows of unlike length, with and without a shared beginning; an edit; a second run."""
    from interp.model.subject import open_subject

    subject = open_subject(make_model("llama", num_hidden_layers=3))
    rows = [*start, 5, 6, 7, 8, 9], [*start, 11, 12, 13], [*start, 11, 6]
    site, later = Site("resid_post", 1), Site("resid_post", 2)
    change = edits.add(site, torch.randn(32), 3.0, "last")
    last = CachedPrompts(subject, rows)
    last.run()
    result = last.run([change], [later])
    with subject.edited(change):
        torch.testing.assert_close(
            result.logits, subject.logits(subject.pad(rows))[:, -1], atol=1e-5, rtol=1e-5
        )
        whole = subject.capture(subject.pad(rows), [later])[later][:, -1]
    torch.testing.assert_close(result.sites[later], whole, atol=1e-5, rtol=1e-5)
    again = last.repeated(2).run([change]).logits
    torch.testing.assert_close(again, result.logits.repeat(2, 1), atol=1e-5, rtol=1e-5)
    with subject.edited(change):
        wanted = subject.generate(subject.pad(rows), 6)
    assert last.generate(6, [change]).tolist() == wanted.tolist()
    assert last.generate(6).tolist() == subject.generate(subject.pad(rows), 6).tolist()


@pytest.mark.parametrize("chance", [1e-7, float("nan")])
def test_nothing_is_found_where_nothing_is_brought(chance):
    curves = Curves(torch.full((4,), chance), torch.zeros(4))
    result = find_layers(lambda layers: curves, 4)
    assert result.layers == ()
    assert len(result.history) == 1


def test_prompts_beyond_the_context_are_refused():
    subject = planted(2, range(1), 9)
    with pytest.raises(UserError, match="model's context"):
        CachedPrompts(subject, [[1] * (subject.context + 1)])
