"""Writing the parts of a run so that no crash can leave a wrong one (see store.py for them).

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

from ..errors import UserError
from ..plain_json import read_json
from ..progress import progress
from .disk import peak_memory, sha256, sync_folder, unwritable
from .manifest import check_inside, seal
from .parts import no_part, read_table, write_table
from .store import Run, open_run

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
FACTS = f".run{_PIECES}/facts.json"
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
            if name != FACTS:
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
            with self.part(FACTS) as making:
                making.write_text(facts)
            self._kept = facts

    def resume(self) -> None:
        """Take over what a process before this one said of the parts that there are."""
        path = check_inside(self.path, FACTS)
        if path.exists():
            self.facts = read_json(path, "delete the run's folder to start over")
            self._kept = json.dumps(self.facts)

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
        sweep(self.path)
        return open_run(self.path)


def sweep(path: Path) -> None:
    """Remove the pieces of a finished run. Two processes may do so at once; in a folder that cannot
    be written to they stay, and nobody reads them."""
    for pieces in list(path.rglob(f".*{_PIECES}")):
        shutil.rmtree(pieces, ignore_errors=True)


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
