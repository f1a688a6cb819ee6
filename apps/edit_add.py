"""A new edit for the list of the steering page: chosen by what it does, or typed."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from interp.apps.common import consent
from interp.apps.directions import choose_set
from interp.apps.edit_texts import joined, parsed, split
from interp.apps.sets import choose_sae, opened_set
from interp.apps.words import numbered
from interp.directions.acts import Act
from interp.errors import UserError
from interp.model.neuron import check_neuron, parse_neuron
from interp.model.weights import open_weights

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


def adding(model: str, place: str) -> None:
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
