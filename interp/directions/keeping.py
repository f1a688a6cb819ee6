"""Writing collections: a change is written whole or not at all, and of two writers at once each
waits for the other (a lock on the store's folder of collections).

A direction's folder is written before the list that names it, and taken away after: what a crash
leaves is a folder that nothing names, never an entry without its vector.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..plain_json import check, read_json
from ..runs.disk import unwritable
from ..runs.parts import whole
from ..runs.store import Store
from .collections import (
    FILE,
    FIX,
    GONE,
    LONGEST_NOTE,
    LONGEST_TEXT,
    LONGEST_TITLE,
    MOST,
    SCHEMA,
    Collection,
    Entry,
    checked_address,
    checked_name,
    new_id,
    open_collection,
    root_of,
)

if TYPE_CHECKING:
    from .directions import Directions

AT_ONCE = 100
"""Directions that are kept by one call."""
UNCHANGED = "the collection is as it was"
"""What becomes of one that cannot be written."""


def keep(
    name: str,
    source: str,
    model: str | None = None,
    note: str = "",
    title: str = "",
    store: Store | None = None,
) -> list[Entry]:
    """Keep directions in a collection, each as an entry of its own; a new name begins one.

    Args:
        source: as `open_directions` takes it.
        title: of one direction; by default its name.

    Raises:
        UserError: the text names none, more than AT_ONCE, or the collection cannot be written.
    """
    from .singles import singles
    from .sources import open_directions

    store = store or Store()
    opened = open_directions(source, model, store)
    if len(opened) > AT_ONCE:
        raise UserError(
            f"{source} names {len(opened):,} directions: name at most {AT_ONCE}, as in {source}:0,3"
        )
    if title and len(opened) > 1:
        raise UserError(f"{source} names {len(opened)} directions: a title is of one")
    texts = singles(source, opened, store)
    return keep_directions(name, opened, texts, note, title, model or "", store)


def keep_directions(
    name: str,
    directions: Directions,
    sources: Sequence[str] = (),
    note: str = "",
    title: str = "",
    model: str = "",
    store: Store | None = None,
) -> list[Entry]:
    """`keep` of directions that are open already.

    Args:
        sources: of each the text that it was opened by, if any.
        model: whose they are, if they do not say it.
    """
    from .singles import read_words, without_place

    store, made = store or Store(), []
    directions, title = without_place(directions, store), _line(title)
    with changed(name, store) as (collection, write):
        entries, taken = list(collection.entries), taken_ids(collection)
        for row, own in enumerate(directions.names):
            entry = Entry(
                id=new_id(title or own, taken),
                kind="direction",
                title=title or own[:LONGEST_TITLE],
                note=_short(note, LONGEST_NOTE, "the note"),
                added=_now(),
                source=sources[row] if sources else "",
                model=directions.provenance.model or model,
                site=str(directions.site),
                read_as=read_words(directions, store),
            )
            directions.pick([row]).save(collection.vectors_of(entry))
            taken.add(entry.id)
            entries.append(entry)
            made.append(entry)
        write(replace(collection, entries=tuple(entries)))
    return made


def keep_prompt(
    name: str,
    text: str,
    model: str = "",
    note: str = "",
    title: str = "",
    store: Store | None = None,
) -> Entry:
    """Keep a prompt in a collection."""
    if not text.strip():
        raise UserError("the prompt is empty: give some text")
    _short(text, LONGEST_TEXT, "the prompt")
    return _keep_one(
        name, Entry("", "prompt", title or text[:60], note, text=text, model=model), store
    )


def keep_view(
    name: str, address: str, title: str = "", note: str = "", store: Store | None = None
) -> Entry:
    """Keep a view of the app in a collection, by its page and parameters: /atlas?word=dog."""
    checked_address(address)
    return _keep_one(name, Entry("", "view", title or address, note, address=address), store)


def _keep_one(name: str, entry: Entry, store: Store | None) -> Entry:
    title = _line(entry.title)
    _short(entry.note, LONGEST_NOTE, "the note")
    with changed(name, store or Store()) as (collection, write):
        id = new_id(title, taken_ids(collection))
        made = replace(entry, id=id, title=title, added=_now())
        write(replace(collection, entries=(*collection.entries, made)))
    return made


def annotate(
    name: str, note: str, entry: str = "", title: str = "", store: Store | None = None
) -> Collection:
    """Write a collection's note, or an entry's, and if given its title."""
    _short(note, LONGEST_NOTE, "the note")
    title = _line(title)
    with changed(name, store or Store(), new=False) as (collection, write):
        if entry:
            old = collection.entry(entry)
            new = replace(old, note=note, title=title or old.title)
            entries = tuple(new if each is old else each for each in collection.entries)
            made = replace(collection, entries=entries)
        else:
            made = replace(collection, note=note)
        write(made)
    return made


def remove(name: str, entry: str = "", store: Store | None = None) -> None:
    """Take an entry out of a collection; without one, the whole collection away."""
    store = store or Store()
    with changed(name, store, new=False) as (collection, write):
        if entry:
            gone = collection.entry(entry)
            left = tuple(each for each in collection.entries if each is not gone)
            _write_gone(collection, gone.id)  # first: a crash between the two gives no id twice
            write(replace(collection, entries=left))
            shutil.rmtree(collection.vectors_of(gone), ignore_errors=True)
        else:
            (collection.folder / FILE).unlink()  # first: without it there is no collection
            shutil.rmtree(collection.folder)


def rename(name: str, new: str, store: Store | None = None) -> Collection:
    """Give a collection another name."""
    store, new = store or Store(), checked_name(new)
    with changed(name, store, new=False) as (collection, _):
        place_whole(collection.folder, new, store)
    return open_collection(new, store)


def place_whole(folder: Path, name: str, store: Store) -> None:
    """Give a whole collection's folder the place of a name; the lock must be held.

    Raises:
        UserError: there is a collection of that name, or it cannot be written.
    """
    target = root_of(store) / name
    if target.exists():
        raise UserError(f"there is a collection '{name}' already: give another name")
    try:
        folder.rename(target)
    except OSError as error:
        raise UserError(unwritable(target, error, UNCHANGED)) from error


@contextmanager
def locked(store: Store) -> Iterator[Path]:
    """The folder of a store's collections, which nobody else changes meanwhile."""
    root = root_of(store)
    try:
        root.mkdir(parents=True, exist_ok=True)
        held = os.open(root / ".lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise UserError(unwritable(root, error, "nothing is kept")) from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield root
    except OSError as error:  # a lock that was there can be held where nothing else can be written
        path = Path(error.filename or root)
        raise UserError(unwritable(path, error, "the rest is as it was")) from error
    finally:
        os.close(held)  # which gives the lock back


@contextmanager
def changed(
    name: str, store: Store, new: bool = True
) -> Iterator[tuple[Collection, Callable[[Collection], None]]]:
    """A collection as it is now, and what writes it, while nobody else does."""
    name = checked_name(name)
    with locked(store) as root:
        if new and not (root / name / FILE).is_file():
            with _begun(root / name):
                yield Collection(name, root / name, "", ()), write_list
        else:
            yield open_collection(name, store), write_list


@contextmanager
def _begun(folder: Path) -> Iterator[None]:
    """A new collection's folder, which does not stay where nothing could be kept."""
    before = folder.exists()
    try:
        yield
    finally:
        if not before and not (folder / FILE).is_file():
            shutil.rmtree(folder, ignore_errors=True)


def write_list(collection: Collection) -> None:
    if len(collection.entries) > MOST:
        raise UserError(f"a collection has at most {MOST} entries: begin another one")
    about = {
        "schema": SCHEMA,
        "note": collection.note,
        "entries": [asdict(entry) for entry in collection.entries],
    }
    with whole(collection.folder, FILE, UNCHANGED) as making:
        making.write_text(json.dumps(about, indent=1), encoding="utf-8")


def taken_ids(collection: Collection) -> set[str]:
    """The ids that a new entry may not have: a link or a note may mean the one that had it."""
    return {entry.id for entry in collection.entries} | set(_gone(collection))


def _gone(collection: Collection) -> list[str]:
    path = collection.folder / GONE
    if not path.exists():
        return []
    ids = read_json(path, FIX).get("ids")
    check(ids, list[str], f"'ids' of {path}", FIX)
    return list(ids)


def _write_gone(collection: Collection, id: str) -> None:
    """Beside the list and not in it: what was taken out is not sent to others."""
    ids = sorted({*_gone(collection), id})
    with whole(collection.folder, GONE, UNCHANGED) as making:
        making.write_text(json.dumps({"ids": ids}), encoding="utf-8")


def _line(title: str) -> str:
    """A title as it is kept: one line."""
    return _short(" ".join(title.split()), LONGEST_TITLE, "the title")


def _short(text: str, most: int, what: str) -> str:
    if len(text) > most:
        raise UserError(f"{what} has {len(text):,} characters: give at most {most:,}")
    return text


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
