"""The page of one direction: what it is, its tokens, and the way to what can be done with it."""

from __future__ import annotations

import streamlit as st

from interp.apps import direction_text, direction_weights
from interp.apps.address import bound
from interp.apps.carry import VIEWS, links
from interp.apps.common import consent, errors_in_place, link
from interp.apps.keeping import keep_form
from interp.apps.offering import offer
from interp.apps.picking import chosen_model
from interp.apps.sets import (
    LENSES,
    OpenSet,
    cautions,
    decoded,
    head,
    opened_set,
    opening,
    recent,
    visited,
    words,
)
from interp.apps.shown import charts
from interp.apps.words import numbered, plain
from interp.directions import figures
from interp.errors import UserError, readable
from interp.lens.files import open_lens
from interp.lens.told import told
from interp.model.weights import open_weights

EXAMPLES = ("29.down.808", "29.gate.808", "lens:final:29: dog")
"""Directions to begin with, of the usual model."""


@errors_in_place()
def page() -> None:
    st.title("One direction")
    source = st.text_input(
        "Direction",
        key=bound("direction", ""),
        placeholder="29.down.808",
        help="A neuron (29.down.808), a latent (sae:SOURCE:12), a token at a layer "
        "(lens:jacobian:12: are), a stored set (run:KEY/SET:3), what a collection keeps "
        "(kept:NAME:ENTRY), or a folder.",
    ).strip("\n")
    if not source.strip():
        _begin()
        return
    try:
        opened = _one(opened_set(source))
    except UserError as error:
        st.error(plain(readable(str(error))))
        link("directions", "The sets in stored runs")
        return
    visited(opened.source)
    st.subheader(plain(opened.directions.names[0]))
    head(opened)
    place = bound("view", "tokens", VIEWS)
    with st.container(horizontal=True, vertical_alignment="center"):
        # another view is another menu: it closes when its link is followed
        shut = f"carry on {opened.source} {st.session_state[place]}"
        with st.popover("Carry on", icon=":material/explore:", key=shut):
            links(opened.source, opened.model)
        st.code(opened.source, language=None, width="content")
    view = st.segmented_control(
        "View",
        [plain(view) for view in VIEWS],
        key=place,
        format_func=lambda view: plain(VIEWS.get(view, view)),
        label_visibility="collapsed",
        required=True,
    )
    if view != "keep":
        consent(opened.model)
    with errors_in_place():
        _VIEWS[view if view in _VIEWS else "tokens"](opened)


def _begin() -> None:
    """What to do on the page without a direction."""
    st.info(
        "Anything that an analysis finds is a vector at one site of a model. Name one above, or "
        "begin with one of these."
    )
    model = chosen_model()
    for text in [*recent(), *EXAMPLES]:
        link("direction", text, direction=text, model=model)
    link("directions", "The sets in stored runs")
    link("kept", "Your collections")


def _one(opened: OpenSet) -> OpenSet:
    """One direction of a set, and its own text; a choice where there are several."""
    if opened.total > 1:
        names = opened.directions.names
        st.caption(plain(f"{opened.source} holds {opened.total:,} directions: choose one."))
        row = st.selectbox(
            "Which",
            range(len(names)),
            key=bound("row", 0, range(len(names))),
            format_func=numbered(names),
        )
        return opened_set(opened.texts[row if row in range(len(names)) else 0])
    return opened._replace(source=opened.texts[0])


def _tokens(opened: OpenSet) -> None:
    """What it spells through the LM head."""
    lens = st.selectbox("Lens", LENSES, key=bound("lens", "raw", LENSES))
    for caution in cautions(opened.directions):
        st.warning(plain(caution))
    rows = decoded(opened, opened.model, 15, lens)
    row = rows.iloc[0]
    charts(
        "tokens",
        figures.token_bars(row),
        shows="The tokens that a step along this direction raises most, and those it lowers most, "
        "on one scale. A surprise would be one word family on top.",
        found=f"The first token stands {row['top_z']:.1f} standard deviations above the mean "
        f"logit, the last {row['bottom_z']:.1f} below."
        if row["top_z"] == row["top_z"]
        else "It has no length, and spells nothing.",
    )
    st.caption(plain(told(open_lens(lens, open_weights(opened.model)).about)))
    call = (
        opening(opened.source, opened.model)
        + "from interp import open_weights\n"
        + f"directions.decode(open_weights({opened.model!r}), k=15, lens={lens!r})"
    )
    how = ["--limit", "15", *(["--lens", lens] if lens != "raw" else [])]
    command = words("decode", opened.source, *how, model=opened.model)
    offer(rows, "tokens of a direction", command, call, of="directions")


def _keep(opened: OpenSet) -> None:
    """Keep it in a collection."""
    keep_form(opened.source, opened.model, opened.directions.names[0])


_VIEWS = {
    "tokens": _tokens,
    "examples": direction_text.examples,
    "text": direction_text.on_a_text,
    "nearest": direction_weights.nearest,
    "split": direction_text.split,
    "compare": direction_weights.compare,
    "keep": _keep,
}
