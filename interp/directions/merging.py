"""Collections put together: what is the same stands in the new one once."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..runs.parts import whole
from ..runs.store import Store
from .collections import KEPT, LONGEST_NOTE, Collection, Entry, new_id, open_collection
from .keeping import changed
from .sets import FILES


def merge(name: str, others: Sequence[str], store: Store | None = None) -> Collection:
    """Put what other collections hold into one, which may be new. They stay as they are. What is
    the same (kind, source, model, text, address, and all that scores depend on) is not put in
    again: it gets both notes."""
    store = store or Store()
    from_there = [open_collection(each, store) for each in others]
    with changed(name, store) as (collection, write):
        entries = {entry.id: entry for entry in collection.entries}
        known = {_same(collection, entry): entry.id for entry in collection.entries}
        for other in from_there:
            for entry in other.entries:
                key = _same(other, entry)
                if id := known.get(key):
                    entries[id] = replace(entries[id], note=_both(entries[id].note, entry.note))
                    continue
                known[key] = id = new_id(entry.id, list(entries))
                entries[id] = replace(entry, id=id)
                if entry.kind == "direction":
                    _copy(other.vectors_of(entry), collection.vectors_of(entries[id]))
        write(replace(collection, entries=tuple(entries.values())))
    return open_collection(name, store)


def _copy(there: Path, here: Path) -> None:
    """The files of a direction, the one that says that it is whole last."""
    for name in (*FILES[1:], FILES[0]):
        with whole(here, name) as making:
            shutil.copyfile(there / name, making)


def _same(collection: Collection, entry: Entry) -> tuple[str, ...]:
    """What two entries that are the same share."""
    scores = ""
    if entry.kind == "direction":
        from .directions import Directions

        opened = Directions.load(collection.vectors_of(entry))
        scores = f"{opened.provenance.fingerprint} {opened.identity}"
    source = "" if entry.source.startswith(KEPT) else entry.source
    return entry.kind, source, entry.model, entry.site, entry.text, entry.address, scores


def _both(one: str, other: str) -> str:
    """Two notes, the same text once."""
    if not other or other in one:
        return one
    return f"{one}\n{other}"[:LONGEST_NOTE] if one else other
