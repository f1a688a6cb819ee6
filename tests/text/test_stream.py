"""Streams against the naive whole capture, and what they cost."""

import weakref
from unittest import mock

import pytest
import torch

from interp.directions import speed
from interp.errors import UserError
from interp.model import edits
from interp.model.subject import open_subject
from interp.text.stream import stream
from interp.timing import ratio_of, turns_of

from .conftest import HEADS, RESID, SITES, close


class TestStream:
    @pytest.mark.parametrize("batch_size", [1, 4, 100])
    def test_equals_the_whole_capture(self, subject, rows, whole, batch_size):
        batches = list(stream(subject, rows, map(str, SITES), batch_size))
        assert len(batches) == -(-len(rows) // batch_size)
        for site in SITES:
            close(torch.cat([batch[site] for batch in batches]), whole[site])

    def test_edits_in_scope_apply(self, subject, rows):
        with subject.edited(edits.clamp(RESID, 3, 7.0)):
            assert all((found[RESID][:, 3] == 7).all() for found in stream(subject, rows, [RESID]))

    def test_holds_one_batch(self, subject, rows):
        """Rows are read as they are needed, and nothing survives its turn."""
        read, alive, turns = [], [], 0

        def reading():
            for row in rows:
                read.append(row)
                yield row

        with mock.patch.object(subject, "capture", _remembering(subject.capture, alive)):
            for found in stream(subject, reading(), [RESID, HEADS], 4):  # enumerate would hold it
                turns += 1
                assert len(read) == min(4 * turns, len(rows))
                alive.extend(weakref.ref(x) for x in found.values())
                assert len(found[RESID]) <= 4 * 7
                del found
                assert not [x for x in (ref() for ref in alive) if x is not None]
        assert len(alive) == 2 * 2 * 5

    def test_stops_early(self, subject, rows):
        ran = []
        layer = subject._backend.model.model.layers[1]
        handle = layer.register_forward_hook(lambda *_: ran.append(1))
        list(stream(subject, rows, [RESID]))
        handle.remove()
        assert not ran

    def test_mistakes(self, subject, rows):
        with pytest.raises(UserError, match="no site '7.resid_post'"):
            stream(subject, rows, ["7.resid_post"])
        with pytest.raises(UserError, match="batches of 0 rows"):
            list(stream(subject, rows, [RESID], 0))
        for none in ([], iter([])):
            with pytest.raises(UserError, match="there are no rows of tokens"):
                list(stream(subject, none, [RESID]))
        with pytest.raises(UserError, match="an empty prompt"):
            list(stream(subject, [[1], []], [RESID]))

    def test_patterns_are_refused(self, model_folder):
        eager = open_subject(model_folder("llama"), attention="eager")
        with pytest.raises(UserError, match="attn_pattern has no vector per token"):
            stream(eager, [[1]], ["0.attn_pattern"])


def _remembering(capture, alive):
    def both(*args):
        found = capture(*args)
        alive.extend(weakref.ref(x) for x in found.values())
        return found

    return both


@pytest.mark.slow
def test_a_stream_costs_little_more_than_the_bare_forward():
    """A ratio, in turns in one process: 15.resid_post against the first 16 layers alone."""
    pair = speed.reading(open_subject("smollm2-135m"), "smollm2-135m")
    assert ratio_of(pair, turns_of(pair, 20)).ratio_cpu <= 1.15
