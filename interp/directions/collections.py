"""Collections: named sets of directions, prompts and views with notes, kept in a store.

    <store>/collections/<name>/
        collection.json     the entries, each with its title, note and where it comes from
        taken-out.json      the ids that entries had which were taken out: none is given again
        directions/<id>/    of an entry that is a direction: what `Directions.save` writes

Each direction keeps its own site, reading and provenance, so it scores as it did where it was
found. `kept:NAME:ENTRY` opens one, and `kept:NAME` all of them where they are read in one way. A
collection may come from anyone: what is read is held against what it must be. No torch; `keeping`
writes.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection as Names
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from ..plain_json import check, read_json, record
from ..runs.manifest import check_inside
from ..runs.store import Store

KEPT = "kept:"
FILE, GONE = "collection.json", "taken-out.json"
SCHEMA = 1
KINDS = ("direction", "prompt", "view")
FIX = "do not use it, or ask its sender for another"
MOST, LONGEST_TITLE, LONGEST_NOTE, LONGEST_TEXT = 2000, 400, 20_000, 200_000
"""Entries of a collection, and characters of a title, of a note, of a prompt."""
_NAME = re.compile(r"\w[\w .+-]{0,58}[\w+-]|\w")
_ID = re.compile(r"\w[\w.+-]{0,58}[\w+-]|\w")
_ADDRESS = re.compile(r"/[a-z0-9_-]*(\?[^\s#]*)?")
_LIMITS = {"title": LONGEST_TITLE, "note": LONGEST_NOTE, "text": LONGEST_TEXT, "address": 8000}
_SHORT = 4000
"""Characters of any other text of an entry."""


@dataclass(frozen=True)
class Entry:
    """What is kept of one direction, prompt or view."""

    id: str
    """Its name in the collection, and of its folder."""
    kind: str
    title: str
    note: str = ""
    added: str = ""
    """When, as 2026-11-29T14:05:00+00:00."""
    source: str = ""
    """Of a direction: the text that it was opened by."""
    model: str = ""
    """Whose direction, or the model that a prompt was put to."""
    site: str = ""
    read_as: str = ""
    """How a direction is read, in a few signs."""
    text: str = ""
    """Of a prompt."""
    address: str = ""
    """Of a view: its page and parameters, `/atlas?word=dog`."""


@dataclass(frozen=True)
class Collection:
    """A named set of entries."""

    name: str
    folder: Path
    note: str
    entries: tuple[Entry, ...]

    def entry(self, id: str) -> Entry:
        """One of them.

        Raises:
            UserError: none of that id.
        """
        for entry in self.entries:
            if entry.id == id:
                return entry
        shown = ", ".join(entry.id for entry in self.entries[:8]) or "none"
        raise UserError(f"the collection {self.name} has no entry '{id}': it has {shown}")

    @property
    def directions(self) -> tuple[Entry, ...]:
        """The entries that are directions."""
        return tuple(entry for entry in self.entries if entry.kind == "direction")

    def vectors_of(self, entry: Entry) -> Path:
        """The folder of a direction."""
        return check_inside(self.folder, f"directions/{entry.id}")


class KeptEntry(NamedTuple):
    """A direction of a collection, and where its vector is."""

    collection: str
    about: Entry
    folder: Path

    @property
    def source(self) -> str:
        """The text that opens it."""
        return f"{KEPT}{self.collection}:{self.about.id}"


def root_of(store: Store) -> Path:
    """Where a store's collections are."""
    return store.root / "collections"


def checked_name(name: str) -> str:
    """A collection's name, which is also its folder's.

    Raises:
        UserError: one that is no plain file name.
    """
    made = unicodedata.normalize("NFC", name.strip())
    if not _NAME.fullmatch(made) or len(made.encode()) > 200:
        raise UserError(
            f"'{name[:80]}' cannot be a collection's name: give up to 60 letters, digits, blanks "
            "and . + - _, with a letter or digit first"
        )
    return made


def collection_names(store: Store) -> list[str]:
    """The collections that there are, by name."""
    found = (path.parent.name for path in root_of(store).glob(f"*/{FILE}"))
    return sorted(name for name in found if _NAME.fullmatch(name))


def open_collection(name: str, store: Store | None = None) -> Collection:
    """A collection by its name.

    Raises:
        UserError: there is none, or a damaged one.
    """
    store, name = store or Store(), checked_name(name)
    folder = check_inside(root_of(store), name)
    if not (folder / FILE).is_file():
        there = ", ".join(collection_names(store)[:8])
        raise UserError(
            f"there is no collection '{name}' in {store.root}: "
            + (f"it has {there}" if there else f"begin one with `interp keep add {name} DIRECTION`")
        )
    return read_collection(folder, name)


def read_collection(folder: Path, name: str) -> Collection:
    """The collection in a folder, whose entries are what entries must be.

    Raises:
        UserError: a damaged one, or one of another layout.
    """
    path = check_inside(folder, FILE)
    about = read_json(path, FIX)
    check(about.get("note", ""), str, f"'note' of {path}", FIX)
    check(about.get("entries"), list[dict[str, Any]], f"'entries' of {path}", FIX)
    if about.get("schema") != SCHEMA:
        raise UserError(f"{path} is not of this version's layout ({SCHEMA}): {FIX}")
    if len(about["entries"]) > MOST or len(about["note"]) > LONGEST_NOTE:
        raise UserError(f"{path} has more than {MOST} entries or too long a note: {FIX}")
    entries: list[Entry] = []
    for number, given in enumerate(about["entries"], 1):
        entry = record(Entry, given, f"entry {number} of {path}", FIX)
        _check_entry(entry, f"entry {number} of {path}", {each.id for each in entries})
        entries.append(entry)
    return Collection(name, folder, about["note"], tuple(entries))


def _check_entry(entry: Entry, where: str, before: Names[str]) -> None:
    if not _ID.fullmatch(entry.id) or entry.id in before:
        raise UserError(f"{where} has no proper id of its own: {FIX}")
    if entry.kind not in KINDS:
        raise UserError(f"{where} is no direction, prompt or view: {FIX}")
    for name, value in vars(entry).items():
        if len(value) > _LIMITS.get(name, _SHORT):
            raise UserError(f"'{name}' of {where} is too long: {FIX}")
    if entry.kind == "view" or entry.address:
        checked_address(entry.address)


def checked_address(address: str) -> str:
    """The address of a view in this workbench.

    Raises:
        UserError: it leads elsewhere.
    """
    if not _ADDRESS.fullmatch(address):
        raise UserError(
            f"'{address[:80]}' is no view of this app: give its page and parameters, such as "
            "/atlas?word=dog"
        )
    return address


def open_kept(source: str, store: Store) -> list[KeptEntry]:
    """The directions that `kept:NAME[:ENTRY]` names; several entries stand between commas.

    Raises:
        UserError: no such collection or entry, or none that is a direction.
    """
    name, _, ids = source.removeprefix(KEPT).partition(":")
    if not name:
        raise UserError(f"'{source}' names no collection: write kept:NAME or kept:NAME:ENTRY")
    opened = open_collection(name, store)
    chosen = [opened.entry(id.strip()) for id in ids.split(",")] if ids else opened.directions
    if not chosen:
        raise UserError(f"the collection {opened.name} holds no directions yet")
    if other := [entry for entry in chosen if entry.kind != "direction"]:
        raise UserError(f"'{other[0].id}' of {opened.name} is a {other[0].kind}, no direction")
    return [KeptEntry(opened.name, entry, opened.vectors_of(entry)) for entry in chosen]


def told_apart(entries: Sequence[Entry]) -> dict[str, str]:
    """What entries are called by their ids: by the title, with the id where two have one title."""
    titles = Counter(entry.title for entry in entries)
    made = {e.id: e.title if titles[e.title] == 1 else f"{e.title} ({e.id})" for e in entries}
    if len(set(made.values())) == len(made):
        return made
    return {entry.id: f"{entry.title} ({entry.id})" for entry in entries}


def new_id(title: str, taken: Names[str]) -> str:
    """An id made of a title, and not one of those that are taken."""
    plain = re.sub(r"[^\w.+-]+", "-", unicodedata.normalize("NFC", title)).strip("-._ ")[:40]
    base = plain.rstrip(".") if _ID.fullmatch(plain.rstrip(".") or "-") else "entry"
    numbers = (f"{base}-{n}" for n in count(2))
    return next(id for id in chain([base], numbers) if id not in taken)
