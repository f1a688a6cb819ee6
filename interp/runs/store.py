"""Run folders: what a study leaves on disk, written so that no crash can leave a wrong one.

    runs/<study>/<key>/
        run.json        study, version, key, config, fingerprints: written first
        <table>/*.parquet, *.safetensors    parts, each written whole or not at all
        manifest.json   the above plus versions, metrics, sha256 of every part: written last

A folder without a manifest is a run that was interrupted: the same study with the same key resumes
it (writer.py).
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
"""Version of the run folder's layout."""
_REQUIRED: dict[str, Any] = {
    **dict.fromkeys(("study", "key", "finished"), str),
    **dict.fromkeys(("config", "metrics", "files"), dict),
    "wall_s": (int, float),
    "peak_memory_bytes": int,
}
"""Entries of a manifest that readers count on."""


@dataclass(frozen=True)
class Run:
    """A finished run."""

    path: Path
    manifest: dict[str, Any]

    @property
    def study(self) -> str:
        return str(self.manifest["study"])

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.manifest["config"])

    @property
    def metrics(self) -> dict[str, Any]:
        return dict(self.manifest["metrics"])

    def has(self, table: str) -> bool:
        """Whether the run has a table; one of an earlier version may lack it."""
        return (self.path / f"{table}.parquet").is_file()

    def table(self, name: str) -> pd.DataFrame:
        """A table by its name without the ending, "scores/table".

        Raises:
            UserError: the run has no such table.
        """
        return read_table(self.path, name)

    def sql(self, name: str) -> str:
        """A folder of tables of the same columns as DuckDB reads it: `read_parquet('...')`."""
        folder = glob.escape(str(self.path.resolve() / name)).replace("'", "''")
        return f"read_parquet('{folder}/*.parquet')"


def open_run(path: str | Path, study: str | None = None) -> Run:
    """The finished run in a folder.

    Raises:
        UserError: no run there, an unfinished one, another study's, or another layout's.
    """
    path = Path(path)
    manifest_path = path / "manifest.json"
    if not manifest_path.is_file():
        if (path / "run.json").is_file():
            raise UserError(
                f"the run in {path} is not finished: run its command again to resume it"
            )
        raise UserError(f"{path} holds no run (no manifest.json)")
    try:
        manifest = json.loads(manifest_path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {manifest_path}: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise UserError(f"{manifest_path} is not of this version's layout ({SCHEMA})")
    for name, kind in _REQUIRED.items():
        if not isinstance(manifest.get(name), kind):
            raise UserError(f"{manifest_path} is damaged: it has no proper '{name}'")
    run = Run(path, manifest)
    if study is not None and run.study != study:
        raise UserError(f"{path} holds a run of {run.study}, not of {study}")
    for name, part in manifest["files"].items():
        if (
            not isinstance(part, dict)
            or not (path / name).is_file()
            or (path / name).stat().st_size != part.get("bytes")
        ):
            raise UserError(f"{path / name} is missing or damaged: run the run's command again")
    return run


_usual: ContextVar[Path | None] = ContextVar("store", default=None)


@contextmanager
def usual_store(root: Path | None) -> Iterator[Store]:
    """The store in a folder, which for the time being is that of every `Store()`."""
    token = _usual.set(root or _usual.get())
    try:
        yield Store()
    finally:
        _usual.reset(token)


class Store:
    """A folder of runs, `<root>/<study>/<key>/`; by default $INTERP_RUNS or ./runs."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or _usual.get() or Path(os.environ.get("INTERP_RUNS", "runs"))

    def folder(self, study: str, key: str) -> Path:
        return self.root / study / key

    def runs(self, study: str = "*") -> list[Run]:
        """The finished runs, newest first; folders that cannot be read are passed over."""
        found = []
        for path in self.root.glob(f"{study}/*/manifest.json"):
            try:
                found.append(open_run(path.parent))
            except UserError:
                continue
        return sorted(found, key=lambda run: str(run.manifest["finished"]), reverse=True)

    def find(self, name: str) -> Run:
        """A run by its folder, by the first letters of its key, or the newest one of a study.

        Raises:
            UserError: there is none, or there are several whose keys begin so.
        """
        if name and Path(name).expanduser().is_dir():
            return open_run(Path(name).expanduser())
        stored = self.runs()
        of_study = [run for run in stored if run.study == name]
        of_key = [run for run in stored if name and run.path.name.startswith(name)]
        if of_study:
            return of_study[0]
        if len(of_key) != 1:
            said = f"{len(of_key)} runs have keys that begin with" if of_key else "there is no run"
            raise UserError(
                f"{said} '{name}': give a folder, a study or a key; {self.root} has "
                f"{_listed(of_key or stored)}"
            )
        return of_key[0]


def _listed(runs: list[Run], most: int = 6) -> str:
    shown = ", ".join(f"{run.study} {run.path.name}" for run in runs[:most])
    return f"{shown} and {len(runs) - most} more" if len(runs) > most else shown or "none"


def read_table(folder: Path, name: str) -> pd.DataFrame:
    """A table of a run folder, finished or not."""
    import pandas as pd

    path = folder / f"{name}.parquet"
    if not path.is_file():
        stored = (p.relative_to(folder).with_suffix("") for p in folder.rglob("*.parquet"))
        names = sorted(str(p) for p in stored if not any(x.startswith(".") for x in p.parts))
        more = f" and {len(names) - 24} more" if len(names) > 24 else ""
        raise UserError(
            f"the run in {folder} has no table {name}; it has {', '.join(names[:24]) or 'none'}"
            f"{more}. If an older version made the run, give its command again with --fresh"
        )
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are these
        raise UserError(f"cannot read {path} ({error}): run the run's command again") from error
