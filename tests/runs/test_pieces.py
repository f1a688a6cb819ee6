"""Tables that are made in pieces: a stop costs one piece, and leaves no trace in the result."""

import pandas as pd
import pytest

from interp.neurons.tars import TarsConfig
from interp.runs.manifest import SCHEMA, key_of
from interp.runs.store import Store
from interp.runs.study import run_or_load
from interp.runs.writer import RunWriter, writing


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
    assert stop.value.__notes__[0].startswith("the same command resumes with 1 finished part ")
    with writing(tmp_path / "run", plan()) as out:
        out.table("all/squares", pieces(out, squares([])))
        run = out.finish({})
    assert list(run.manifest["files"]) == ["all/squares.parquet"]
    assert not list(run.path.rglob("*pieces*"))


def test_a_removal_that_is_stopped_measures_no_edit_again(dog_model, tmp_path, monkeypatch):
    """Of 3 sets of 2 edits of one concept, it stops in the third set."""
    import interp.neurons.tars as tars

    (tmp_path / "text.txt").write_text("w1 w2 w3 w4 " * 20)
    (tmp_path / "concepts.yaml").write_text(
        "dog:\n  describe: w1 w2 w3\n  prompts: [w4 w5]\n"
        "  neighbour: {word: w9, prompts: [w7 w8]}\n"
    )
    files = {"file": str(tmp_path / "concepts.yaml"), "corpus": str(tmp_path / "text.txt")}
    config = TarsConfig(str(dog_model), **files, edits=(0, 2), tokens=40)
    whole = run_or_load(config, Store(tmp_path / "whole"))
    asked, calls = tars._asked, []

    def counted(*args):
        calls.append(args)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return asked(*args)

    monkeypatch.setattr(tars, "_asked", counted)
    stop_at = 6
    with pytest.raises(KeyboardInterrupt):
        run_or_load(config, Store(tmp_path / "stopped"))
    calls.clear()
    stop_at = -1
    again = run_or_load(config, Store(tmp_path / "stopped"))
    assert len(calls) == 2 + 2  # the third set's edits, and the concept by itself twice
    assert set(again.manifest["files"]) == set(whole.manifest["files"])
    for table in ("effects", "prompts", "means", "edits", "cumulative"):
        name = f"tars/{table}"
        pd.testing.assert_frame_equal(again.table(name), whole.table(name), rtol=1e-4, atol=1e-5)
