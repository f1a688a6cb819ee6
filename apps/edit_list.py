"""The list of edits on the steering page: each with its slider, switch and way out."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import pandas as pd
import streamlit as st

from interp.apps import pool
from interp.apps.address import bound
from interp.apps.answers import remembered
from interp.apps.common import consent_to_sae, errors_in_place
from interp.apps.edit_add import LABELS, adding
from interp.apps.edit_texts import OFF, Row, from_link, joined, parsed, split
from interp.apps.sets import opened_set
from interp.apps.words import plain
from interp.directions.acts import VERBS, Act, feeding
from interp.directions.reach import Reach, reach
from interp.directions.sets import sae_asks_the_hub, sae_place
from interp.errors import UserError
from interp.latents import search
from interp.model.vocabulary import visible
from interp.model.weights import open_weights
from interp.plain_numbers import exact
from interp.runs.store import Run, Store


def section(model: str, running: bool) -> tuple[list[Act], str]:
    """The list, and a way to add to it; returns the edits that are on and have a value, and a
    sentence on those that are wrong, "" of none."""
    params = st.query_params
    usual = from_link(params.get("direction", ""), params.get("act", ""))
    several = params.get_all("edits")  # the list as the page writes it, or an edit a parameter
    place = bound("edits", usual, read=lambda _: ";".join(several), instead=("direction", "act"))
    texts = split(st.session_state[place])
    rows, agreed = [], not running or _agreed(texts)
    for number, text in enumerate(texts):
        with st.container(border=True), errors_in_place():
            rows.append(_row(Spot(place, texts, number), text, model, running and agreed))
    acts, sound = [row.act for row in rows if row.on and not row.unset], len(rows)
    if not agreed:  # the others run meanwhile
        acts = [act for act in acts if not sae_asks_the_hub(act.sae)]
    if not texts:
        st.info("No edit yet: add one, and both texts differ.")
    with st.expander("Add an edit", expanded=not texts, key="adding"), errors_in_place():
        adding(model, place)
    left = len(texts) - sound
    verb = "is" if left == 1 else "are"
    return acts, f"{left} of {len(texts)} edits {verb} left out: see above." if left else ""


def _agreed(texts: list[str]) -> bool:
    """Whether the SAEs that the list names may be fetched, as far as they must be."""
    named = []
    for text in texts:
        with suppress(UserError):  # which its own row says
            named.append(parsed(text).act.sae)
    with errors_in_place():
        for sae in dict.fromkeys(named):
            consent_to_sae(sae)
        return True
    return False


class Spot(NamedTuple):
    """Where an edit stands."""

    place: str
    """The key of the list."""
    texts: list[str]
    number: int

    @property
    def key(self) -> str:
        """Of its widgets: by what it acts on, so that it stays when another is taken off. A link
        may have two on the same thing."""
        names = [text.removeprefix(OFF).partition("=")[0] for text in self.texts]
        own = names[self.number]
        return f"{own} {names[: self.number].count(own)}"


def _row(spot: Spot, text: str, model: str, running: bool) -> Row:
    """One edit: switch, slider and remove. One that is wrong can only be removed."""
    left, right = st.columns([7, 1], vertical_alignment="center")
    right.button(
        "Remove",
        key=f"remove {spot.key}",
        icon=":material/close:",
        type="tertiary",
        on_click=_changed,
        args=(spot, None),
        help="Take this edit off the list.",
    )
    with left:
        row = parsed(text)
        key = f"on {spot.key}"
        _set(key, row.on)
        st.toggle(
            plain(f"{LABELS[row.act.verb]}: {row.act.target}"),
            key=key,
            on_change=lambda: _changed(spot, replace(row, on=st.session_state[key])),
        )
        if row.act.sae:
            _about_latent(row.act)
        elif row.act.verb != "hold":
            _note_model(row.act.target, model)
        if VERBS[row.act.verb]:
            return _slider(row, spot, model, running)
    return row


def _slider(row: Row, spot: Spot, model: str, running: bool) -> Row:
    """Its value, over a range that goes from nothing to too much."""
    if not running:
        now = "a value that does something" if row.unset else exact(row.act.value)
        st.caption(plain(f"At {now}; its slider comes with the model."))
        return row
    range_ = _range(row.act, model)
    if row.unset:
        row = replace(row, act=replace(row.act, value=range_.start))
        _changed(spot, row)
    widest, key = st.session_state.setdefault("steer: widest", {}), f"value {spot.key}"
    before = widest.get(key, 0.0)
    most = widest[key] = max(before, range_.most, abs(row.act.value))
    if most != before:  # with other ends it is another slider, which knows nothing of this one
        st.session_state[key] = float(row.act.value)
    _set(key, float(row.act.value))
    st.slider(
        plain(range_.said),
        -most,
        most,
        step=_step(most),
        key=key,
        format="%g",
        on_change=lambda: _changed(
            spot, replace(row, act=replace(row.act, value=st.session_state[key]))
        ),
    )
    return row


def _set(key: str, value: bool | float) -> None:
    """Give a widget its value, where it has another: what is set goes to the browser, and would
    undo what is done there meanwhile."""
    if st.session_state.get(key) != value:
        st.session_state[key] = value


def _step(most: float) -> float:
    """A hundredth of the range, or a little less: a power of ten."""
    return float(10.0 ** math.floor(math.log10(most / 50)))


def _changed(spot: Spot, row: Row | None) -> None:
    """Put an edit in the place of the one that stands here, or take it off."""
    texts = split(st.session_state[spot.place])
    if spot.number < len(texts):
        texts[spot.number : spot.number + 1] = [] if row is None else [row.text]
    st.session_state[spot.place] = joined(texts)


def _range(act: Act, model: str) -> Reach:
    """Of the values of an edit, from a sample of text."""

    def asked() -> Reach:
        survey = _survey_of(act)
        largest = math.nan if survey is None else float(_described(survey, act.latent)["max"])
        with (
            pool.borrowed(model, feeding([act])) as subject,
            pool.saes({act.sae} - {""}) as opened,
            st.spinner("reading a sample of text …"),
        ):
            return reach(act, subject, model, opened.get(act.sae), largest)

    key = ("reach", pool.content(model), f"{act.verb} {act.target}", print_of(act, model))
    return remembered(key, asked)


def print_of(act: Act, model: str) -> str:
    """What an edit acts by, as a hash: the same text may mean another direction tomorrow."""
    if act.sae:
        return _sae_print(act)
    return "" if act.verb == "hold" else opened_set(act.target, model).print


def _sae_print(act: Act) -> str:
    from interp.saes.open import saes_fingerprint

    return saes_fingerprint(sae_place(act.sae, Store()))


def _note_model(source: str, model: str) -> None:
    """Say that a direction is of other weights."""
    made = opened_set(source, model).directions.provenance
    if made.fingerprint and made.fingerprint != open_weights(model).fingerprint():
        st.warning(plain(f"This direction is of {made.model or 'other weights'}, not of {model}."))


def _about_latent(act: Act) -> None:
    """What a survey says of the latent, if there is one."""
    if (survey := _survey_of(act)) is None:
        return
    row = _described(survey, act.latent)
    raised = " ".join(visible(token) for token in row["top"][:8])
    st.caption(
        plain(f"It raises {raised}. Its largest activation in the survey: {row['max']:.3g}.")
    )


def _survey_of(act: Act) -> Run | None:
    """The newest survey of an SAE that has the latent."""
    if not act.sae or act.latent < 0:
        return None
    return search.survey_of(_sae_print(act), act.latent, Store())


def _described(survey: Run, latent: int) -> pd.Series:
    def asked() -> pd.Series:
        return search.described(survey, pd.DataFrame({"latent": [latent]})).iloc[0]

    return remembered(("described", str(survey.manifest["seal"]), latent), asked)
