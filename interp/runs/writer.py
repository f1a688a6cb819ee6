"""Writing the parts of a run so that no crash can leave a wrong one (see store.py for them).

A part is written under a temporary name, fsynced and renamed. Before it has its name its sha256 is
in the journal, a hidden file with all that a stopped run has finished: what is not in it, or is not
what it says, is made again.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import UserError
from ..plain_json import check, read_json
from ..progress import log, progress
from .disk import peak_memory, sha256
from .manifest import JOURNAL, check_inside, seal
from .parts import no_part, read_table, whole, write_table
from .store import Run, open_run
from .watched import clear

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

T = TypeVar("T")
_PIECES = ".pieces"
"""Ending of the hidden folders that hold what a run needs only until it is finished."""
STATE = "state.safetensors"
"""Name of the hidden parts that hold the state of work under way (checkpoint.py)."""
OWN = {
    "packages", "python", "metrics", "files", "wall_s", "peak_memory_bytes", "finished", "seal"
}  # fmt: skip
"""Entries of a manifest that the writer makes."""
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


class RunWriter:
    """A run folder being written: hands out part names, keeps time, writes the manifest."""

    def __init__(self, path: Path, plan: dict[str, Any]) -> None:
        """A new run, or one that was stopped, with what its journal has.

        Raises:
            UserError: the journal is damaged.
        """
        self.path = path
        self._plan = plan
        self._start = time.monotonic()
        self.facts: dict[str, Any] = {}
        """Further entries of the manifest (device, dtype, parity, …), set by the study. What is
        said before a part is finished is kept with it: a resumed run does not make it again."""
        self.finished: dict[str, list[str]] = {}
        """The journal's `parts`."""
        if check_inside(path, JOURNAL).exists():
            self._resume()

    @property
    def name(self) -> str:
        """The run's: <study>/<key>."""
        return f"{self._plan['study']}/{self._plan['key']}"

    def has(self, part: str) -> bool:
        """Whether a part was finished, by this process or one before it."""
        return part in self.finished and (self.path / part).exists()

    @contextmanager
    def part(self, name: str) -> Iterator[Path]:
        """A temporary path to write to; on leaving it becomes part `name`, whole and on disk."""
        with whole(self.path, name) as making:
            yield making
            self.finished[name] = [*self.finished.get(name, [])[-1:], sha256(making)]
            self._keep()

    def drop(self, part: str) -> None:
        """Remove a hidden part that is not needed any more."""
        self.finished.pop(part, None)
        (self.path / part).unlink(missing_ok=True)

    def _name_strays(self) -> None:
        own = {"run.json", *self.finished}
        there = (p.relative_to(self.path).as_posix() for p in self.path.rglob("*") if p.is_file())
        if strays := sorted(name for name in there if not hidden(name) and name not in own):
            names = f"{', '.join(strays[:3])}{' …' if len(strays) > 3 else ''}"
            log.warning(
                "%s: not written by `out.part`, so no part of the run: %s", self.path, names
            )

    def _keep(self) -> None:
        seconds = time.monotonic() - self._start
        keep_journal(self.path, self.facts, self.finished, seconds)

    def _resume(self) -> None:
        """Take over what processes before this one finished."""
        path, fix = self.path / JOURNAL, "delete the run's folder to start over"
        kept = read_json(path, fix)
        kinds = {"facts": dict[str, Any], "parts": dict[str, list[str]], "seconds": float}
        for name, kind in kinds.items():
            check(kept.get(name), kind, f"'{name}' of {path}", fix)
        self.facts, self._start = kept["facts"], time.monotonic() - kept["seconds"]
        for name, known in kept["parts"].items():
            part = check_inside(self.path, name)
            if part.is_file() and sha256(part) in known:
                self.finished[name] = known
            elif part.exists():
                log.warning("%s is not what the run wrote: it is made again", part)

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
            raise UserError(no_part(self.path, f"{name}.parquet", sorted(self.finished)))
        return read_table(self.path / f"{name}.parquet")

    def finish(self, metrics: dict[str, Any]) -> Run:
        """Write the manifest: from here on the run is finished, and its pieces are not needed."""
        manifest = {
            **self.facts,
            **self._plan,
            "packages": {name: metadata.version(name) for name in PACKAGES},
            "python": platform.python_version(),
            "metrics": metrics,
            "files": {
                name: {"sha256": known[-1], "bytes": (self.path / name).stat().st_size}
                for name, known in sorted(self.finished.items())
                if not hidden(name)
            },
            "wall_s": round(time.monotonic() - self._start, 2),
            "peak_memory_bytes": peak_memory(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        self._name_strays()
        with whole(self.path, "manifest.json") as making:
            making.write_text(json.dumps({**manifest, "seal": seal(manifest)}, indent=1))
        sweep(self.path)
        return open_run(self.path)


def sweep(path: Path) -> None:
    """Remove the pieces of a finished run, and what a killed writer left for those who watch. Two
    processes may do so at once; in a folder that cannot be written to they stay, and nobody reads
    them."""
    for pieces in list(path.rglob(f".*{_PIECES}")):
        shutil.rmtree(pieces, ignore_errors=True)
    clear(path)


def hidden(part: str) -> bool:
    """Whether a part is there only until its run is finished."""
    return any(each.startswith(".") for each in PurePosixPath(part).parts)


def keep_journal(
    folder: Path, facts: dict[str, Any], parts: dict[str, list[str]], seconds: float
) -> None:
    """Write a run's journal."""
    kept = {"facts": facts, "parts": parts, "seconds": round(seconds, 2)}
    with whole(folder, JOURNAL) as making:
        making.write_text(json.dumps(kept))


def passing_part(name: str, part: str) -> str:
    """The name of a part that is there only until the run is finished; `name`: what it is of."""
    return str(Path(name).with_name(f".{Path(name).name}{_PIECES}") / part)


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """safetensors' save_file, from any device; its failures are OSErrors as any other file's.

    Raises:
        OSError: the file cannot be written; with its errno where the system gave one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: x.cpu().contiguous() for name, x in tensors.items()}, path, metadata)
    except SafetensorError as error:  # what the system said is in its text only
        code = re.search(r"os error (\d+)", str(error))
        raise OSError(int(code[1]) if code else None, str(error)) from error
