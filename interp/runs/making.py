"""A run folder from its first file to its manifest: made, resumed, or there already.

The folder is held against other writers by a lock. A process may be killed at every step; what it
leaves is resumed by the next (tests/kills tries it).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import UserError
from ..plain_json import read_json
from ..progress import log
from .disk import unwritable
from .manifest import JOURNAL, check_inside, read_manifest
from .parts import checked, whole
from .store import Run, open_run
from .swap import check_no_link, fresh_folder, passing, settle, swap_in
from .watched import LOCK, watched
from .writer import OWN, STATE, RunWriter, keep_journal, sweep

PATIENCE = 0.2
"""Seconds that a writer tries for the lock: who asks whether it is held shares it for a moment."""


def open_or_make(
    path: Path,
    plan: dict[str, Any],
    check: Callable[[], None],
    work: Callable[[RunWriter], dict[str, Any]],
    fresh: bool = False,
) -> Run:
    """The finished run in a folder, as `study.run_or_load` gives it.

    Args:
        plan: what identifies the run (`study.plan`).
        check: raises UserError for settings that cannot work; asked before anything is written.
        work: writes every part that its writer does not have yet; returns the metrics.
        fresh: make it again; the new run replaces the stored one when it is finished.

    Raises:
        UserError: the folder holds another run or something else, is being written, or cannot be.
    """

    def make(folder: Path) -> Run:
        check()
        with writing(folder, plan) as writer:
            return writer.finish(work(writer))

    check_no_link(path)
    settle(path, clear=True)
    if fresh:
        if _begun(path):
            check_same(path, plan)
        made = fresh_folder(path)
        if not (made / "manifest.json").exists() or not _verified(made):
            make(made)  # else it was finished, and stopped before it took its place
        swap_in(path)
        return open_run(path)
    if (path / "manifest.json").exists():
        check_same(path, plan)
        if _verified(path):
            run = open_run(path, plan["study"])
            log.info("loaded, not made again: %r", run)
            return run
    return make(path)


def _begun(path: Path) -> bool:
    """Whether a folder has anything in it that a writer does not leave where it is killed before it
    has written `run.json`."""
    return path.exists() and not all(passing(file.name) for file in path.iterdir())


def _verified(path: Path) -> bool:
    """Whether every part of a finished run is what was written.

    If not, the damaged parts and the manifest are removed, so that the run can be resumed; else
    what a kill left of its pieces is.
    """
    manifest, bad = read_manifest(path), []
    for name, part in manifest["files"].items():
        try:
            checked(path, name, part)
        except UserError:
            log.warning(
                "%s is not what the run wrote, or is missing: it is made again", path / name
            )
            bad.append(name)
    if not bad:
        sweep(path)
        return True
    parts = {name: [part["sha256"]] for name, part in manifest["files"].items() if name not in bad}
    keep_journal(path, _facts(path, manifest), parts, float(manifest["wall_s"]))
    for damaged in ("manifest.json", *bad):
        check_inside(path, damaged).unlink(missing_ok=True)
    return False


def _facts(path: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """What a study said of its parts, from a manifest."""
    plan = read_json(check_inside(path, "run.json"), "choose another folder")
    return {name: value for name, value in manifest.items() if name not in {*plan, *OWN}}


@contextmanager
def writing(path: Path, plan: dict[str, Any]) -> Iterator[RunWriter]:
    """The run folder at `path`, fresh or resumed, held against other writers.

    Raises:
        UserError: the folder holds something else, is being written, or cannot be written.
    """
    lock = FileLock(path / LOCK, timeout=PATIENCE, poll_interval=PATIENCE / 10)
    try:
        _check_free(path)
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        _check_free(path)  # another process may have begun in the meantime
    except Timeout as error:
        raise UserError(
            f"another process is writing the run in {path}: wait for it, then repeat the command"
        ) from error
    except OSError as error:
        raise UserError(unwritable(path, error)) from error
    try:
        writer = _begin(path, plan)
        try:
            with watched(path):
                yield writer
        except BaseException as stop:
            stop.add_note(_resumable(writer))
            raise
    finally:
        lock.release()


def _resumable(writer: RunWriter) -> str:
    """What the same command would find of a run that was stopped."""
    names = [Path(name).name for name in writer.finished if writer.has(name)]
    kept = len(names) - names.count(STATE)
    files = f"{kept} finished {'files' if kept > 1 else 'file'}"
    if STATE in names:
        more = f" and keeps {files}" if kept else ""
        return f"the same command goes on from the last checkpoint{more}"
    if not kept:
        return "no part of its run is finished yet, so the same command starts over"
    return f"the same command resumes with {files} and starts over what was under way"


def _check_free(path: Path) -> None:
    """Raise UserError for a folder with anything in it but a run."""
    if _begun(path) and not (path / "run.json").exists():
        raise UserError(f"{path} is not empty and holds no run: choose another folder")


def _begin(path: Path, plan: dict[str, Any]) -> RunWriter:
    for remains in path.rglob(".*.making"):
        if not remains.is_dir() or remains.is_symlink():
            remains.unlink()
    nothing_yet = not any(p.suffix in (".parquet", ".safetensors") for p in path.rglob("*"))
    if (path / "run.json").exists() and not nothing_yet:
        check_same(path, plan)
        if not (path / JOURNAL).exists():
            log.warning("%s has no journal of what is finished: the run starts over", path)
    else:
        check_inside(path, JOURNAL).unlink(missing_ok=True)
        with whole(path, "run.json") as making:
            making.write_text(json.dumps(plan, indent=1))
    return RunWriter(path, plan)


def check_same(path: Path, plan: dict[str, Any]) -> None:
    """Refuse a folder that holds another run, or something else."""
    if not (path / "run.json").exists():
        raise UserError(f"{path} is not empty and holds no run: choose another folder")
    for name in ("run.json", "manifest.json"):
        note = check_inside(path, name)
        if note.exists() and read_json(note, "choose another folder").get("key") != plan["key"]:
            raise UserError(f"{path} holds another run (other settings or model): choose another")
