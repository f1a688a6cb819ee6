"""Where compiled code is kept: shared by clones of the same sources, never run for others."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from interp import compiled

CALLER = """
from interp.clone.callee import inner
from interp.compiled import njit

@njit(cache=True)
def outer(x):
    return inner(x) + 1
"""
CALLEE = """
from interp.compiled import njit

@njit(cache=True)
def inner(x):
    return x * {factor}
"""
RUN = """
import interp
interp.__path__.append({parent!r})
from interp.clone.caller import outer
print(outer(10), sum(outer.stats.cache_hits.values()))
"""


@pytest.fixture
def clone(tmp_path):
    folder = tmp_path / "one" / "clone"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "caller.py").write_text(CALLER)
    (folder / "callee.py").write_text(CALLEE.format(factor=2))
    return folder


def test_clones_share_it_and_no_old_code_is_run(clone, tmp_path):
    def run(clone: Path) -> tuple[int, int]:
        """A clone's function in a process of its own: its result, and how often it was there."""
        done = subprocess.run(
            [sys.executable, "-c", RUN.format(parent=str(clone.parent))],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kept")},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        result, hits = map(int, done.stdout.split())
        return result, hits

    assert run(clone) == (21, 0)
    other = shutil.copytree(clone, tmp_path / "two" / "clone")
    (clone / "callee.py").write_text(CALLEE.format(factor=3))
    assert run(clone) == (31, 0), "what it calls has changed, in another file"
    assert run(other) == (21, 1)


@pytest.fixture
def place(clone, tmp_path, monkeypatch):
    """Where a clone's function is kept, as its files are now."""

    def function() -> None: ...

    function.__module__ = "interp.clone.caller"
    monkeypatch.setattr(compiled.config, "CACHE_DIR", str(tmp_path / "kept"))

    def found() -> Path:
        locator = compiled.Kept.from_function(function, str(clone / "caller.py"))
        assert locator
        return Path(locator.get_cache_path())

    return found


def test_a_folder_of_the_users_own_or_else_beside_the_sources(place, clone, tmp_path, monkeypatch):
    kept = tmp_path / "kept" / "interp"
    assert place().parent == kept
    assert place().stat().st_mode & 0o077 == 0
    beside = clone / "__pycache__" / "compiled"
    of_others, stat = place(), Path.stat

    def seen(path, **named):
        found = stat(path, **named)
        return os.stat_result((*found[:4], 12345, *found[5:])) if path == of_others else found

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", seen)
        assert place().parent == beside
    monkeypatch.setattr(compiled.config, "CACHE_DIR", str(clone / "caller.py"))  # no folder
    assert place().parent == beside


def test_what_was_not_asked_for_in_a_month_is_removed(place, clone):
    def age(folder: Path) -> None:
        month_ago = time.time() - compiled.UNUSED - 60
        os.utime(folder, (month_ago, month_ago))

    first = place()
    age(first)
    assert place() == first, "it is asked for now"
    (clone / "callee.py").write_text(CALLEE.format(factor=3))
    second = place()
    assert first.exists()
    age(first)
    (clone / "callee.py").write_text(CALLEE.format(factor=44))
    third = place()
    assert sorted(second.parent.iterdir()) == sorted([second, third])


def test_functions_of_others_are_kept_as_ever():
    assert compiled.Kept.from_function(shutil.copy, shutil.__file__) is None


@pytest.mark.slow  # 20 s of compiling
def test_an_atlas_compiles_in_a_process_of_its_own(place, monkeypatch):
    """Else its memory would be more than it says: LLVM keeps what it compiles with."""
    from numba.core import event

    from interp.neurons.compiling import compile_apart

    monkeypatch.setenv("NUMBA_CACHE_DIR", compiled.config.CACHE_DIR)
    kernels = Path(compiled.__file__).parent.parent / "kernels"
    mark = compiled.mark_of(kernels)
    assert mark
    assert not mark.exists()
    with event.install_recorder("numba:compile") as here:
        compile_apart()
        assert mark.exists()
        compiled_at = mark.stat().st_mtime_ns
        assert list(mark.parent.glob("exact.rescore*.nbc"))
        compile_apart()
    assert not here.buffer
    assert mark.stat().st_mtime_ns == compiled_at


def test_where_nothing_can_be_kept_there_is_no_mark(place, clone, monkeypatch):
    monkeypatch.setattr(compiled.config, "CACHE_DIR", str(clone / "caller.py"))  # no folder
    monkeypatch.setattr(compiled, "_beside", lambda file: clone / "caller.py" / "kept")
    assert compiled.mark_of(clone) is None
