"""A collection as one .zip file, to send: written, and read from whoever sent it.

What a parcel may hold is known: `collection.json`, of each direction three files, and the folders
that these lie in. Anything else, another path, a file twice, an encrypted one or more bytes than
allowed is refused before a file is written; files are written by name here and never by what the
archive says of them, so no link and no path of it counts. Then the whole is read as a collection
is, every vector of it, and only then it gets its name.
"""

from __future__ import annotations

import io
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from ..errors import UserError
from ..runs.parts import exported
from ..runs.store import Store
from .collections import FILE, FIX, MOST, Collection, checked_name, open_collection, read_collection
from .directions import Directions
from .keeping import locked, place_whole
from .sets import FILES

LARGEST = 256 << 20
"""Bytes of a parcel's files together."""
PIECE = 1 << 20
"""Bytes that are read at once."""
_MEMBER = re.compile(rf"{re.escape(FILE)}|directions/[^/\\]+/({'|'.join(map(re.escape, FILES))})")
_FOLDER = re.compile(r"directions/([^/\\]+/)?")
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError)


def packed(collection: Collection) -> bytes:
    """A collection as a .zip file: the same bytes for the same content."""
    names = [FILE, *(f"directions/{e.id}/{f}" for e in collection.directions for f in FILES)]
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            content = (collection.folder / name).read_bytes()
            archive.writestr(
                zipfile.ZipInfo(name, _LONG_AGO), content, compress_type=zipfile.ZIP_DEFLATED
            )
    return made.getvalue()


def export(name: str, path: Path, store: Store | None = None) -> Path:
    """Write a collection to a .zip file.

    Raises:
        UserError: no such collection, another ending, or the file cannot be written.
    """
    if path.suffix != ".zip":
        raise UserError(f"a collection is exported to a .zip file, not to {path.name}")
    content = packed(open_collection(name, store))
    with exported(path) as making:
        making.write_bytes(content)
    return path


def import_parcel(
    source: Path | IO[bytes], name: str = "", store: Store | None = None
) -> Collection:
    """The collection in a .zip file, put into the store under a name that is free.

    Args:
        source: the file, or an open one.
        name: its own by default: that of the file.

    Raises:
        UserError: no .zip file, one that holds anything but a collection, the name is taken, or
            the store cannot be written.
    """
    store = store or Store()
    if not name and not isinstance(source, Path):
        raise UserError("name the collection: an open file has no name")
    name = checked_name(name or Path(str(source)).stem)
    with locked(store) as root:
        if (root / name).exists():
            raise UserError(f"there is a collection '{name}' already: give another with --name")
        making = Path(tempfile.mkdtemp(prefix=".import-", dir=root))
        try:
            _unpack(source, making)
            collection = read_collection(making, name)
            for entry in collection.directions:
                if len(Directions.load(collection.vectors_of(entry))) != 1:
                    raise UserError(f"'{entry.id}' of it is not one direction: {FIX}")
            making.chmod(0o755)
            place_whole(making, name, store)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return open_collection(name, store)


def _unpack(source: Path | IO[bytes], folder: Path) -> None:
    """Write a parcel's files into a folder.

    Raises:
        UserError: see above.
        OSError: the folder cannot be written.
    """
    where = source.name if isinstance(source, Path) else "this file"
    with ExitStack() as stack:
        with _reading(where):
            archive = stack.enter_context(zipfile.ZipFile(source))
            members = _checked(archive, where)
        for member in members:
            path = folder / member.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                for piece in _pieces(archive, member, where):
                    file.write(piece)


def _pieces(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> Iterator[bytes]:
    """The content of one of its files; what goes wrong in here is the parcel's fault, and what goes
    wrong between two pieces that of the store."""
    with _reading(where):
        file = archive.open(member)
    with file:
        while True:
            with _reading(where):
                piece = file.read(PIECE)
            if not piece:
                return
            yield piece


@contextmanager
def _reading(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {where}: {error.strerror or error}") from error
    except _BROKEN as error:
        raise UserError(f"cannot read {where} as a .zip file ({error}): {FIX}") from error


def _checked(archive: zipfile.ZipFile, where: str) -> list[zipfile.ZipInfo]:
    every = archive.infolist()
    if len(every) > 2 + MOST * (len(FILES) + 1):
        raise UserError(f"{where} holds {len(every):,} files, more than a collection: {FIX}")
    members = [each for each in every if not _FOLDER.fullmatch(each.filename)]
    names = [member.filename for member in members]
    for member in members:
        inside = Path(member.filename).parts
        if not _MEMBER.fullmatch(member.filename) or ".." in inside or "\0" in member.filename:
            raise UserError(
                f"{where} holds {member.filename[:80]!r}, no file of a collection: {FIX}"
            )
        if member.flag_bits & 1:
            raise UserError(f"{where} is encrypted: ask its sender for a plain one")
    if len(set(names)) < len(names) or FILE not in names:
        raise UserError(f"{where} has no {FILE}, or a file twice: {FIX}")
    if sum(member.file_size for member in members) > LARGEST:
        raise UserError(f"{where} holds more than {LARGEST >> 20} MiB: {FIX}")
    return members
