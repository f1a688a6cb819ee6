"""The pool of models: one copy, one user at a time, a limit, nothing left behind."""

import gc
import sys
import threading
import time
from contextlib import contextmanager

import pytest
import torch

from interp.apps import lending, pool
from interp.apps.lending import MODEL, OTHER, SAE, Pool
from interp.errors import UserError
from interp.knob import adapter
from interp.model import edits
from interp.model.site import Site

SECONDS = 120


class Box:
    """A thing of some bytes."""

    __module__ = "interp.tests"

    def __init__(self, size=100):
        self.tensor = torch.zeros(size, dtype=torch.uint8)


@contextmanager
def patient(name):
    """Waits without a window."""
    yield lambda: None


def lent(shelf, name, size=100, kind=MODEL, make=None, waiting=patient, **how):
    return shelf.lent((kind, name), name, size, make or (lambda: Box(size)), waiting, **how)


def started(target):
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def until(true):
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_one_copy_and_one_user_at_a_time_in_the_order_of_asking():
    shelf, order, inside, most, made = Pool(lambda: 1000), [], [], [], []

    def make():
        made.append(1)
        return Box()

    def use(number):
        with lent(shelf, "m", make=make):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.02)
            order.append(number)
            inside.remove(number)

    with lent(shelf, "m", make=make):
        threads = []
        for number in range(4):
            threads.append(started(lambda number=number: use(number)))
            until(lambda: len(shelf._things[MODEL, "m"].line) == len(threads) + 1)
    for thread in threads:
        thread.join(SECONDS)
    assert order == [0, 1, 2, 3]
    assert set(most) == {1}
    assert made == [1]


def test_the_least_recently_used_leaves_and_never_one_in_use():
    shelf = Pool(lambda: 250)
    first = {}
    for name in ("a", "b"):
        with lent(shelf, name) as first[name]:
            pass
    with lent(shelf, "a") as again:
        assert again is first["a"]
    with lent(shelf, "c"):
        assert {key[1] for key in shelf._things} == {"a", "c"}, "b was longest idle"
    assert shelf.bytes == 200
    with lent(shelf, "a") as again, lent(shelf, "x", kind=SAE):
        assert again is first["a"]
        assert {key[1] for key in shelf._things} == {"a", "x"}
    with lent(shelf, "b") as other:
        assert other is not first["b"]


def test_who_needs_room_waits_until_another_is_done():
    shelf, waits, done = Pool(lambda: 150), [], []

    @contextmanager
    def noted(name):
        waits.append(name)
        yield lambda: None

    def other():
        with lent(shelf, "b", waiting=noted):
            done.append(shelf.bytes)

    with lent(shelf, "a"):
        thread = started(other)
        until(lambda: waits)
        assert not done
    thread.join(SECONDS)
    assert (waits, done) == (["b"], [100])


def test_what_fits_nowhere_is_refused_at_once():
    shelf = Pool(lambda: 150)
    with pytest.raises(UserError, match="big takes .* at most"), lent(shelf, "big", 200):
        pass
    full = pytest.raises(UserError, match="x takes .* other windows")
    with lent(shelf, "a"), full, lent(shelf, "x", kind=SAE):
        pass
    assert shelf.bytes == 100
    with lent(shelf, "x", kind=SAE):
        assert shelf.bytes == 100, "the model left, being idle"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_pool_clean(error):
    shelf = Pool(lambda: 150)

    def fails():
        raise error

    with pytest.raises(error), lent(shelf, "a", make=fails):
        pass
    assert (len(shelf), shelf.bytes, shelf._things) == (0, 0, {})
    with pytest.raises(error), lent(shelf, "a"):
        raise error
    with lent(shelf, "a"):
        pass

    @contextmanager
    def stopped(name):
        def look():
            raise error

        yield look

    with lent(shelf, "a"):
        told = []

        def other():
            try:
                with lent(shelf, "a", waiting=stopped):
                    told.append("had it")
            except error as seen:
                told.append(seen)

        started(other).join(SECONDS)
        assert isinstance(told[0], error)
    with lent(shelf, "a"):
        assert len(shelf._things[MODEL, "a"].line) == 1, "its place in the line is given up"


def test_things_that_are_borrowed_together_have_an_order():
    shelf = Pool(lambda: 1000)
    for first, then in (
        (("x", SAE), ("a", MODEL)),
        (("y", SAE), ("x", SAE)),
        (("a", MODEL), ("b", MODEL)),
        (("a", MODEL), ("a", MODEL)),
    ):
        refused = pytest.raises(RuntimeError, match="the model first, then by key")
        with lent(shelf, first[0], kind=first[1]), refused, lent(shelf, then[0], kind=then[1]):
            pass


def test_two_that_need_each_other_s_room_do_not_wait_for_ever():
    """One has a model and asks for an SAE, for which another waits already for lack of room."""
    shelf, got = Pool(lambda: 250), []

    def alone():
        with lent(shelf, "sae", 200, kind=SAE):
            got.append("alone")

    with lent(shelf, "a"):
        thread = started(alone)
        until(lambda: (SAE, "sae") in shelf._things)
        with pytest.raises(UserError, match="other windows"), lent(shelf, "sae", 200, kind=SAE):
            pass
        assert not got
    thread.join(SECONDS)
    assert got == ["alone"]


def test_what_grows_is_counted_and_what_is_not_kept_leaves():
    shelf = Pool(lambda: 1000)
    with lent(shelf, "a", kind=OTHER) as box:
        box.more = torch.zeros(400, dtype=torch.uint8)
        box.same = box.more[:10]
    assert shelf.bytes == 500
    with lent(shelf, "run", 300, make=object, keep=False):
        assert shelf.bytes == 800
    assert shelf.bytes == 500


class TestModels:
    @pytest.fixture(autouse=True)
    def empty(self, own_home, monkeypatch):
        monkeypatch.setattr(pool, "POOL", Pool(lending.limit))

    def test_one_copy_by_content(self, dog_model, tmp_path):
        import shutil

        other = tmp_path / "a copy"
        shutil.copytree(dog_model, other)
        with pool.borrowed(str(dog_model)) as first:
            size = sum(p.numel() for p in first.network.parameters()) * 4
        with pool.borrowed(str(other), bos="never") as second:
            assert second is first, "the same weights under another name"
        assert len(pool.POOL) == 1
        assert size <= pool.POOL.bytes <= 1.1 * size
        before = pool.content(str(other))
        weights = other / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(bytes(data))
        assert pool.content(str(other)) != before

    def test_an_edit_never_stays(self, dog_model):
        held = edits.clamp(Site("mlp_post", 1), 17, 50.0)
        planned = pytest.raises(RuntimeError, match="planned")
        with planned, pool.borrowed(str(dog_model)) as subject, subject.edited(held):
            raise RuntimeError("planned")
        with pool.borrowed(str(dog_model)) as subject:
            subject.edits = (held,)
        with pool.borrowed(str(dog_model)) as subject:
            assert subject.edits == ()

    def test_a_run_that_opens_the_model_itself_counts(self, dog_model, monkeypatch):
        from interp.neurons.clamp import ClampConfig

        counted, config = [], ClampConfig(str(dog_model), "1.down.17", ("w1",), chat=False)
        make = pool.run_or_load
        monkeypatch.setattr(
            pool, "run_or_load", lambda study: [counted.append(pool.POOL.bytes), make(study)][1]
        )
        made = [pool.run(config) for _ in range(2)]
        assert made[0].path == made[1].path
        assert counted[0] > 0
        assert counted[1] == 0, "it is stored, so no model opens"
        assert pool.POOL.bytes == 0

    def test_the_limit_is_said_in_gib(self, dog_model, monkeypatch):
        monkeypatch.setenv(lending.MEMORY, "0.00001")
        with pytest.raises(UserError, match="--memory"), pool.borrowed(str(dog_model)):
            pass
        for wrong in ("much", "-1", "nan", "inf"):
            monkeypatch.setenv(lending.MEMORY, wrong)
            with pytest.raises(UserError, match="give the GiB"):
                lending.limit()
        monkeypatch.setenv(lending.MEMORY, "2.5")
        assert lending.limit() == 2.5 * 2**30
        monkeypatch.delenv(lending.MEMORY)
        assert 0 < lending.limit() <= lending.machine_memory() / 2


def test_what_is_imported_is_frozen_before_the_first_model_is_made(
    monkeypatch, dog_model, talking_model
):
    """What is frozen and refers to itself is never freed, which a model must be."""
    events = []
    monkeypatch.setattr(pool, "POOL", Pool(lambda: 10**9))
    monkeypatch.setattr(pool.gc, "freeze", lambda: events.append("frozen"))
    opened = adapter.open_tuned
    monkeypatch.setattr(
        adapter, "open_tuned", lambda *args, **how: events.append("made") or opened(*args, **how)
    )
    pool.import_for_models.cache_clear()
    for model in (dog_model, talking_model):
        with pool.borrowed(str(model)):
            pass
    assert events == ["frozen", "made", "made"]


def test_a_server_that_ends_leaves_everything_to_the_garbage_collector(monkeypatch):
    from interp.apps import serve

    def run(app, config):
        gc.freeze()
        raise KeyboardInterrupt

    monkeypatch.setattr(serve.st.App, "run", run)
    monkeypatch.setattr(sys, "argv", [])
    with pytest.raises(KeyboardInterrupt):
        serve.serve("127.0.0.1", 1, {"localhost"}, "", lambda: None)
    assert not gc.get_freeze_count()
    gc.freeze()  # as the tests have it
