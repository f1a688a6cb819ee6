"""Sets of directions in stored runs by a text without machine paths, `run:KEY[/SET][:ROWS]`, and
SAEs in stored runs or shipped ones, `run:KEY/FOLDER`, `shipped:FOLDER`. No torch.

KEY is the first letters of a run's key, SET a folder of directions in it (its only one if left
out), ROWS numbers from 0 or names, between commas.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from interp.data import FOLDER

from ..errors import UserError
from ..plain_path import found
from ..runs.manifest import check_inside
from ..runs.store import Run, Store, open_run

FILES = ("directions.json", "vectors.safetensors", "index.parquet")
"""Of a set; the first says that it is whole, so it is written last."""
_FORM = re.compile(r"run:([0-9a-f]{1,12})(?:/([^:]+))?(?::(.+))?", re.DOTALL)
_PLACE = re.compile(r"run:([0-9a-f]{1,12})(?:/(.+))?", re.DOTALL)
SHIPPED = "shipped:"


class RunSet(NamedTuple):
    """A set of directions in a run, and which of them are meant."""

    run: Run
    name: str
    """Its folder in the run."""
    rows: str
    """Numbers or names between commas; "" for all."""

    @property
    def folder(self) -> Path:
        """Where its files are.

        Raises:
            UserError: over a link, or outside of the run.
        """
        return check_inside(self.run.path, self.name) if self.name != "." else self.run.path


def sets_of(run: Run) -> list[str]:
    """The folders of directions in a run, by their names in it."""
    return [str(PurePosixPath(n).parent) for n in run.files if PurePosixPath(n).name == FILES[0]]


def run_set(text: str, store: Store) -> RunSet:
    """What `run:KEY[/SET][:ROWS]` names.

    Raises:
        UserError: another form; no run or several whose keys begin so; no such set in it.
    """
    if not (parts := _FORM.fullmatch(text)):
        raise UserError(
            f"'{text}' names no set of a run: write run:KEY, run:KEY/SET or run:KEY/SET:ROWS, as "
            "in run:ab12cd/directions:3"
        )
    key, name, rows = parts[1], parts[2], parts[3] or ""
    run = run_of(key, store)
    there = sets_of(run)
    if not there:
        raise UserError(f"the run {run.study} {run.path.name} holds no directions: name another")
    if name is None and len(there) > 1:
        shown = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
        raise UserError(f"run:{key} has {len(there)} sets: write run:{key}/SET of {shown}")
    if name is not None and name not in there:
        raise UserError(f"run:{key} has no set '{name}': it has {', '.join(there[:8])}")
    return RunSet(run, there[0] if name is None else name, rows)


def run_of(key: str, store: Store) -> Run:
    """The one run of a store whose key begins so.

    Raises:
        UserError: there is none, or there are several.
    """
    places = [path.parent for path in store.root.glob(f"*/{key}*/manifest.json")]
    runs = [run for run in map(open_run, sorted(places)) if run.manifest["key"].startswith(key)]
    if len(runs) != 1:
        several = ", ".join(f"{run.study} {run.path.name}" for run in runs[:6])
        said = f"{len(runs)} runs have keys that begin with" if runs else "there is no run"
        raise UserError(
            f"{said} '{key}' in {store.root}"
            + (f" ({several})" if runs else "")
            + ": `interp directions list` shows the stored sets"
        )
    return runs[0]


def set_text(run: Run, name: str) -> str:
    """The text that opens a set of a run."""
    return f"run:{run.path.name}" if [name] == sets_of(run) else f"run:{run.path.name}/{name}"


def text_of_folder(folder: Path, store: Store) -> str:
    """The text of a folder of directions: of a run in the store without its machine's path, of any
    other folder its path."""
    inside = _in_store(folder, store)
    if inside is None:
        return str(folder)
    run, name = inside
    return set_text(run, name) if name in sets_of(run) else str(folder)


def chosen_rows(rows: str, names: Sequence[str]) -> list[int]:
    """The rows that a text names, in its order: by number from 0, or by name.

    Raises:
        UserError: there is none of that number or name.
    """
    if not rows:
        return list(range(len(names)))
    if rows in names and not rows.isdecimal():
        return [names.index(rows)]  # a name may have a comma
    found = []
    for part in rows.split(","):
        if part.strip().isdecimal() and len(part.strip()) < 10 and int(part) < len(names):
            found.append(int(part))
        elif (name := next((n for n in (part, part.strip()) if n in names), None)) is not None:
            found.append(names.index(name))
        else:
            shown = ", ".join(names[:6]) + (" …" if len(names) > 6 else "")
            raise UserError(
                f"there is no direction '{part}' among these {len(names)}: give a number from 0 to "
                f"{len(names) - 1} or a name ({shown})"
            )
    return found


def sae_place(source: str, store: Store) -> str:
    """Where an SAE is that a text names: `run:KEY/FOLDER` in a stored run, `shipped:FOLDER` among
    those that ship; any other text stays as it is.

    Raises:
        UserError: no such run, or no such folder in it.
    """
    if source.startswith(SHIPPED):
        path, where = check_inside(FOLDER, source.removeprefix(SHIPPED)), "the package ships"
    elif parts := _PLACE.fullmatch(source):
        run = run_of(parts[1], store)
        path = check_inside(run.path, parts[2]) if parts[2] else run.path
        where = f"the run {run.path.name} has"
    else:
        return source
    if not path.exists():
        raise UserError(f"{where} no {path.name}, which {source} names: give another SAE")
    return str(path)


def sae_asks_the_hub(source: str) -> bool:
    """Whether an SAE is sae-lens' release:sae_id, which is fetched where it is opened."""
    here = source.startswith(SHIPPED) or _PLACE.fullmatch(source)
    return ":" in source and not here and not found(source)


def sae_text(source: str, store: Store) -> str:
    """An SAE's source without its machine's path, where it lies in a stored run or ships."""
    path = Path(source)
    if not path.is_absolute():
        return source
    if path.is_relative_to(FOLDER):
        return SHIPPED + path.relative_to(FOLDER).as_posix()
    if inside := _in_store(path, store):
        run, name = inside
        return f"run:{run.path.name}" + ("" if name == "." else f"/{name}")
    return source


def portable(source: str, store: Store) -> str:
    """A text without the path of this machine, where it names an SAE or a set in a run of the
    store, or an SAE that ships; any other as it is."""
    if source.startswith("sae:/"):
        place, _, latents = source.removeprefix("sae:").rpartition(":")
        if place and latents.replace(",", "").replace(" ", "").isdecimal():
            return f"sae:{sae_text(place, store)}:{latents}"
        return f"sae:{sae_text(source.removeprefix('sae:'), store)}"
    if source.startswith("/"):
        folder, _, rows = source.partition(":")
        text = text_of_folder(Path(folder), store)
        return f"{text}:{rows}" if rows else text
    return source


def _in_store(folder: Path, store: Store) -> tuple[Run, str] | None:
    """The run of the store that a path is in, and the path inside of it."""
    root = store.root.absolute()
    absolute = folder.absolute()
    if not absolute.is_relative_to(root):
        return None
    parts = absolute.relative_to(root).parts
    if len(parts) < 2 or not (root.joinpath(*parts[:2]) / "manifest.json").is_file():
        return None
    run = open_run(store.root.joinpath(*parts[:2]))
    return run, PurePosixPath(*parts[2:]).as_posix()
