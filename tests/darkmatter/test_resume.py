"""Studies that are stopped or killed: the same command gives what an unbroken run gives, bit for
bit, and reads again no more than what came after the last checkpoint."""

from dataclasses import replace

import pandas as pd
import pytest

from interp.darkmatter import error_saes
from interp.darkmatter.error_saes import ErrorSaesConfig
from interp.darkmatter.ladder import LadderConfig
from interp.darkmatter.measure import DarkMatterConfig
from interp.darkmatter.run_pass import ErrorPass
from interp.darkmatter.synthetic import SyntheticConfig
from interp.runs import checkpoint
from interp.runs.store import Store
from interp.runs.study import run_or_load
from interp.saes import feed, train
from interp.text.contexts import ContextStream

from ..forked import die, killed
from ..workers import by_copies
from .planted import OTHELLO

SAES = f"{OTHELLO['saes']}/saes"
SMALL = {**OTHELLO, "saes": f"{SAES}/topk-L2-S0", "tokens": 59 * 20, "ridge": 1e-3}
RUN = DarkMatterConfig(**SMALL, earlier=(f"1.resid_post={SAES}/topk-L1-S0",))
UNTIMED = {"downstream": 0, "corpus": OTHELLO["corpus"]}
TRAINED = {name: SMALL[name] for name in ("model", "site", "corpus", "length")}
STUDIES = {
    "run": RUN,
    "synthetic": SyntheticConfig(**SMALL, absent=(0.3,), noise=(0.05,)),
    "errors": ErrorSaesConfig(
        **{**TRAINED, "saes": SMALL["saes"], "tokens": 128 * 10},
        ridge=1e-3,
        width=64,
        k=8,
        batch=128,
    ),
    "ladder": LadderConfig(
        **TRAINED, widths=(64,), k=(4, 8), tokens=128 * 24, batch=128, precision="float32"
    ),
}
LEFT = {"run": 2, "synthetic": 5, "errors": 2, "ladder": 4}
"""What is left to read after two stops, each half of the way: `synthetic` and `ladder` begin with a
read of their own."""
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A checkpoint after every batch, and few contexts beside those that are trained on."""
    for name in ("SECONDS", "SHARE"):
        monkeypatch.setattr(checkpoint, name, 0)
    monkeypatch.setattr(error_saes, "FIT_TOKENS", 59 * 8)
    monkeypatch.setattr(error_saes, "CHECKED", 2)
    monkeypatch.setattr(error_saes, "POOL", 400)
    monkeypatch.setattr(train, "OBSERVED", 2)
    monkeypatch.setattr(feed, "HELD_OUT", 4)
    monkeypatch.setattr(feed, "MEASURED", 4)
    monkeypatch.setattr(feed, "POOL", 400)


def same(one, other):
    """Two runs are the same but for the time they took."""
    assert {n: f["sha256"] for n, f in one.manifest["files"].items()} == {
        n: f["sha256"] for n, f in other.manifest["files"].items()
    }
    for name in one.manifest["files"]:
        if name.endswith(".parquet"):
            tables = (run.table(name.removesuffix(".parquet")) for run in (one, other))
            pd.testing.assert_frame_equal(*tables, check_exact=True)
    own = set(one.manifest) - {"seconds", "wall_s", "finished", "peak_memory_bytes", "seal"}

    abouts = [{name: run.manifest[name] for name in own} for run in (one, other)]
    for about in abouts:
        about["config"] = {**about["config"], "workers": "any"}
    assert abouts[0] == abouts[1]
    assert not list(one.path.rglob(".*.pieces"))


def dies(store, at):
    """`darkmatter run`, killed when it reads for the `at`th time."""
    read, calls = ContextStream.read, []

    def dying(stream, part):
        calls.append(part)
        if len(calls) == at:
            die()
        return read(stream, part)

    ContextStream.read = dying
    run_or_load(RUN, store)


@pytest.mark.parametrize("study", STUDIES)
def test_a_stopped_study_reads_nothing_twice(study, tmp_path, monkeypatch):
    """Stopped twice half of the way; `run` by kill -9 the first time."""
    config, read, calls = STUDIES[study], ContextStream.read, []

    def counted(stream, part):
        calls.append(part.context.tolist())
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return read(stream, part)

    monkeypatch.setattr(ContextStream, "read", counted)
    stop_at = -1
    whole = run_or_load(config, Store(tmp_path / "whole"))
    half, stopped = len(calls) // 2, Store(tmp_path / "stopped")
    if study == "run":
        killed(dies, stopped, half)
    stop_at = half
    for _ in range(1 if study == "run" else 2):
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            run_or_load(config, stopped)
    calls.clear()
    stop_at = -1
    same(whole, run_or_load(config, stopped))
    assert len(calls) == LEFT[study]


def test_several_workers_make_the_same(tmp_path, monkeypatch):
    """Stopped in one process amid the contexts that norms are fitted on, finished by two workers,
    neither of which takes what is made."""
    whole = run_or_load(RUN, Store(tmp_path / "whole"))
    take, calls = ErrorPass._take, []

    def stopped(errors, number, made):
        calls.append(number)
        if calls.count(1) == 2:
            raise KeyboardInterrupt
        take(errors, number, made)

    store = Store(tmp_path / "stopped")
    monkeypatch.setattr(ErrorPass, "_take", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_or_load(RUN, store)
    monkeypatch.setattr(ErrorPass, "_take", take)
    with by_copies():
        same(whole, run_or_load(replace(RUN, workers="2"), store))
