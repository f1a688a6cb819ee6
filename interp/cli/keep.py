"""`interp keep …`: collections of directions, prompts and views, with notes, in a store.

Whatever keeps a direction is a source of directions again: kept:NAME:ENTRY, and kept:NAME where all
of a collection are read in one way.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.extras import SubcommandApp

from ..directions.collections import Collection, collection_names, open_collection
from ..errors import UserError
from ..progress import log
from ..runs.store import Store
from .common import Json, Runs, answered, command, print_frame, say

if TYPE_CHECKING:
    from ..directions.collections import Entry

keep = SubcommandApp()
Name = Annotated[
    tyro.conf.Positional[str], tyro.conf.arg(help="The collection's name.", metavar="NAME")
]
EntryName = Annotated[
    tyro.conf.Positional[str],
    tyro.conf.arg(help="An entry's id; without one, the whole collection.", metavar="ENTRY"),
]


@command(keep, "add")
def add(
    name: Name,
    source: tyro.conf.Positional[str] = "",
    prompt: str = "",
    view: str = "",
    title: str = "",
    note: str = "",
    model: str | None = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Keep directions, a prompt or a view of the app; a new name begins a collection.

    Args:
        source: Directions: neurons (29.down.808), latents (sae:SOURCE:12), a stored set
            (run:KEY/SET:3), another collection's (kept:NAME:ENTRY) or a folder.
        prompt: A prompt instead.
        view: A view instead: its page and parameters, /atlas?word=dog.
        title: Of one entry; by default the direction's name.
        note: In your words.
        model: Catalog name, hub id, folder or .gguf; by default the directions' own.
    """
    from ..directions import keeping

    if (source != "") + (prompt != "") + (view != "") != 1:
        raise UserError("give one of: directions, --prompt, --view")
    store = Store(runs)
    if prompt:
        made = [keeping.keep_prompt(name, prompt, model or "", note, title, store)]
    elif view:
        made = [keeping.keep_view(name, view, title, note, store)]
    else:
        made = keeping.keep(name, source, model, note, title, store)
    if not answered(json, "keep.add", {"entries": len(made)}, entries=_plain(made)):
        for entry in made:
            opens = f": kept:{name}:{entry.id}" if entry.kind == "direction" else ""
            say(f"kept {entry.kind} {entry.title}{opens}")


@command(keep, "list")
def list_collections(runs: Runs = None, json: Json = False) -> None:
    """The collections of the store."""
    store, rows = Store(runs), []
    for name in collection_names(store):
        try:
            rows.append(_about(open_collection(name, store)))
        except UserError as error:
            log.warning("passed over: %s", error)
    if answered(json, "keep.list", {"collections": len(rows)}, collections=rows):
        return
    if not rows:
        raise UserError(
            f"no collections in {store.root}: begin one with `interp keep add NAME DIRECTION`"
        )
    for row in rows:
        say(f"{row['name']}: {row['entries']} entries{'. ' + row['note'] if row['note'] else ''}")


@command(keep, "show")
def show(name: Name, runs: Runs = None, json: Json = False) -> None:
    """What a collection holds."""
    found = open_collection(name, Store(runs))
    about = {"entries": len(found.entries)}
    if answered(json, "keep.show", about, note=found.note, entries=_plain(found.entries)):
        return
    if found.note:
        say(found.note)
    for entry in found.entries:
        place = f", {entry.site} of {entry.model}" if entry.site else ""
        say(f"{entry.id}  {entry.kind}{place}: {entry.title}")
        for line in (entry.source, entry.text, entry.address, entry.note):
            if line:
                say(f"    {line}")


@command(keep, "note")
def note(
    name: Name,
    entry: EntryName = "",
    text: str = "",
    title: str = "",
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Write the note of an entry or of a collection, in the place of what it says now.

    Args:
        text: The note.
        title: Also another title for the entry.
    """
    from ..directions import keeping

    if title and not entry:
        raise UserError("a title is of an entry: name it, or give the collection another name")
    _done(keeping.annotate(name, text, entry, title, Store(runs)), "keep.note", json)


@command(keep, "compare")
def compare(
    name: Name,
    entries: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="ENTRY …")
    ] = (),
    runs: Runs = None,
    json: Json = False,
) -> None:
    """The cosine of every pair of a collection's directions, the closest first.

    Args:
        entries: Their ids; by default the first 40.
    """
    from ..directions.kept_pairs import compare_kept

    made = compare_kept(name, entries, Store(runs))
    log.info("%s", made.told)
    print_frame("keep.compare", made.rows, json, told=made.told)


@command(keep, "merge")
def merge(
    name: Name,
    others: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="OTHER …")],
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Put what other collections hold into one; they stay as they are.

    Args:
        others: Their names.
    """
    from ..directions import merging

    if not others:
        raise UserError("name the collections to put into it")
    _done(merging.merge(name, others, Store(runs)), "keep.merge", json)


@command(keep, "rename")
def rename(
    name: Name, new: tyro.conf.Positional[str], runs: Runs = None, json: Json = False
) -> None:
    """Give a collection another name.

    Args:
        new: The other name.
    """
    from ..directions import keeping

    _done(keeping.rename(name, new, Store(runs)), "keep.rename", json)


@command(keep, "export")
def export(
    name: Name, out: tyro.conf.Positional[Path], runs: Runs = None, json: Json = False
) -> None:
    """Write a collection to one .zip file, to send.

    Args:
        out: The file.
    """
    from ..directions import parcel

    made = parcel.export(name, out, Store(runs))
    if not answered(json, "keep.export", {"bytes": made.stat().st_size}, file=str(made)):
        say(made)


@command(keep, "report")
def report(
    name: Name, out: tyro.conf.Positional[Path], runs: Runs = None, json: Json = False
) -> None:
    """Write a collection as one HTML file that stands alone: notes, tokens, cosines.

    Args:
        out: The file.
    """
    from ..report.of_collection import report_of_collection
    from ..runs.parts import export_text

    export_text(out, report_of_collection(name, Store(runs)))
    if not answered(json, "keep.report", {"bytes": out.stat().st_size}, file=str(out)):
        say(out)


@command(keep, "import")
def import_collection(
    file: tyro.conf.Positional[Path], name: str = "", runs: Runs = None, json: Json = False
) -> None:
    """Take a collection from a .zip file that `interp keep export` wrote, anywhere.

    Args:
        file: The file.
        name: The collection's name here; by default the file's.
    """
    from ..directions import parcel

    _done(parcel.import_parcel(file, name, Store(runs)), "keep.import", json)


@command(keep, "remove")
def remove(
    name: Name, entry: EntryName = "", yes: bool = False, runs: Runs = None, json: Json = False
) -> None:
    """Take an entry out of a collection, or with --yes the whole collection away.

    Args:
        yes: Take away a whole collection.
    """
    from ..directions import keeping

    if not entry and not yes:
        raise UserError(f"this takes the whole collection {name} away: give --yes, or an entry")
    keeping.remove(name, entry, Store(runs))
    if not answered(json, "keep.remove", {}, name=name, entry=entry):
        say(f"removed {entry or name}")


def _done(made: Collection, study: str, json: bool) -> None:
    if not answered(json, study, {"entries": len(made.entries)}, **_about(made)):
        say(f"{made.name}: {len(made.entries)} entries")


def _about(collection: Collection) -> dict[str, Any]:
    return {
        "name": collection.name,
        "entries": len(collection.entries),
        "note": collection.note,
    }


def _plain(entries: list[Entry] | tuple[Entry, ...]) -> list[dict[str, str]]:
    return [asdict(entry) for entry in entries]
