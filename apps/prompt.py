"""The prompt page: a text token by token, what the model says after each, and which parts do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from interp.apps.address import bound
from interp.apps.columns import shown_table
from interp.apps.common import consent, errors_in_place, in_tabs, link, table
from interp.apps.offering import offer
from interp.apps.picking import chosen_model, pick_run
from interp.apps.prompt_ask import Live, Look, Stored
from interp.apps.prompt_more import circuit, directed, latents, lensed
from interp.apps.prompt_parts import compare, contributions, heads, neurons
from interp.apps.prompt_strip import strip
from interp.apps.shown import charts
from interp.apps.words import plain
from interp.microscope import figures
from interp.microscope.look import LookConfig
from interp.microscope.names import spelled
from interp.model.vocabulary import as_text, visible

FROM = ("A text", "A stored look")
TRY = ("The capital of France is", "The keys to the cabinet")
LESS = MEAN, NOTHING, TOKEN = ("the mean of all", "nothing", "a token")
"""What a logit is shown less of."""


@errors_in_place()
def page() -> None:
    st.title("A prompt under the microscope")
    st.caption(
        "One text, one pass of the model. What is shown of a token is what the model says after "
        "it: the logits at a position are of the next token."
    )
    shown = st.segmented_control(
        "Look at", FROM, format_func=plain, key=bound("of", FROM[0], FROM), required=True
    )
    if shown == FROM[1]:
        _stored()
    else:
        _live()


def _live() -> None:
    model = chosen_model()
    text = st.text_area(
        "Text",
        key=bound("text", ""),
        height=80,
        placeholder="The capital of France is",
        on_change=_typed,
        help="The model loads when there is a text: 540 MB for SmolLM2.",
    )
    if not text.strip():
        st.info("Nothing is loaded yet. Type a text, or try one of these:")
        for each in TRY:
            link("prompt", each, text=each, model=model)
        return
    consent(model)
    look = Live.of(model, text)
    tokens = look.tokens
    at = _position(tokens)
    look = _target(look.about(position=at), tokens, at)
    views: dict[str, Callable[..., None]] = {
        "Tokens": _tokens,
        "Contributions": contributions,
        "Neurons": neurons,
        "Heads": heads,
        "Lens": lensed,
        "A direction": directed,
        "Latents": latents,
        "Side by side": compare,
        "Circuit": circuit,
    }
    in_tabs(views, look)
    _keep(look)


def _typed() -> None:
    """Another text has other tokens: it is looked at from its end."""
    st.session_state[bound("position", None)] = None
    for name in ("target", "against"):
        st.session_state[bound(name, "")] = ""


def _position(tokens: pd.DataFrame) -> int:
    """The token that is clicked, or the last one."""
    last = len(tokens) - 1
    return strip(tokens, bound("position", last, range(last + 1)), last)


def _target(look: Live, tokens: pd.DataFrame, at: int) -> Live:
    """Which logit is explained."""
    left, middle, right = st.columns([2, 3, 2], vertical_alignment="bottom")
    row = tokens.iloc[at]
    following = [str(tokens["token"].iloc[at + 1])] if at + 1 < len(tokens) else []
    options = [*row["next"], *following]
    target = _token(left, "Explain the token", "target", options, "the likeliest")
    named = "against" in st.query_params
    less = middle.segmented_control(
        "Less",
        LESS,
        format_func=plain,
        key=bound("less", TOKEN if named else MEAN, LESS),
        help="What is added to all logits changes no probability: less their mean it is gone.",
        required=True,
    )
    against = ""
    if less == TOKEN:
        rest = [each for each in row["next"] if each != (target or row["next"][0])]
        against = _token(right, "This token", "against", rest, "the next likeliest") or rest[0]
    return look.about(target=target, against=against, alone=less == NOTHING)


def _token(place: DeltaGenerator, label: str, name: str, options: Sequence[str], none: str) -> str:
    """A token of a list, or another that is typed; "" for none."""
    key = bound(name, "")
    given = st.session_state[key] or ""
    known = list(dict.fromkeys(["", *options, given]))
    found = place.selectbox(
        plain(label),
        known,
        key=key,
        accept_new_options=True,
        # the browser sends what it shows, so that must not change with the position
        format_func=lambda token: visible(token) if token else none,
        help="With its blank. Another one can be typed.",
    )
    return as_text(found or "")


def _tokens(look: Look) -> None:
    _said(look.tokens, look.position)
    command, call = look.call()
    offer(look.tokens, "tokens", command, f"{call}run.table('tokens')", of=LookConfig.STUDY)


def _said(tokens: pd.DataFrame, at: int) -> None:
    """Every token's surprise, and the distribution after one of them."""
    mean = tokens["surprise"].mean()
    worst = int(tokens["surprise"].fillna(-1.0).to_numpy().argmax())
    charts(
        "surprise",
        figures.surprises(tokens),
        shows="How surprising each token was, in nats, and how unsure the model was before it. A "
        "surprise far above the entropy is a token that the model was sure would not come.",
        found=f"The mean surprise is {mean:.2f} nats; the largest, {tokens['surprise'].max():.2f}, "
        f"is of {visible(tokens['token'].iloc[worst])} at position {worst}."
        if len(tokens) > 1
        else "The text has one token, so none has a surprise.",
    )
    row = tokens.iloc[at]
    after = tokens.iloc[at + 1] if at + 1 < len(tokens) else None
    goes_on = (
        f" The text goes on with {visible(after['token'])}: probability "
        f"{after['probability']:.3g}, rank {int(after['rank'])}."
        if after is not None
        else " The text ends here."
    )
    charts(
        "after",
        figures.next_tokens(row, "" if after is None else str(after["token"])),
        shows=f"What the model says after {visible(row['token'])} (position {at}). The text's own "
        "next token is orange where it is among the first.",
        found=f"It says {visible(row['next'][0])} with probability "
        f"{row['next_probabilities'][0]:.3f}; the entropy is {row['entropy']:.2f} nats.{goes_on}",
    )
    if at and row["probability"] == row["probability"]:
        before = tokens.iloc[at - 1]
        instead = [t for t in before["next"] if t != row["token"]][:5]
        st.caption(
            plain(
                f"{visible(row['token'])} itself had probability {row['probability']:.3g} (rank "
                f"{int(row['rank'])}), given at position {at - 1}; instead of it the model would "
                "say " + ", ".join(f"“{visible(token)}”" for token in instead) + "."
            )
        )
    shown_table(shown_tokens(tokens), "tokens", LookConfig.STUDY)


def shown_tokens(tokens: pd.DataFrame) -> pd.DataFrame:
    """What the table of tokens shows of each."""
    names = ["position", "token", "special", "probability", "rank", "surprise", "entropy", "next"]
    known = tokens["probability"].notna()  # a look of before has 0 where there is none
    return tokens[names].assign(rank=tokens["rank"].astype("Int64").where(known))


def _keep(look: Live) -> None:
    """Store what is asked as a run, which opens without the model."""
    with st.container(horizontal=True, vertical_alignment="center"):
        pressed = st.button("Store this look", key="store look")
        st.caption("A stored look opens without the model, for every position of the text.")
    if pressed:
        other = str(st.session_state[bound("other", "")] or "")
        run = look.keep(**({"other": other} if other and other != look.asked.text else {}))
        st.success(plain(f"Stored as {run.path.name}."))
        link("prompt", "Open the stored look", of=FROM[1], run=run.path.name)


def _stored() -> None:
    """A run of the study, without the model."""
    run = pick_run(LookConfig.STUDY, "Look")
    tokens, chosen = table(run, "tokens"), int(run.manifest["position"])
    st.caption(
        plain(
            f"{run.config['model']}. At position {chosen} the target is "
            f"{spelled(str(run.metrics['explained']))};"
            " at every other it is the likeliest next token. The parts add up to the logits within "
            f"{run.metrics['largest error of a sum']:.1e}."
        )
    )
    look = Stored(run, strip(tokens, bound("at", chosen, range(len(tokens))), chosen))
    views: dict[str, Callable[..., None]] = {
        "Tokens": _tokens,
        "Contributions": contributions,
        "Neurons": neurons,
        "Heads": heads,
        "Lens": lensed,
    }
    if run.has("differences"):
        views["Side by side"] = compare
    in_tabs(views, look, parameter="show")
