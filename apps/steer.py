"""The steering page: the model runs while a slider holds a neuron, or adds a direction, or by an
SAE's latents."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd
import streamlit as st

from interp.apps import act
from interp.apps.common import charts, errors_in_place, offer, opened, plain
from interp.apps.directions import choose_directions
from interp.directions import figures
from interp.directions.inspect import next_logprobs
from interp.directions.sources import open_directions
from interp.errors import UserError
from interp.model.catalog import DEFAULT_MODEL, resolve
from interp.model.edits import Edit, clamp
from interp.model.neuron import clamp_site, parse_neuron
from interp.model.subject import Subject
from interp.model.vocabulary import check_chat_template
from interp.model.weights import open_weights
from interp.runs.command import store_words
from interp.runs.store import Store

TOKENS = 24
"""Length of the texts."""


class Wish(NamedTuple):
    """What to do to the model, as plain values: the key under which an answer is remembered."""

    model: str
    prompt: str
    chat: bool
    neuron: str
    """If not empty, it is held at `value`; else `value` times direction `row` of `source` is
    added."""
    source: str
    row: int
    value: float


@st.cache_data(show_spinner="running …", max_entries=512)
def answer(wish: Wish) -> tuple[pd.DataFrame, str, str, float]:
    """The most likely next tokens before and after, both texts, the difference from
    transformers."""
    if not wish.prompt.strip():
        raise UserError("the prompt is empty: type some text")
    if wish.chat:
        check_chat_template(resolve(wish.model), wish.model, "the prompt without it")
    subject, lock = opened(wish.model)
    message = [{"role": "user", "content": wish.prompt}]
    batch = subject.chat(message) if wish.chat else subject.tokens(wish.prompt)
    with lock:
        before, plain_text = next_logprobs(subject, batch), _text(subject, batch)
        with subject.edited(_edit(wish, subject)):
            after, text = next_logprobs(subject, batch), _text(subject, batch)
    best = (before.exp() + after.exp()).topk(12).indices
    best = best[after[best].argsort(descending=True)]
    rows = {"token": [subject.text(i[None]) for i in best]}
    rows |= {"before": before[best].exp().tolist(), "after": after[best].exp().tolist()}
    return pd.DataFrame(rows), plain_text, text, subject.parity


def _text(subject: Subject, batch: Any) -> str:
    return subject.text(subject.generate(batch, TOKENS)[0])


def _edit(wish: Wish, subject: Subject) -> Edit:
    if wish.neuron:
        neuron = parse_neuron(wish.neuron)
        return clamp(clamp_site(neuron), neuron.neuron, wish.value)
    return open_directions(wish.source, wish.model).steer(wish.row, wish.value)


@errors_in_place()
def page() -> None:
    st.title("Steer")
    model = st.sidebar.text_input("Model", DEFAULT_MODEL)
    left, right = st.columns([4, 1], vertical_alignment="bottom")
    prompt = left.text_input("Prompt", "What is your favourite animal?")
    chat = right.toggle("Chat template", True)
    kinds = ["Hold a neuron", "Add a direction", "Act by a latent"]
    kind = st.segmented_control("What to do", kinds, default=kinds[0], format_func=plain)
    if kind == kinds[2]:
        act.section(prompt, chat)
        return
    wish = _wish(model, prompt, chat, kind == kinds[1])
    if not st.toggle("Run the model", key="run", help="Loads it: 540 MB for SmolLM2."):
        st.info("Nothing is loaded yet: the model loads when it is to run.")
        return
    _result(wish)


def _wish(model: str, prompt: str, chat: bool, adding: bool) -> Wish:
    if not adding:
        about = "layer.kind.index; held at all positions"
        neuron = st.text_input("Neuron", "29.down.808", help=plain(about))
        value = st.slider("Hold it at", -60.0, 60.0, 40.0, 1.0)
        return Wish(model, prompt, chat, str(parse_neuron(neuron)), "", 0, value)
    source, directions = choose_directions("Directions", model=model)
    own, labels = directions.provenance, directions.names
    if own.fingerprint and own.fingerprint != open_weights(model).fingerprint():
        st.warning(plain(f"These directions are of {own.model}, not of {model}."))
    row = st.selectbox("Direction", range(len(labels)), format_func=lambda i: labels[i])
    value = st.slider("Multiples of the vector to add", -100.0, 100.0, 40.0, 1.0)
    return Wish(model, prompt, chat, "", source, int(row), value)


def _result(wish: Wish) -> None:
    rows, before, after, parity = answer(wish)
    texts = {"As it is": before, f"At {wish.value:g}": after}
    for column, (title, text) in zip(st.columns(2), texts.items(), strict=True):
        column.subheader(plain(title))
        column.text(text)
    charts("next", figures.next_tokens(rows))
    st.caption(plain(f"Logits within {parity:.1e} of transformers'; the texts are greedy."))
    offer(rows, "next tokens", _command(wish), _call(wish))


def _command(wish: Wish) -> list[str]:
    how = ["--prompt", wish.prompt, "--model", wish.model, *([] if wish.chat else ["--no-chat"])]
    if wish.neuron:
        held = ["--neuron", wish.neuron, "--value", f"{wish.value:g}"]
        return ["interp", "neurons", "clamp", *held, *how, *store_words(Store().root)]
    added = [wish.source, "--row", str(wish.row), "--scale", f"{wish.value:g}"]
    return ["interp", "directions", "steer", *added, *how]


def _call(wish: Wish) -> str:
    asked = f"subject.chat([{{'role': 'user', 'content': {wish.prompt!r}}}])"
    if wish.neuron:
        edit = (
            "from interp.model.neuron import clamp_site, parse_neuron\n"
            f"neuron = parse_neuron({wish.neuron!r})\n"
            f"edit = edits.clamp(clamp_site(neuron), neuron.neuron, {wish.value:g})\n"
        )
    else:
        edit = (
            "from interp.directions import open_directions\n"
            f"directions = open_directions({wish.source!r}, {wish.model!r})\n"
            f"edit = directions.steer({wish.row}, {wish.value:g})\n"
        )
    return (
        "from interp.model import edits\n"
        "from interp.model.subject import open_subject\n"
        f"subject = open_subject({wish.model!r})\n"
        f"batch = {asked if wish.chat else f'subject.tokens({wish.prompt!r})'}\n{edit}"
        f"with subject.edited(edit):\n    new = subject.generate(batch, {TOKENS})\n"
        "subject.text(new[0])"
    )
