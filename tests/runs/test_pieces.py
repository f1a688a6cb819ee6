"""Tables that are made in pieces: a stop costs one piece, and leaves no trace in the result."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from interp.errors import UserError
from interp.neurons.tars import TarsConfig
from interp.runs import checkpoint
from interp.runs.checkpoint import Checkpoint, restore_training, training_state
from interp.runs.making import writing
from interp.runs.manifest import SCHEMA, key_of
from interp.runs.store import Store
from interp.runs.study import run_or_load
from interp.runs.writer import RunWriter


def squares(asked):
    def make(numbers):
        asked.extend(numbers)
        return [{"n": n, "square": n * n} for n in numbers]

    return make


def pieces(out, make, items=range(10), size=4):
    return out.in_pieces("all/squares", list(items), make, size, "square", "numbers")


def test_only_what_is_missing_is_made(tmp_path):
    asked: list[int] = []

    def stopping(numbers):
        if 8 in numbers:
            raise KeyboardInterrupt
        return squares(asked)(numbers)

    out = RunWriter(tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        pieces(out, stopping)
    assert asked == list(range(8))
    whole = pieces(RunWriter(tmp_path, {}), squares(asked))
    assert asked == list(range(10))
    assert whole.equals(pd.DataFrame({"n": range(10), "square": [n * n for n in range(10)]}))


def test_pieces_of_another_size_are_not_taken_for_these(tmp_path):
    asked: list[int] = []
    out = RunWriter(tmp_path, {})
    pieces(out, squares(asked))
    assert pieces(out, squares(asked), size=5)["n"].tolist() == list(range(10))
    assert len(asked) == 20


def plan(key="k"):
    identity = {"study": "test.pieces", "version": 1, "config": {"of": key}, "fingerprints": {}}
    return {"schema": SCHEMA, **identity, "unkeyed": [], "key": key_of(identity)}


def test_the_stop_says_what_is_kept_and_the_end_removes_the_pieces(tmp_path):
    with pytest.raises(KeyboardInterrupt) as stop, writing(tmp_path / "run", plan()):
        raise KeyboardInterrupt
    assert stop.value.__notes__ == [
        "no part of its run is finished yet, so the same command starts over"
    ]
    with writing(tmp_path / "run", plan()) as out:
        pieces(out, squares([]), items=range(4))
    with pytest.raises(KeyboardInterrupt) as stop, writing(tmp_path / "run", plan()):
        raise KeyboardInterrupt
    assert stop.value.__notes__[0].startswith("the same command resumes with 1 finished file ")
    with writing(tmp_path / "run", plan()) as out:
        out.table("all/squares", pieces(out, squares([])))
        run = out.finish({})
    assert list(run.manifest["files"]) == ["all/squares.parquet"]
    assert not list(run.path.rglob("*pieces*"))


def test_a_checkpoint_is_kept_until_the_run_is_finished(tmp_path):
    held = {"x": torch.arange(3.0), "n": torch.tensor(2)}

    def stopped(out):
        state = Checkpoint(out, "deep/work")
        assert state.read() is None
        assert not state.due(), "it has just begun"
        state.write({"x": torch.zeros(3)}, {"step": 1})
        state.write(held, {"step": 2, "losses": [0.1, float("inf")], "of": "ä"})
        out.path.joinpath("deep", ".work.pieces", ".state.safetensors.making").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stop, writing(tmp_path / "run", plan()) as out:
        stopped(out)
    assert stop.value.__notes__ == ["the same command goes on from the last checkpoint"]
    with writing(tmp_path / "run", plan()) as out:
        tensors, note = Checkpoint(out, "deep/work").read()
        assert tensors.keys() == held.keys()
        assert all(torch.equal(tensors[name], x) for name, x in held.items())
        assert note == {"step": 2, "losses": [0.1, float("inf")], "of": "ä"}
        assert Checkpoint(out, "deep/other").read() is None
        path = out.path / "deep" / ".work.pieces" / "state.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(
            UserError, match=r"state.safetensors cannot be read .*: delete it to start"
        ):
            Checkpoint(out, "deep/work").read()
        out.table("all/squares", squares([])(range(3)))
        run = out.finish({})
    assert list(run.manifest["files"]) == ["all/squares.parquet"]
    assert not list(run.path.rglob("*state*"))


def test_checkpoints_take_a_small_share_of_the_time(tmp_path, monkeypatch):
    """One that takes 10 s to write is written again after 200 s, one that takes 1 s after 60."""
    clock = SimpleNamespace(now=0.0, takes=0.0)

    def slow(tensors, path, note):
        clock.now += clock.takes
        path.touch()

    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(checkpoint, "save_tensors", slow)
    state = Checkpoint(RunWriter(tmp_path, {}), "work")
    for takes, pause in ((1.0, 60.0), (10.0, 200.0)):
        clock.takes = takes
        state.write({})
        clock.now += pause - 1
        assert not state.due()
        clock.now += 1
        assert state.due()


def test_training_goes_on_with_what_adam_remembers(tmp_path):
    """Two steps, a checkpoint, two steps: as four steps of torch's own, to the last bit."""

    def steps(weight, optimiser, count):
        for _ in range(count):
            optimiser.zero_grad()
            (weight.square().sum() + weight.sum().sin()).backward()
            optimiser.step()

    def begun():
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 5))
        return weight, torch.optim.Adam([weight], 0.1)

    whole, stopped, resumed = begun(), begun(), begun()
    steps(*whole, 4)
    steps(*stopped, 2)
    state = Checkpoint(RunWriter(tmp_path, {}), "work")
    state.write(training_state([("w", stopped[0])], stopped[1]))
    restore_training(state.read().tensors, [("w", resumed[0])], resumed[1])
    steps(*resumed, 2)
    assert torch.equal(whole[0], resumed[0])
    fresh = begun()
    restore_training(training_state([("w", begun()[0])], begun()[1]), [("w", fresh[0])], fresh[1])
    steps(*fresh, 4)
    assert torch.equal(whole[0], fresh[0])


def test_a_removal_that_is_stopped_measures_no_edit_again(dog_model, tmp_path, monkeypatch):
    """Of 3 sets of 2 edits of one concept, it stops in the third set."""
    from interp.neurons.edit_measure import EditMeasure

    (tmp_path / "text.txt").write_text("w1 w2 w3 w4 " * 20)
    (tmp_path / "concepts.yaml").write_text(
        "dog:\n  describe: w1 w2 w3\n  prompts: [w4 w5]\n"
        "  neighbour: {word: w9, prompts: [w7 w8]}\n"
    )
    files = {"file": str(tmp_path / "concepts.yaml"), "corpus": str(tmp_path / "text.txt")}
    config = TarsConfig(str(dog_model), **files, edits=(0, 2), tokens=40)
    whole = run_or_load(config, Store(tmp_path / "whole"))
    asked, calls = EditMeasure._asked, []

    def counted(*args):
        calls.append(args)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return asked(*args)

    monkeypatch.setattr(EditMeasure, "_asked", counted)
    stop_at = 4  # the model as it is counts for all sets
    with pytest.raises(KeyboardInterrupt):
        run_or_load(config, Store(tmp_path / "stopped"))
    calls.clear()
    stop_at = -1
    again = run_or_load(config, Store(tmp_path / "stopped"))
    assert len(calls) == 2 + 1  # the third set's edits, and the concept by itself
    assert set(again.manifest["files"]) == set(whole.manifest["files"])
    for table in ("effects", "prompts", "means", "edits", "cumulative"):
        name = f"tars/{table}"
        pd.testing.assert_frame_equal(again.table(name), whole.table(name), rtol=1e-4, atol=1e-5)
