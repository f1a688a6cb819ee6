"""Studies that are stopped go on where they were: their results are those of unbroken runs."""

import pytest

from interp.othello import board_labels, readers
from interp.othello.probe import ProbeConfig
from interp.othello.sae import SaeConfig
from interp.runs import checkpoint
from interp.runs.store import Store, open_run
from interp.runs.study import run_or_load
from interp.saes.learner import Learner


def hashes(run):
    return {name: part["sha256"] for name, part in run.manifest["files"].items()}


def stopped_at(monkeypatch, module, name, at):
    """A function raises when it is called for the `at`th time; gives the list of its calls."""
    calls, kept = [], getattr(module, name)

    def counted(*given, **options):
        calls.append(given)
        if len(calls) == at:
            raise KeyboardInterrupt
        return kept(*given, **options)

    monkeypatch.setattr(module, name, counted)
    return calls


def test_autoencoders_are_trained_on(tiny, saes, tmp_path, monkeypatch):
    """Two seeds of 4 SAEs in 39 steps: stopped in the 20th step of the first, then of the other."""
    for name in ("SECONDS", "SHARE"):
        monkeypatch.setattr(checkpoint, name, 0)
    config = SaeConfig(str(tiny), tokens=20_000, d_sae=48, k=4, seeds=(0, 1), batch=512)
    out = tmp_path / "run"
    for at in (4 * 19 + 1, 4 * (20 + 19) + 1):
        with monkeypatch.context() as patch:
            stopped_at(patch, Learner, "step", at)
            with pytest.raises(KeyboardInterrupt):
                run_or_load(config, out=out)
    steps = stopped_at(monkeypatch, Learner, "step", -1)
    passes = stopped_at(monkeypatch, board_labels, "read_activations", -1)
    made = run_or_load(config, out=out)
    assert len(steps) == 4 * 20
    assert len(passes) == 2, "the chunk of games in which it stopped, and what is measured"
    assert hashes(made) == hashes(open_run(saes))


def test_a_site_is_probed_once(tiny, tmp_path, monkeypatch):
    config = ProbeConfig(str(tiny), fit_games=20, score_games=20, passes=2)
    whole = run_or_load(config, Store(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stopped_at(patch, readers, "colour_rows", 3)
        with pytest.raises(KeyboardInterrupt):
            run_or_load(config, Store(tmp_path / "stopped"))
    probed = stopped_at(monkeypatch, readers, "probe_rows", -1)
    made = run_or_load(config, Store(tmp_path / "stopped"))
    assert len(probed) == 1
    assert hashes(made) == hashes(whole)
    assert made.metrics == whole.metrics
