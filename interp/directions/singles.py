"""Of each of some directions the text that opens it alone: what a link or a collection names."""

from __future__ import annotations

from dataclasses import replace

from ..runs.store import Store
from .collections import KEPT, open_kept
from .directions import Directions
from .encoder import Encoder
from .reading import Coordinate
from .sets import chosen_rows, sae_text, text_of_folder
from .sources import folder_of


def singles(source: str, directions: Directions, store: Store | None = None) -> list[str]:
    """The texts, in the order of the directions; of a set in a run of the store without its
    machine's path.

    Args:
        source: what opened them (`open_directions`).
    """
    store = store or Store()
    if folder := folder_of(source, store):
        every = Directions.load(folder.path).names if folder.rows else directions.names
        text = text_of_folder(folder.path, store)
        return [f"{text}:{row}" for row in chosen_rows(folder.rows, every)]
    if source.startswith(KEPT):
        return [entry.source for entry in open_kept(source, store)]
    if source.startswith("sae:"):
        sae = source.removeprefix("sae:")
        head, _, numbers = sae.rpartition(":")
        named = head not in ("", "run") and numbers.replace(",", "").replace(" ", "").isdecimal()
        text = sae_text(head if named else sae, store)
        return [f"sae:{text}:{latent}" for latent in directions.index["latent"]]
    if source.startswith("lens:"):
        lens, layer = source.split(":")[1:3]
        return [f"lens:{lens}:{layer}:{token}" for token in directions.names]
    return directions.names


def without_place(directions: Directions, store: Store) -> Directions:
    """The same, which name an SAE of a stored run or one that ships by its text and not by its
    path on this machine: for what is sent to others."""
    reading, made = directions.reading, directions.provenance
    if isinstance(reading, Encoder):
        reading = replace(reading, sae=sae_text(reading.sae, store))
    notes = {
        name: sae_text(note, store) if isinstance(note, str) else note
        for name, note in made.notes.items()
    }
    return replace(directions, reading=reading, provenance=replace(made, notes=notes))


def read_words(directions: Directions, store: Store) -> str:
    """How they are read and where, without a machine's path."""
    reading = directions.reading
    if isinstance(reading, Encoder):
        return f"activation in {sae_text(reading.sae, store)} at {directions.read_at}"
    if isinstance(reading, Coordinate):
        return directions.read_as
    return f"{directions.read_as} at {directions.read_at}"
