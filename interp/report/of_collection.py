"""The report of a collection: what is kept, with its notes; what each direction spells; and the
cosines between them."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import pandas as pd

from ..directions import figures
from ..directions.collections import KEPT, Collection, Entry, open_collection, told_apart
from ..directions.kept_pairs import MOST, compared, words
from ..directions.sets import run_of
from ..errors import UserError
from ..model.weights import open_weights
from ..runs.command import shell_line
from ..runs.store import Run, Store
from .document import report
from .section import Section

if TYPE_CHECKING:
    from ..directions import Directions

TOKENS = 10


def report_of_collection(name: str, store: Store | None = None) -> str:
    """The document of a collection.

    Raises:
        UserError: there is none, or a damaged one. What is wrong with one direction (its model is
            not here, its site is not of the stream) is said in its section.
    """
    store = store or Store()
    collection = open_collection(name, store)
    opened = _opened(collection, store)
    sections = [_about(collection)]
    if len(opened) > 1:
        sections.append(_compared(collection, opened))
    titles = told_apart(collection.entries)
    sections += [
        _entry(collection, each, titles[each.id], opened.get(each.id))
        for each in collection.entries
    ]
    return report(collection.name, sections, _runs(collection, store))


def _opened(collection: Collection, store: Store) -> dict[str, Directions]:
    """The directions by the ids of their entries, but for those that are damaged."""
    from ..directions import open_directions

    found = {}
    for entry in collection.directions:
        try:
            found[entry.id] = open_directions(f"{KEPT}{collection.name}:{entry.id}", None, store)
        except UserError:
            continue
    return found


def _about(collection: Collection) -> Section:
    rows = pd.DataFrame(
        [(e.id, e.title, e.kind, e.site, e.model, e.note) for e in collection.entries],
        columns=["id", "title", "kind", "site", "model", "note"],
    )
    return Section("What is kept", shows=collection.note, rows=rows, of="keep")


def _compared(collection: Collection, opened: dict[str, Directions]) -> Section:
    made = compared(collection, dict(islice(opened.items(), MOST)))
    blanks = set(made.rows.get("blank", ())) - {""}
    cut = f" Only the first {MOST} of {len(opened):,} directions." if len(opened) > MOST else ""
    return Section(
        "Compared",
        shows=f"Cosines. {made.told} A blank has none. Directions that were found in different "
        f"ways and still agree are the surprise.{cut}",
        figures=(figures.cosine_map(made.cosine, made.names, made.names),),
        found="; ".join(sorted(blanks)),
        rows=made.rows,
        of="directions",
        command=shell_line(words(collection, made.ids)),
    )


def _entry(collection: Collection, entry: Entry, title: str, opened: Directions | None) -> Section:
    """One entry: facts, and of a direction what it spells."""
    told = {
        "kind": entry.kind,
        "note": entry.note,
        "site": entry.site,
        "model": entry.model,
        "score": entry.read_as,
        "from": entry.source,
        "prompt": entry.text,
        "view": entry.address,
        "kept": entry.added[:16].replace("T", " "),
    }
    facts = {name: value for name, value in told.items() if value}
    if opened is None:
        return Section(title, facts=facts)
    source = f"{KEPT}{collection.name}:{entry.id}"
    command = shell_line(["interp", "directions", "decode", source])
    notebook = f"from interp import open_directions\nopen_directions({source!r})"
    try:
        weights = open_weights(opened.model)
        if reason := opened.provenance.not_of(weights):
            facts["weights"] = f"they are {reason}"
        table = opened.decode(weights, TOKENS)
    except UserError as error:
        facts["tokens"] = f"none: {error}"
        return Section(title, facts=facts, command=command, notebook=notebook)
    return Section(
        title,
        facts=facts,
        figures=(figures.token_bars(table.iloc[0]),),
        command=command,
        notebook=notebook,
    )


def _runs(collection: Collection, store: Store) -> list[Run]:
    """The runs that the directions are from, as far as they are in the store."""
    found: dict[str, Run] = {}
    for entry in collection.directions:
        if entry.source.startswith("run:"):
            key = entry.source.removeprefix("run:").partition("/")[0].partition(":")[0]
            try:
                found[key] = run_of(key, store)
            except UserError:
                continue
    return list(found.values())
