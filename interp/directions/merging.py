"""Collections put together: what is the same stands in the new one once."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import UserError
from ..runs.parts import whole
from ..runs.store import Store
from .collections import KEPT, LONGEST_NOTE, Collection, Entry, new_id, open_collection
from .keeping import UNCHANGED, changed, taken_ids
from .sets import FILES


def merge(name: str, others: Sequence[str], store: Store | None = None) -> Collection:
    """Put what other collections hold into one, which may be new. They stay as they are. What is
    the same (kind, source, model, text, address, and all that scores depend on) is not put in
    again: it gets both notes, and another title as a line of the note. A direction that was kept
    from a collection is the same as its original.

    Raises:
        UserError: no such collection, or two notes are too long for one.
    """
    store = store or Store()
    from_there = [open_collection(each, store) for each in others]
    copies: list[tuple[Path, Path]] = []
    with changed(name, store) as (collection, write):
        entries = {entry.id: entry for entry in collection.entries}
        taken = taken_ids(collection)
        known: dict[tuple[str, ...], list[str]] = {}
        for entry in collection.entries:
            known.setdefault(_same(collection, entry), []).append(entry.id)
        for other in from_there:
            for entry in other.entries:
                ids = known.setdefault(_same(other, entry), [])
                if id := next((id for id in ids if _one_source(entries[id], entry)), ""):
                    entries[id] = replace(entries[id], note=_both(entries[id], entry))
                    continue
                id = new_id(entry.id, taken)
                taken.add(id)
                ids.append(id)
                entries[id] = replace(entry, id=id)
                if entry.kind == "direction":
                    copies.append((other.vectors_of(entry), collection.vectors_of(entries[id])))
        for there, here in copies:
            _copy(there, here)
        write(replace(collection, entries=tuple(entries.values())))
    return open_collection(name, store)


def _copy(there: Path, here: Path) -> None:
    """The files of a direction, the one that says that it is whole last."""
    for name in (*FILES[1:], FILES[0]):
        with whole(here, name, UNCHANGED) as making:
            shutil.copyfile(there / name, making)


def _same(collection: Collection, entry: Entry) -> tuple[str, ...]:
    """What two entries that are the same share, beside their source."""
    scores = ""
    if entry.kind == "direction":
        from .directions import Directions

        opened = Directions.load(collection.vectors_of(entry))
        # one that was kept from a collection is named by the title that it had there
        bare = replace(opened, index=opened.index.assign(name=""))
        scores = f"{opened.provenance.fingerprint} {bare.identity}"
    return entry.kind, entry.model, entry.site, entry.text, entry.address, scores


def _one_source(ours: Entry, theirs: Entry) -> bool:
    """Whether two were opened by one text, or one of them from a collection."""
    return ours.source == theirs.source or any(
        each.source.startswith(KEPT) for each in (ours, theirs)
    )


def _both(ours: Entry, theirs: Entry) -> str:
    """Two notes, the same lines once; and the other title, if it is another."""
    note = ours.note
    other = f"also titled: {theirs.title}" if theirs.title != ours.title else ""
    for lines in (other, theirs.note):
        if lines and f"\n{lines}\n" not in f"\n{note}\n":
            note = f"{note}\n{lines}" if note else lines
    if len(note) > LONGEST_NOTE:
        raise UserError(
            f"'{ours.id}' and the same in the other collection have notes of {len(note):,} "
            f"characters together, and one has at most {LONGEST_NOTE:,}: shorten one of them"
        )
    return note
