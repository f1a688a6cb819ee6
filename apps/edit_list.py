"""The list of edits on the steering page: each with its slider, switch and way out.

The list is a text in the page's address, `hold 29.down.808=40;off add kept:mine:first=8`; an edit
without a value gets one that does something as soon as the model runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

import pandas as pd
import streamlit as st

from interp.apps import pool
from interp.apps.address import bound
from interp.apps.answers import remembered
from interp.apps.common import consent, consent_to_sae, errors_in_place
from interp.apps.directions import choose_set
from interp.apps.sets import choose_sae, opened_set, warn_of_weights
from interp.apps.words import numbered, plain
from interp.directions.reach import Reach, reach
from interp.directions.sets import sae_asks_the_hub, sae_place
from interp.directions.steering import VERBS, Act, feeding, parse_act
from interp.errors import UserError
from interp.latents import search
from interp.model.neuron import check_neuron, parse_neuron
from interp.model.vocabulary import visible
from interp.model.weights import open_weights
from interp.plain_numbers import exact
from interp.runs.store import Run, Store

LABELS = {
    "hold": "Hold a neuron",
    "add": "Add a direction",
    "project-out": "Take a direction out",
    "steer-latent": "Add what a latent writes",
    "clamp-latent": "Hold a latent at a value",
    "ablate-latent": "Take a latent away",
    "splice": "Put an SAE's reconstruction in place of the stream",
    "splice+error": "The same with the SAE's error added back",
}
OFF = "off "
"""Before an edit that is switched off."""


@dataclass(frozen=True)
class Row:
    """An edit of the list."""

    act: Act
    on: bool = True

    @property
    def unset(self) -> bool:
        """Whether its value is still to be chosen."""
        return VERBS[self.act.verb] and math.isnan(self.act.value)

    @property
    def name(self) -> str:
        """Which of the list it is: an act on one thing stands there once."""
        return f"{self.act.verb} {self.act.target}"

    @property
    def text(self) -> str:
        return OFF * (not self.on) + (self.name if self.unset else str(self.act))


def parsed(text: str) -> Row:
    """An edit as the address has it, perhaps off, perhaps without a value.

    Raises:
        UserError: as `parse_act`.
    """
    own = text.strip()
    on = not own.startswith(OFF)
    own = own.removeprefix(OFF)
    try:
        return Row(parse_act(own), on)
    except UserError:
        verb, _, target = own.partition(" ")
        if not VERBS.get(verb) or "=" in target:
            raise
        return Row(replace(parse_act(f"{own}=0"), value=math.nan), on)


def joined(texts: list[str]) -> str:
    """The list as one text."""
    return ";".join(quote(text, safe=" /:=.,+-~'()[]") for text in texts)


def split(text: str) -> list[str]:
    return [unquote(part) for part in text.split(";") if part.strip()]


def from_link(source: str, act: str) -> str:
    """The list that a link to one direction begins with: a neuron is held, a latent steered."""
    if not source:
        return ""
    away = act == "ablate"
    try:
        parse_neuron(source)
        return joined([f"hold {source}=0" if away else f"hold {source}"])
    except UserError:
        latent = source.startswith("sae:") and source.rpartition(":")[2].isdecimal()
    if latent:
        return joined([f"{'ablate' if away else 'steer'}-latent {source}"])
    return joined([f"{'project-out' if away else 'add'} {source}"])


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
            rows.append(_row(number, text, model, running and agreed, place))
    acts, sound = [row.act for row in rows if row.on and not row.unset], len(rows)
    if not agreed:  # the others run meanwhile
        acts = [act for act in acts if not sae_asks_the_hub(act.sae)]
    if not texts:
        st.info("No edit yet: add one, and both texts differ.")
    with st.expander("Add an edit", expanded=not texts, key="adding"), errors_in_place():
        _adding(model, place)
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


def _row(number: int, text: str, model: str, running: bool, place: str) -> Row:
    """One edit: switch, slider and remove. One that is wrong can only be removed."""
    left, right = st.columns([7, 1], vertical_alignment="center")
    right.button(
        "Remove",
        key=f"remove {text}",
        icon=":material/close:",
        type="tertiary",
        on_click=_changed,
        args=(place, number, None),
        help="Take this edit off the list.",
    )
    with left:
        row = parsed(text)
        key = f"on {row.name}"
        _set(key, row.on)
        st.toggle(
            plain(f"{LABELS[row.act.verb]}: {row.act.target}"),
            key=key,
            on_change=lambda: _changed(place, number, replace(row, on=st.session_state[key])),
        )
        if row.act.sae:
            _about_latent(row.act)
        elif row.act.verb != "hold":
            warn_of_weights(opened_set(row.act.target, model).directions, model)
        if VERBS[row.act.verb]:
            return _slider(row, number, model, running, place)
    return row


def _slider(row: Row, number: int, model: str, running: bool, place: str) -> Row:
    """Its value, over a range that goes from nothing to too much."""
    if not running:
        now = "a value that does something" if row.unset else exact(row.act.value)
        st.caption(plain(f"At {now}; its slider comes with the model."))
        return row
    range_ = _range(row.act, model)
    if row.unset:
        row = replace(row, act=replace(row.act, value=range_.start))
        _changed(place, number, row)
    widest, key = st.session_state.setdefault("steer: widest", {}), f"value {row.name}"
    before = widest.get(row.name, 0.0)
    most = widest[row.name] = max(before, range_.most, abs(row.act.value))
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
            place, number, replace(row, act=replace(row.act, value=st.session_state[key]))
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


def _changed(place: str, number: int, row: Row | None) -> None:
    """Put an edit in the place of the one of this number, or take it off."""
    texts = split(st.session_state[place])
    if number < len(texts):
        texts[number : number + 1] = [] if row is None else [row.text]
    st.session_state[place] = joined(texts)


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
    own = _sae_print(act)
    for run in Store().looked_through(search.STUDY)[0]:
        same = run.manifest["fingerprints"].get("saes") == own
        if same and act.latent < run.metrics["latents"]:
            return run
    return None


def _described(survey: Run, latent: int) -> pd.Series:
    def asked() -> pd.Series:
        return search.described(survey, pd.DataFrame({"latent": [latent]})).iloc[0]

    return remembered(("described", str(survey.manifest["seal"]), latent), asked)


def _adding(model: str, place: str) -> None:
    """What to add: by what it does, or as a text."""
    ways: dict[str, Callable[[str], str]] = {
        LABELS["hold"]: _neuron,
        LABELS["add"]: lambda m: f"add {_direction(m)}",
        LABELS["project-out"]: lambda m: f"project-out {_direction(m)}",
        "Act by an SAE's latent": _latent,
        "As a text": _typed,
    }
    way = st.selectbox("What to do", list(ways), key="way")
    if way not in ways:  # a browser can send any text
        raise UserError(f"'{way}' is none of the list: choose one")
    text = ways[way](model)
    if st.button("Add", key="add", icon=":material/add:", disabled=not text):
        row, texts = parsed(text), split(st.session_state[place])
        if row.name in map(_name, texts):
            raise UserError(f"'{row.name}' is on the list already: move its slider")
        _check(row.act, model)
        st.session_state[place] = joined([*texts, row.text])
        st.rerun()


def _name(text: str) -> str:
    """Which of the list an edit is; of one that is wrong, its text."""
    try:
        return parsed(text).name
    except UserError:
        return text


def _check(act: Act, model: str) -> None:
    """Refuse what the model does not have, where that is known without opening an SAE.

    Raises:
        UserError: a neuron or a direction that is not there.
    """
    if act.verb == "hold":
        consent(model)
        check_neuron(parse_neuron(act.target), open_weights(model))
    elif not act.sae:
        opened_set(act.target, model)


def _neuron(_: str) -> str:
    name = st.text_input(
        "Neuron", "29.down.808", key="new neuron", help="layer.kind.index; held at all positions"
    )
    return f"hold {parse_neuron(name)}"


def _direction(_: str) -> str:
    chosen = choose_set("Directions", "new ")
    names = chosen.directions.names
    row = st.selectbox("Direction", range(len(names)), format_func=numbered(names), key="new row")
    return chosen.texts[row]


def _latent(_: str) -> str:
    verbs = {LABELS[verb]: verb for verb in LABELS if "latent" in verb or "splice" in verb}
    verb = verbs.get(st.selectbox("Act", list(verbs), key="new act"), "steer-latent")
    place = choose_sae("sae")
    if verb.startswith("splice"):
        return f"{verb} sae:{place}"
    latent = st.number_input("Latent", 0, 10**8, 0, key="new latent")
    return f"{verb} sae:{place}:{int(latent)}"


def _typed(_: str) -> str:
    return st.text_input(
        "Edit",
        key="new text",
        placeholder="add lens:jacobian:12: dog=2",
        help="As the command takes it; without its value it opens at one that does something.",
    ).strip()
