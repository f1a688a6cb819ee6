"""The context knob page: steer your own question, and read what a run measured."""

from __future__ import annotations

import streamlit as st

from interp.apps.address import bound
from interp.apps.common import errors_in_place, in_tabs
from interp.apps.knob_measured import measured
from interp.apps.knob_steer import steer
from interp.apps.picking import pick_run
from interp.apps.words import plain
from interp.runs.shipped import shipped
from interp.runs.store import Store

STUDIES = {"a run of all stages": "knob.run", "a run that learned the knob": "knob.learn"}


@errors_in_place()
def page() -> None:
    st.title("The context knob")
    st.caption(
        "One direction at one layer decides whether the model answers by the text before the "
        "question or by what it knows. Held at one value it believes the text, at another it "
        "does not."
    )
    own = {what: study for what, study in STUDIES.items() if Store().looked_through(study)[0]}
    kinds = own | {what: study for what, study in STUDIES.items() if shipped(study)}
    choices = list(kinds)
    place = bound("from", choices[0], choices)
    chosen = st.sidebar.radio("Measured by", choices, key=place, format_func=plain)
    run = pick_run(kinds.get(str(chosen), kinds[choices[0]]))
    in_tabs({"Steer": steer, "Measured": measured}, run)
