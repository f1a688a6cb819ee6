"""The steering page: what a model says as it is and under several edits at once, side by side,
token by token."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import streamlit as st

from interp.apps import edit_list, pool
from interp.apps.address import bound
from interp.apps.answers import known, remember
from interp.apps.common import consent, errors_in_place
from interp.apps.offering import offer
from interp.apps.picking import chosen_model
from interp.apps.shown import charts
from interp.apps.words import plain
from interp.directions import figures
from interp.directions.acts import Act, edits_of, feeding
from interp.directions.steering import (
    EDITED,
    PLAIN,
    answer_text,
    divergence,
    next_tokens,
    streamed,
    turn,
)
from interp.model.batch import Sampling
from interp.model.catalog import resolve
from interp.model.vocabulary import check_chat_template, visible
from interp.plain_numbers import exact

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator
    from torch import Tensor

    from interp.model.edits import Edit
    from interp.model.subject import Subject

USUAL = "What is your favourite animal?"
MOST_TOKENS = 400
PAUSE = 0.1
"""Seconds between two states of a text that is written: a browser that draws each token of a fast
model has no time for the clicks that would stop it."""
SIDES = {PLAIN: "As it is", EDITED: "Edited"}


class Asked(NamedTuple):
    """What is asked of the model, as plain values."""

    model: str
    prompts: tuple[str, ...]
    chat: bool
    tokens: int
    how: Sampling


class Answer(NamedTuple):
    """What one side says to one message."""

    text: str
    whole: bool
    """Whether it ended by itself."""
    first: Tensor
    """Log probabilities [d_vocab] of its first token, in float32."""
    rows: pd.DataFrame
    """The likeliest first tokens, as it is and on this side (`next_tokens`)."""
    kl: float
    """From the first token's distribution as it is to this side's, in nats."""
    parity: float
    """Of the model's logits from transformers'."""


@errors_in_place()
def page() -> None:
    st.title("Steer")
    st.caption(
        "What the model says as it is, and what it says while some of its activations are changed: "
        "both begin with the same text and draw by the same seed."
    )
    asked = _asked(chosen_model())
    running = st.toggle(
        "Run the model", key=bound("live", False), help="Loads it once for all windows."
    )
    acts: list[Act] = []
    left_out = ""
    with errors_in_place():
        acts, left_out = edit_list.section(asked.model, running)
    if not running:
        st.info("Nothing is loaded yet: the model loads when it is to run.")
        return
    consent(asked.model)
    if asked.chat:
        check_chat_template(resolve(asked.model), asked.model, "the prompt without it")
    if left_out:
        st.warning(plain(left_out))
    with errors_in_place():
        _conversation(asked, acts)
    if asked.chat:
        _going_on()


def _asked(model: str) -> Asked:
    left, right = st.columns([4, 1], vertical_alignment="bottom")
    prompt = left.text_input("Prompt", key=bound("text", USUAL))
    chat = right.toggle("Chat template", key=bound("chat", True))
    with st.popover("Length and sampling", key="sampling", icon=":material/tune:"):
        tokens = st.number_input("Tokens", 1, MOST_TOKENS, key=bound("tokens", 24))
        temperature = st.number_input(
            "Temperature", 0.0, 5.0, step=0.1, key=bound("temperature", 0.0),
            help="0 takes the likeliest token each time.",
        )  # fmt: skip
        top_p = st.number_input(
            "Top-p", 0.01, 1.0, step=0.05, key=bound("top_p", 1.0),
            help="Draws from the fewest tokens that together have this probability.",
        )  # fmt: skip
        seed = st.number_input(
            "Seed", 0, 2**31 - 1, key=bound("seed", 0), help="The same for both sides."
        )
    then = st.session_state[bound("then", "")].split("\n") if chat else []
    prompts = (prompt, *(text for text in then if text))
    how = Sampling(float(temperature), float(top_p), int(seed))
    return Asked(model, prompts, bool(chat), int(tokens), how)


def _going_on() -> None:
    """Another message to both sides; or the conversation from its start."""
    place = bound("then", "")
    here = st.container()  # outside of one it stands below the page, which then opens at its end
    if text := here.chat_input("Say more, to both", key="more"):
        words = " ".join(text.split())
        st.session_state[place] = "\n".join(filter(None, [st.session_state[place], words]))
        st.rerun()
    if st.session_state[place]:
        st.button("Begin again", on_click=lambda: st.session_state.update({place: ""}))


def _conversation(asked: Asked, acts: Sequence[Act]) -> None:
    """Every message with both answers, those that are not remembered as they come; and what the
    edits do to the first token."""
    sides = [PLAIN, EDITED] if acts else [PLAIN]
    own = (pool.content(asked.model, feeding(acts)), *asked)
    prints = tuple((str(act), edit_list.print_of(act, asked.model)) for act in acts)
    said: dict[str, list[Answer]] = {side: [] for side in sides}
    with ExitStack() as stack:
        model = None
        for number in range(len(asked.prompts)):
            places = _places(asked, number, sides)
            bars = _Bars(bool(acts)) if number == 0 else None
            keys = {PLAIN: ("said", number, *own), EDITED: ("said", number, *own, prints)}
            found = {side: known(keys[side]) for side in sides}
            missing = [side for side in sides if found[side] is None]
            if missing:
                model = model or stack.enter_context(_opened(asked, acts))
                made = _streamed(*model, asked, said, missing, places, found, bars)
                for side in missing:
                    remember(keys[side], made[side])
                found |= made
            for side in sides:
                answer = found[side]
                assert isinstance(answer, Answer)
                places[side].text(answer.text)
                said[side].append(answer)
            if bars:
                bars.show(said[sides[-1]][0].rows, said[sides[-1]][0].kl)
    _told(asked, said)
    if acts:
        offer(said[EDITED][0].rows, "next tokens", _command(asked, acts), _call(asked, acts))


@contextmanager
def _opened(
    asked: Asked, acts: Sequence[Act]
) -> Iterator[tuple[Subject, dict[str, Sequence[Edit]]]]:
    """The model for this window alone, and the edits of each side."""
    with (
        pool.borrowed(asked.model, feeding(acts)) as subject,
        pool.saes({act.sae for act in acts if act.sae}) as saes,
    ):
        made = edits_of(acts, subject, asked.model, saes.__getitem__)
        yield subject, {PLAIN: (), EDITED: made}


def _places(asked: Asked, number: int, sides: Sequence[str]) -> dict[str, DeltaGenerator]:
    """Where the answers to a message go; above them in a conversation the message."""
    if len(asked.prompts) > 1:
        with st.chat_message("user"):
            st.text(asked.prompts[number])
    places = {}
    for column, side in zip(st.columns(2), SIDES, strict=True):
        if number == 0:
            column.subheader(plain(SIDES[side]))
        if side in sides:
            places[side] = column.empty()
        else:
            column.caption("There is no edit that is on.")
    return places


def _streamed(
    subject: Subject,
    edits: dict[str, Sequence[Edit]],
    asked: Asked,
    said: dict[str, list[Answer]],
    missing: Sequence[str],
    places: dict[str, DeltaGenerator],
    found: dict[str, Any],
    bars: _Bars | None,
) -> dict[str, Answer]:
    """The answers that are not remembered, shown as they come."""
    number = len(said[PLAIN])
    batches = {}
    for side in missing:
        before = [answer.text for answer in said[side]]
        batches[side] = turn(subject, asked.prompts[: number + 1], before, asked.chat)
    ids: dict[str, list[int]] = {side: [] for side in missing}
    first = {PLAIN: found[PLAIN].first} if found[PLAIN] else {}
    rows: dict[str, tuple[pd.DataFrame, float]] = {}
    shown = dict.fromkeys(missing, -math.inf)
    for side, step in streamed(subject, batches, edits, asked.tokens, asked.how):
        if not ids[side]:
            first[side] = step.logits[0].double().log_softmax(-1).float()
            both = first[PLAIN].double(), first[side].double()
            rows[side] = next_tokens(subject, *both), divergence(*both)
            if bars and side == missing[-1]:
                bars.show(*rows[side])
        ids[side].append(int(step.ids[0]))
        if (now := time.monotonic()) - shown[side] >= PAUSE:
            shown[side] = now
            places[side].text(f"{answer_text(subject, ids[side])} ▌")
    return {
        side: Answer(
            answer_text(subject, new), new[-1] in subject.ends, first[side], *rows[side],
            subject.parity,
        )
        for side, new in ids.items()
    }  # fmt: skip


class _Bars:
    """The first token's likeliest choices, drawn as soon as they are known."""

    def __init__(self, edited: bool) -> None:
        self._place, self._shown, self._edited = st.container(), False, edited

    def show(self, rows: pd.DataFrame, kl: float) -> None:
        if self._shown:
            return
        self._shown = True
        before, after = (rows.iloc[int(rows[side].argmax())] for side in ("before", "after"))
        found = f"“{visible(before['token'])}” with {before['before']:.2g}"
        with self._place:
            if not self._edited:
                charts(
                    "next",
                    figures.next_tokens(rows.drop(columns="after")),
                    shows="The first token of the answer.",
                    found=f"The likeliest is {found}.",
                )
                return
            charts(
                "next",
                figures.next_tokens(rows),
                shows="The first token of the answer, as it is and edited. Bars of the same length "
                "would mean that the edits do nothing.",
                found=f"The edits move its distribution by {kl:.2g} nats (KL). The likeliest is "
                f"{found} as it is, and “{visible(after['token'])}” with {after['after']:.2g} "
                "edited.",
            )


def _told(asked: Asked, said: dict[str, list[Answer]]) -> None:
    how = asked.how
    top_p = exact(how.top_p)
    drawn = f"drawn at temperature {exact(how.temperature)}, top-p {top_p}, seed {how.seed}"
    chosen = drawn if how.temperature else "the likeliest token each time"
    cut = any(not answer.whole for answers in said.values() for answer in answers)
    st.caption(
        plain(
            f"Logits within {said[PLAIN][0].parity:.1e} of transformers'. The texts: {chosen}"
            + (f"; some are cut at {asked.tokens} tokens." if cut else ".")
        )
    )


def _command(asked: Asked, acts: Sequence[Act]) -> list[str]:
    edits, how = [str(act) for act in acts], asked.how
    words = ["interp", "steer", *edits, "--prompt", *asked.prompts, "--model", asked.model]
    words += [] if asked.chat else ["--no-chat"]
    words += ["--tokens", str(asked.tokens)]
    if how.temperature:
        words += ["--temperature", exact(how.temperature), "--top-p", exact(how.top_p)]
        words += ["--seed", str(how.seed)]
    return words


def _call(asked: Asked, acts: Sequence[Act]) -> str:
    feed, how = feeding(acts), asked.how
    given = "" if feed == "auto" else f", bos={feed!r}"
    sampling = f", how=Sampling({how.temperature!r}, {how.top_p!r}, {how.seed})"
    imports = "from interp.model.batch import Sampling\n" if how.temperature else ""
    return (
        "from interp.directions.acts import edits_of, parse_act\n"
        f"from interp.directions.steering import compared\n{imports}"
        "from interp.model.subject import open_subject\n"
        f"subject = open_subject({asked.model!r}{given})\n"
        f"acts = [parse_act(text) for text in {[str(act) for act in acts]!r}]\n"
        f"edits = edits_of(acts, subject, {asked.model!r})\n"
        f"rows = compared(subject, edits, {list(asked.prompts)!r}, {asked.chat}, {asked.tokens}"
        f"{sampling if how.temperature else ''})\nrows"
    )
