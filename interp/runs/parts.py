"""Parts of runs: written whole or not at all, read only as they were when the run was finished.

A part's sha256 is computed once: a note in `home()` remembers the file, its size and the time of
its last change for which it was right. Parquet files have checksums of their pages as well, which
every read compares.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import UserError
from ..model.tensor_files import remembered_sha256
from ..plain_tables import check_values, reading
from .command import again
from .disk import KEPT, RESUMED, sync_folder, unwritable
from .manifest import check_inside, read_manifest

if TYPE_CHECKING:
    import pandas as pd

DEEPEST = 4
"""Folders between a part and its run's, at most."""


def checked(folder: Path, name: str, about: Mapping[str, Any]) -> Path:
    """The path of a part that is what its manifest says.

    Raises:
        UserError: it is missing, or was changed.
    """
    path = check_inside(folder, name)
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"{path} is missing: {again(folder)}") from error
    same = stat.st_size == about.get("bytes")
    if not same or remembered_sha256(path) != about["sha256"]:
        raise UserError(f"{path} is not what the run wrote: {again(folder)}")
    return path


def check_part(path: Path) -> None:
    """Raise UserError for a file of a finished run that is not what the run wrote. Files outside of
    runs pass."""
    path = Path(path).absolute()
    for folder in list(path.parents)[:DEEPEST]:
        if (folder / "manifest.json").is_file() and (folder / "run.json").is_file():
            files = read_manifest(folder)["files"]
            name = path.relative_to(folder).as_posix()
            if name not in files:
                raise UserError(f"{path} is no part of the run in {folder}: do not use it")
            checked(folder, name, files[name])
            return


def no_part(folder: Path, name: str, files: Sequence[str]) -> str:
    """What to say of a part that a run does not have."""
    kind = name.rpartition(".")[2]
    asked, own = (
        [re.sub(r"\.parquet$", "", each) for each in some]
        for some in ([name], [f for f in files if f.endswith(f".{kind}")])
    )
    more = f" and {len(own) - 24} more" if len(own) > 24 else ""
    what = "table" if kind == "parquet" else "part"
    return (
        f"the run in {folder} has no {what} {asked[0]}; it has {', '.join(own[:24]) or 'none'}"
        f"{more}. If an older version made the run, give its command again with --fresh"
    )


@contextmanager
def whole(folder: Path, name: str, left: str = RESUMED) -> Iterator[Path]:
    """A temporary path to write to; on leaving it is the file `name`, whole and on the disk.

    Args:
        left: what a message says of what stays where it cannot be written.

    Raises:
        UserError: it cannot be written, or `name` leads outside of the folder.
    """
    final = check_inside(folder, name)
    making = final.with_name(f".{final.name}.making")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        making.unlink(missing_ok=True)  # a link that lies there would be written through
        os.close(os.open(making, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, 0o666))
        yield making
        with making.open("rb") as file:
            os.fsync(file.fileno())
        making.rename(final)
        sync_folder(final.parent)
    except OSError as error:
        if making.parent.is_dir():
            making.unlink(missing_ok=True)
        raise UserError(unwritable(final, error, left)) from error


@contextmanager
def exported(path: Path) -> Iterator[Path]:
    """As `whole`, a file of the user's own; through a link, the file that it leads to.

    Raises:
        UserError: it cannot be written; a file that was there is as it was.
    """
    real = path.resolve() if path.is_symlink() else path
    with whole(real.parent, real.name, KEPT) as making:
        yield making


def export_text(path: Path, text: str) -> None:
    """Write a file of text in UTF-8, as `exported`."""
    with exported(path) as making:
        making.write_text(text, encoding="utf-8")


def read_table(path: Path) -> pd.DataFrame:
    """A Parquet file whose pages are what was written.

    Raises:
        UserError: it cannot be read, or holds more than `plain_tables.MOST` values.
    """
    import pandas as pd

    fix = "the run's own command makes it again"
    with reading(path, fix):
        check_values(path, fix)
        return pd.read_parquet(path, page_checksum_verification=True)


def write_table(frame: pd.DataFrame, path: Path | BinaryIO) -> None:
    frame.to_parquet(path, write_page_checksum=True)


def file_of(write: Callable[[BinaryIO], None]) -> bytes:
    """The bytes of a file, for a part that is made by one process and kept by another."""
    file = io.BytesIO()
    write(file)
    return file.getvalue()
