"""Run folders: what a study leaves on disk, written so that no crash can leave a wrong one.

    runs/<study>/<key>/
        run.json        study, version, key, config, fingerprints: written first
        <table>/*.parquet, *.safetensors    parts, each written whole or not at all
        manifest.json   the above plus versions, metrics, sha256 of every part: written last

A folder without a manifest is a run that was interrupted: the same study with the same key resumes
it (making.py). The parts are those that the manifest names (manifest.py), and each is checked
against its sha256 before it is read (parts.py).
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..plain_path import found, lacks, plain_path
from ..progress import log
from .command import again
from .fit import check_common, check_fits
from .manifest import KEY, read_manifest
from .parts import checked, no_part, read_table
from .swap import settle
from .unfinished import resuming, unfinished

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run."""

    path: Path
    manifest: dict[str, Any]

    def __repr__(self) -> str:
        return f"Run of {self.study} in {self.path}, finished {self.manifest['finished']}"

    @property
    def study(self) -> str:
        return str(self.manifest["study"])

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.manifest["config"])

    @property
    def metrics(self) -> dict[str, Any]:
        return dict(self.manifest["metrics"])

    @property
    def files(self) -> list[str]:
        """The names of its parts."""
        return sorted(self.manifest["files"])

    def part(self, name: str) -> Path:
        """The path of a part, which is what it was when the run was finished.

        Raises:
            UserError: the run has no such part, or it was changed.
        """
        if name not in self.manifest["files"]:
            raise UserError(no_part(self.path, name, self.files))
        return checked(self.path, name, self.manifest["files"][name])

    def has(self, table: str) -> bool:
        """Whether the run has a table; one of an earlier version may lack it."""
        return f"{table}.parquet" in self.manifest["files"]

    def table(self, name: str) -> pd.DataFrame:
        """A table by its name without the ending, "scores/table"; of a folder of tables, "scores",
        all of them below each other.

        Raises:
            UserError: the run has no such table, or it was changed.
        """
        if f"{name}.parquet" in self.manifest["files"]:
            return read_table(self.part(f"{name}.parquet"))
        import pandas as pd

        below = self.below(name)
        return pd.concat([read_table(self.part(each)) for each in below], ignore_index=True)

    def sql(self, name: str) -> str:
        """A folder of tables of the same columns as DuckDB reads it: `read_parquet([...])`."""
        return read_parquet([self.part(each) for each in self.below(name)])

    def below(self, name: str) -> list[str]:
        """The tables of a folder, their names with the ending."""
        found = [f for f in self.files if PurePosixPath(f).parent == PurePosixPath(name)]
        found = [each for each in found if each.endswith(".parquet")]
        if not found:
            raise UserError(no_part(self.path, f"{name}.parquet", self.files))
        return found


def read_parquet(paths: Iterable[Path], options: str = "") -> str:
    """Tables of the same columns below each other, as DuckDB reads them.

    Args:
        options: further ones of `read_parquet`.
    """
    quoted = (glob.escape(str(path.resolve())).replace("'", "''") for path in paths)
    listed = ", ".join(f"'{path}'" for path in quoted)
    return f"read_parquet([{listed}]{options and f', {options}'})"


def open_run(path: str | Path, study: str | None = None) -> Run:
    """The finished run in a folder.

    Args:
        study: what it must be a run of; its config and facts are then of that study's types.

    Raises:
        UserError: no run there, an unfinished one, another study's, or another layout's; one whose
            config is not of its study's types.
    """
    run = _opened(path, study)
    if study is not None:
        check_fits(run.path, run.manifest)
    return run


def _opened(path: str | Path, study: str | None) -> Run:
    """`open_run`, without a look at the types of a study's own."""
    path = plain_path(path)
    settle(path)
    if not (path / "manifest.json").is_file():
        if (path / "run.json").is_file():
            raise UserError(f"the run in {path} is not finished: {resuming(path)}")
        raise UserError(f"{path} holds no run ({lacks(path, 'manifest.json')})")
    run = Run(path, read_manifest(path))
    if study is not None and run.study != study:
        raise UserError(f"{path} holds a run of {run.study}, not of {study}")
    check_common(path, run.manifest)
    for name, part in run.manifest["files"].items():
        if not (path / name).is_file() or (path / name).stat().st_size != part.get("bytes"):
            raise UserError(f"{path / name} is missing or damaged: {again(path)}")
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


MOST = 3
"""Unfinished runs that a message names, at most."""


class Store:
    """A folder of runs, `<root>/<study>/<key>/`; by default $INTERP_RUNS or ./runs."""

    def __init__(self, root: Path | None = None) -> None:
        chosen = root or _usual.get() or os.environ.get("INTERP_RUNS", "runs")
        self.root = plain_path(chosen)

    def folder(self, study: str, key: str) -> Path:
        """Where a run is kept.

        Raises:
            UserError: the study's folder is a link.
        """
        folder = self.root / study
        if folder.is_symlink():
            raise UserError(f"{folder} is a link: runs are written into a folder, so remove it")
        return folder / key

    def runs(self, study: str = "*") -> list[Run]:
        """The finished runs, newest first; what cannot be read is passed over, and said so."""
        found, complaints = self.looked_through(study)
        for complaint in complaints:
            log.warning("passed over: %s", complaint)
        return found

    def looked_through(self, study: str = "*") -> tuple[list[Run], list[str]]:
        """The finished runs, newest first, and what is wrong with those that cannot be read."""
        found, complaints = [], []
        for path in self.root.glob(f"{study}/*/manifest.json"):
            if path.parent.name.startswith("."):  # a run that is to replace another
                continue
            try:
                run = _opened(path.parent, path.parents[1].name)
                if study != "*":  # who asks for every study's runs reads what all of them have
                    check_fits(run.path, run.manifest)
                key = str(run.manifest["key"])
                if KEY.fullmatch(run.path.name) and run.path.name != key:
                    raise UserError(f"{run.path} holds the run {key}: give its folder that name")
                found.append(run)
            except UserError as error:
                complaints.append(str(error))
        return sorted(
            found, key=lambda run: str(run.manifest["finished"]), reverse=True
        ), complaints

    def newest(self, study: str, otherwise: str) -> Run:
        """The newest run of a study; of several, a line says which was taken.

        Args:
            otherwise: what to say where there is none.

        Raises:
            UserError: there is none.
        """
        runs = self.runs(study)
        if not runs:
            raise UserError("; ".join([otherwise, *unfinished(self.root, study)[:MOST]]))
        return newest(runs)

    def find(self, name: str, study: str = "*", others: Sequence[Run] = ()) -> Run:
        """A run by its folder, by the first letters of its key, or the newest one of a study.

        Args:
            study: which one it has to be of; by default any.
            others: runs that are looked through where the store has none of that name.

        Raises:
            UserError: there is none, or there are several whose keys begin so.
        """
        if name and (folder := found(name)) and folder.is_dir():
            return open_run(folder, None if study == "*" else study)
        stored = self.runs(study)
        named = _named(stored, name) or _named(others, name)
        if len(named) == 1 or (named and named[0].study == name):
            return newest(named)
        begun = [line for line in unfinished(self.root, study) if name in line] if name else []
        said = f"{len(named)} runs have keys that begin with" if named else "there is no run"
        raise UserError(
            f"{said} '{name}': give a folder, a study or a key; {self.root} has "
            + "; ".join([_listed(named or stored), *begun[:MOST]])
        )


def _named(runs: Sequence[Run], name: str) -> list[Run]:
    """Those of a study of this name or, where there is none, whose keys begin so."""
    of_study = [run for run in runs if run.study == name]
    return of_study or [
        run
        for run in runs
        if name and name in (run.path.name[: len(name)], run.manifest["key"][: len(name)])
    ]


def newest(runs: list[Run]) -> Run:
    """The first of some runs of one study, as `Store.runs` gives them; of several, a line says
    which: clocks may be wrong."""
    run = runs[0]
    if len(runs) > 1:
        taken = (run.path.name, run.manifest["finished"], len(runs), run.study)
        log.info("taken: run %s, finished %s, the newest of %d of %s", *taken)
    return run


def _listed(runs: list[Run], most: int = 6) -> str:
    shown = ", ".join(f"{run.study} {run.path.name}" for run in runs[:most])
    return f"{shown} and {len(runs) - most} more" if len(runs) > most else shown or "none"
