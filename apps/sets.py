"""Directions on pages: opened once a content, named by what they are, chosen, decoded.

Whatever is remembered of a set is remembered by the print of its files (`sources.content`), never
by its path: another set may lie there by now.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import streamlit as st

from interp.apps.address import bound
from interp.apps.answers import remembered
from interp.apps.chips import chips
from interp.apps.columns import shown_table
from interp.apps.common import consent, consent_to_sae
from interp.apps.picking import chosen_model
from interp.apps.words import placed, plain
from interp.data import FOLDER
from interp.directions import Directions, open_directions
from interp.directions.collections import KEPT
from interp.directions.encoder import Encoder
from interp.directions.sets import FILES as SET_FILES
from interp.directions.sets import sae_text, set_text, sets_of
from interp.directions.singles import read_words, singles
from interp.directions.sources import content, folder_of, latents_named
from interp.errors import UserError
from interp.lens.files import open_lens
from interp.model.weights import open_weights
from interp.plain_json import read_json
from interp.runs.command import store_words
from interp.runs.store import Store
from interp.saes.fold import FILES as SAE_FILES
from interp.saes.layouts import find

LENSES = ("raw", "final", "tuned", "jacobian")
LIMIT = 50
"""Directions shown at once: a set of a million is for the command line."""
_RECENT = "directions visited"


class OpenSet(NamedTuple):
    """Directions that a text names."""

    source: str
    directions: Directions
    """The first LIMIT."""
    total: int
    print: str
    """Of the content."""
    texts: list[str]
    """Of each the text that opens it alone."""
    model: str
    """Whose they are: their own model, or the one that is chosen."""


def opened_set(source: str, model: str = "") -> OpenSet:
    """Open what a text names, or take what was opened before of the same content.

    Args:
        model: whose neurons, latents or tokens; by default the one chosen for all pages.

    Raises:
        UserError: as `open_directions`.
    """
    model, store = model or chosen_model(), Store()
    if not source.startswith((KEPT, "run:")) and folder_of(source, store) is None:
        consent(model)  # which may be of a link
    consent_to_named_sae(source)
    own = content(source, model, store)

    def make() -> OpenSet:
        with st.spinner(f"opening {plain(source[:80])} …"):
            whole = open_directions(source, model, store)
        first = whole.pick(list(range(min(len(whole), LIMIT))))
        # an open SAE would stay in memory with them: they open it again when they are scored
        reading = replace(first.reading) if isinstance(first.reading, Encoder) else first.reading
        first = replace(first, reading=reading)
        texts = singles(source, whole, store)[:LIMIT]
        owner = whole.provenance.model or model
        return OpenSet(source, first, len(whole), own, texts, owner)

    return remembered(("directions", own, source, model, str(store.root)), make)


def consent_to_named_sae(source: str) -> None:
    """Ask before the SAE of a text of latents is fetched."""
    if source.startswith("sae:"):
        consent_to_sae(latents_named(source)[0])


def consent_to_scores(directions: Directions) -> None:
    """Ask before the SAE is fetched that directions are scored by: a collection or a run may come
    from anybody."""
    if isinstance(directions.reading, Encoder):
        consent_to_sae(directions.reading.sae)


def decoded(opened: OpenSet, model: str, k: int, lens: str) -> pd.DataFrame:
    """Their tokens, read once for a content of the set, of the model and of the lens."""
    if lens not in LENSES:  # a browser can send any text
        raise UserError(f"'{lens}' is no lens of the list: choose one")
    weights = open_weights(model)
    through = open_lens(lens, weights)

    def make() -> pd.DataFrame:
        with st.spinner("reading the unembedding …"):
            return opened.directions.decode(weights, k, through)

    key = ("decoded", opened.print, opened.source, weights.fingerprint(), through.identity, k)
    return remembered(key, make)


def cautions(directions: Directions) -> list[str]:
    """What to keep in mind where they are decoded."""
    site, said = directions.site, []
    if str(site) == "0.resid_pre":
        said.append(
            "0.resid_pre holds the token embeddings, before any layer: through the LM head they "
            "show which tokens are alike, not what the model predicts."
        )
    if site.kind == "mlp_in":
        said.append(
            "These vectors are read and not written: the tokens are those whose unembedding is "
            "alike, and the norm's gain before them is left out."
        )
    return said


def head(opened: OpenSet) -> None:
    """Chips of what a set is: site, model, reading, and who found it."""
    directions = opened.directions
    by = directions.provenance.analysis
    st.markdown(
        chips(
            ("site", directions.site),
            ("model", opened.model),
            ("read", f"score: {read_words(directions, Store())}"),
            ("set", f"found by {by}" if by else ""),
        )
    )


def visited(source: str) -> None:
    """Remember a direction as visited, the newest first."""
    before = [each for each in st.session_state.get(_RECENT, []) if each != source]
    st.session_state[_RECENT] = [source, *before][:20]


def recent() -> list[str]:
    """The directions visited in this session, the newest first."""
    return list(st.session_state.get(_RECENT, []))


def stored_sets(store: Store) -> dict[str, str]:
    """The sets in the store's runs: the text that opens each, and what it is: the study, the set,
    what tells its run apart, the site, the model, the date."""
    from interp.analyses import label

    found = {}
    for run in store.runs():
        model = Path(str(run.config.get("model", ""))).name
        finished = str(run.manifest["finished"])[5:16].replace("T", " ")
        for name in sets_of(run):
            about = read_json(run.path / name / SET_FILES[0])
            own = "" if name == "directions" else name.removeprefix("directions/")
            parts = [run.study, own, label(run.study, run.config), str(about.get("site", ""))]
            # the key last: streamlit tells options apart by their labels
            parts = [*parts, model, finished, run.path.name[:6]]
            found[set_text(run, name)] = " · ".join(dict.fromkeys(filter(None, parts)))
    return found


def stored_saes(store: Store) -> list[str]:
    """The SAEs in the store's runs and those that ship, by the text that opens each."""
    runs = [run.path for run in store.runs() if any(Path(f).name in SAE_FILES for f in run.files)]
    places = [str(found.place) for root in (*runs, FOLDER) for found in find(root)]
    return [sae_text(place, store) for place in places]


def choose_sae(parameter: str) -> str:
    """A stored SAE or a shipped one, by the text that opens it; one may be typed in.

    Args:
        parameter: of the URL.
    """
    known = stored_saes(Store())
    source = st.selectbox(
        "SAE",
        known,
        key=bound(parameter, next(iter(known), "")),
        accept_new_options=True,
        format_func=placed,
        help="Of a stored run, or a shipped one; a folder or release:sae_id can be typed.",
    )
    if not source:
        raise UserError("there is no SAE yet: train one with `interp saes train`, or type one")
    return str(source)


def selected(rows: pd.DataFrame, key: str) -> int | None:
    """A table of directions, of which one row can be selected: its number, the first row's until
    another is; None of no rows."""
    event = shown_table(rows, key, "directions", on_select="rerun", selection_mode="single-row")
    picked = event["selection"]["rows"]
    return int(picked[0] if picked else 0) if len(rows) else None


def spelled(table: pd.DataFrame, name: str, site: str) -> dict[str, object]:
    """A row of what directions spell, side by side."""
    row = table.iloc[0]
    return {"name": name, "site": site, "top": list(row["top"]), "bottom": list(row["bottom"])}


def words(*command: str, model: str = "") -> list[str]:
    """An `interp directions` command, as it is typed for this store."""
    named = ["--model", model] if model else []
    return ["interp", "directions", *command, *named, *store_words(Store().root)]


def opening(source: str, model: str, name: str = "directions") -> str:
    """The notebook call that opens a set."""
    where = store_words(Store().root)
    store = f", Store(Path({where[1]!r}))" if where else ""
    imports = "from pathlib import Path\nfrom interp import Store\n" if where else ""
    return (
        f"{imports}from interp import open_directions\n"
        f"{name} = open_directions({source!r}, {model!r}{store})\n"
    )
