"""Writing a run folder so that no crash can leave a wrong one (see store.py for what is in it).

A part is written under a temporary name, fsynced and renamed.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock, Timeout

from ..errors import UserError
from ..plain_json import read_json
from ..progress import log, progress
from .disk import peak_memory, sha256, sync_folder, unwritable
from .manifest import check_inside, read_manifest, seal
from .parts import checked, no_part, read_table, write_table
from .store import Run, open_run
from .swap import fresh_folder, passing, settle, swap_in

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

T = TypeVar("T")
PARTS = (".parquet", ".safetensors", ".json")
"""What a run is made of; other files in its folder are not the run's."""
_PIECES = ".pieces"
"""Ending of the hidden folders that hold what a run needs only until it is finished."""
STATE = "state.safetensors"
"""Name of the hidden parts that hold the state of work under way (checkpoint.py)."""
_FACTS = f".run{_PIECES}/facts.json"
"""The hidden part that holds what a run's manifest will say of its finished parts."""
PACKAGES = (
    "interp-workbench",
    "torch",
    "transformers",
    "safetensors",
    "tokenizers",
    "numba",
    "numpy",
    "pyarrow",
)


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

    settle(path)
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
            return open_run(path, plan["study"])
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
    bad = []
    for name, part in read_manifest(path)["files"].items():
        try:
            checked(path, name, part)
        except UserError as error:
            log.warning("%s", error)
            bad.append(check_inside(path, name))
    for damaged in (path / "manifest.json", *bad) if bad else ():
        damaged.unlink(missing_ok=True)
    if not bad:
        _sweep(path)
    return not bad


def _sweep(path: Path) -> None:
    """Remove the pieces of a finished run. Two processes may do so at once; in a folder that cannot
    be written to they stay, and nobody reads them."""
    for pieces in list(path.rglob(f".*{_PIECES}")):
        shutil.rmtree(pieces, ignore_errors=True)


class RunWriter:
    """A run folder being written: hands out part names, keeps time, writes the manifest."""

    def __init__(self, path: Path, plan: dict[str, Any]) -> None:
        self.path = path
        self._plan = plan
        self._start = time.monotonic()
        self.facts: dict[str, Any] = {}
        """Further entries of the manifest (device, dtype, parity, …), set by the study. What is
        said before a part is finished is kept with it: a resumed run does not make it again."""
        self._kept = "{}"

    @property
    def name(self) -> str:
        """The run's: <study>/<key>."""
        return f"{self._plan['study']}/{self._plan['key']}"

    def has(self, part: str) -> bool:
        """Whether a part was finished, by this process or one before it."""
        return (self.path / part).exists()

    @contextmanager
    def part(self, name: str) -> Iterator[Path]:
        """A temporary path to write to; on leaving it becomes part `name`, whole and on disk."""
        final = check_inside(self.path, name)
        making = final.with_name(f".{final.name}.making")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            making.unlink(missing_ok=True)  # a link that lies there would be written through
            os.close(os.open(making, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, 0o666))
            yield making
            with making.open("rb") as file:
                os.fsync(file.fileno())
            if name != _FACTS:
                self._keep_facts()
            making.rename(final)
            sync_folder(final.parent)
        except OSError as error:
            if making.parent.is_dir():
                making.unlink(missing_ok=True)
            raise UserError(unwritable(final, error)) from error

    def _keep_facts(self) -> None:
        facts = json.dumps(self.facts)
        if facts != self._kept:
            with self.part(_FACTS) as making:
                making.write_text(facts)
            self._kept = facts

    def resume(self) -> None:
        """Take over what a process before this one said of the parts that there are."""
        path = check_inside(self.path, _FACTS)
        if path.exists():
            self._kept = path.read_text()
            self.facts = json.loads(self._kept)

    def table(self, name: str, rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> pd.DataFrame:
        """Write the part `<name>.parquet`, and give the table back."""
        import pandas as pd

        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
        with self.part(f"{name}.parquet") as making:
            write_table(frame, making)
        return frame

    def table_once(
        self, name: str, make: Callable[[], pd.DataFrame | Iterable[Mapping[str, Any]]]
    ) -> pd.DataFrame:
        """A table of this run; `make` computes it if the run does not have it yet."""
        if not self.has(f"{name}.parquet"):
            self.table(name, make())
        return self.read_table(name)

    def in_pieces(
        self,
        name: str,
        items: Sequence[T],
        make: Callable[[Sequence[T]], pd.DataFrame | Iterable[Mapping[str, Any]]],
        size: int,
        label: str,
        unit: str,
    ) -> pd.DataFrame:
        """The rows that `make` gives for `size` items at a time, for a table that takes long.

        Each piece is kept as it is finished, so a run that is stopped loses one piece at most; they
        are removed when the run is finished. What `make` gives must depend on its items alone.
        """
        import pandas as pd

        by_name = {
            passing_part(name, f"{i}+{size}"): items[i : i + size]
            for i in range(0, len(items), size)
        }
        left = {n: some for n, some in by_name.items() if not self.has(f"{n}.parquet")}
        with progress(
            label, len(items), unit, len(items) - sum(map(len, left.values()))
        ) as advance:
            for piece, some in left.items():
                self.table(piece, make(some))
                advance(len(some))
        return pd.concat([self.read_table(piece) for piece in by_name], ignore_index=True)

    def read_table(self, name: str) -> pd.DataFrame:
        """A table that was written before, by this process or one before it."""
        if not self.has(f"{name}.parquet"):
            there = [p.relative_to(self.path).as_posix() for p in self.path.rglob("*.parquet")]
            raise UserError(no_part(self.path, f"{name}.parquet", sorted(there)))
        return read_table(self.path / f"{name}.parquet")

    def finish(self, metrics: dict[str, Any]) -> Run:
        """Write the manifest: from here on the run is finished, and its pieces are not needed."""
        there = {p.relative_to(self.path): p for p in self.path.rglob("*") if p.is_file()}
        parts = sorted(p for name, p in there.items() if not any(map(_hidden, name.parts)))
        manifest = {
            **self._plan,
            **self.facts,
            "packages": {name: metadata.version(name) for name in PACKAGES},
            "python": platform.python_version(),
            "metrics": metrics,
            "files": {
                str(p.relative_to(self.path)): {"sha256": sha256(p), "bytes": p.stat().st_size}
                for p in parts
                if p.suffix in PARTS and p.name not in ("run.json", "manifest.json")
            },
            "wall_s": round(time.monotonic() - self._start, 2),
            "peak_memory_bytes": peak_memory(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        with self.part("manifest.json") as making:
            making.write_text(json.dumps({**manifest, "seal": seal(manifest)}, indent=1))
        _sweep(self.path)
        return open_run(self.path)


def _hidden(name: str) -> bool:
    return name.startswith(".")


def passing_part(name: str, part: str) -> str:
    """The name of a part that is there only until the run is finished; `name`: what it is of."""
    return str(Path(name).with_name(f".{Path(name).name}{_PIECES}") / part)


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """safetensors' save_file, whose failures are OSErrors as any other file's.

    Raises:
        OSError: the file cannot be written; with its errno where the system gave one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: x.contiguous() for name, x in tensors.items()}, path, metadata)
    except SafetensorError as error:  # what the system said is in its text only
        code = re.search(r"os error (\d+)", str(error))
        raise OSError(int(code[1]) if code else None, str(error)) from error


@contextmanager
def writing(path: Path, plan: dict[str, Any]) -> Iterator[RunWriter]:
    """The run folder at `path`, fresh or resumed, held against other writers.

    Raises:
        UserError: the folder holds something else, is being written, or cannot be written.
    """
    lock = FileLock(path / ".lock", timeout=0)
    try:
        _check_free(path)
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        _check_free(path)  # another process may have begun in the meantime
    except Timeout as error:
        raise UserError(f"another process is writing the run in {path}") from error
    except OSError as error:
        raise UserError(unwritable(path, error)) from error
    try:
        yield _begin(path, plan)
    except BaseException as stop:
        stop.add_note(_resumable(path))
        raise
    finally:
        lock.release()


def _resumable(path: Path) -> str:
    """What the same command would find of a run that was stopped."""
    own = ("run.json", Path(_FACTS).name)
    names = [p.name for p in path.rglob("*") if p.suffix in PARTS and p.name not in own]
    kept = len(names) - names.count(STATE)
    parts = f"{kept} finished {'parts' if kept > 1 else 'part'}"
    if STATE in names:
        more = f" and keeps {parts}" if kept else ""
        return f"the same command goes on from the last checkpoint{more}"
    if not kept:
        return "no part of its run is finished yet, so the same command starts over"
    return f"the same command resumes with {parts} and starts over the one under way"


def _check_free(path: Path) -> None:
    """Raise UserError for a folder with anything in it but a run."""
    if _begun(path) and not (path / "run.json").exists():
        raise UserError(f"{path} is not empty and holds no run: choose another folder")


def _begin(path: Path, plan: dict[str, Any]) -> RunWriter:
    writer = RunWriter(path, plan)
    for remains in path.rglob(".*.making"):
        remains.unlink()
    nothing_yet = not any(p.suffix in (".parquet", ".safetensors") for p in path.rglob("*"))
    if writer.has("run.json") and not nothing_yet:
        check_same(path, plan)
        writer.resume()
    else:
        check_inside(path, _FACTS).unlink(missing_ok=True)
        with writer.part("run.json") as making:
            making.write_text(json.dumps(plan, indent=1))
    return writer


def check_same(path: Path, plan: dict[str, Any]) -> None:
    """Refuse a folder that holds another run, or something else."""
    note = path / "run.json"
    if not note.exists():
        raise UserError(f"{path} is not empty and holds no run: choose another folder")
    if read_json(note, "choose another folder").get("key") != plan["key"]:
        raise UserError(f"{path} holds another run (other settings or model): choose another")
