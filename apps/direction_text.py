"""Views of one direction that run the model on text: where it is highest, a text coloured by it,
and how much of it an SAE sees."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import streamlit as st

from interp.apps import pool
from interp.apps.address import bound
from interp.apps.answers import remembered
from interp.apps.columns import shown_table
from interp.apps.common import cached, consent_to_sae
from interp.apps.offering import code, offer
from interp.apps.sets import OpenSet, choose_sae, consent_to_scores, opening, words
from interp.apps.shown import charts
from interp.apps.words import plain
from interp.directions import Directions, figures
from interp.directions.encoder import Encoder
from interp.directions.inspect import scores_on_text, top_examples
from interp.directions.sets import sae_place
from interp.directions.splitting import split_on_text
from interp.errors import UserError
from interp.latents import card, html, search
from interp.latents import figures as latent_figures
from interp.runs.store import Run, Store
from interp.saes.excess import excess
from interp.text.corpus import read_corpus, token_rows

TEXT = "The dog and the cat sat by the river, and the man wrote a program in Python."
LENGTH, KEEP = 128, 12
TOKENS = (2048, 4096, 16384, 65536)
of_survey = cached(card.of_survey)


def examples(opened: OpenSet) -> None:
    """Where in a text it is highest: the card of a survey, and any corpus's top tokens."""
    if found := _survey(opened.directions):
        run, latent = found
        made = of_survey(run, latent)
        st.html(f'<style>{html.STYLE}</style><div class="card">{html.head(made)}</div>')
        if made.counts and any(made.counts):
            charts(f"histogram {latent}", latent_figures.histogram(made))
        st.html(f'<div class="card">{html.lists(made)}{html.examples(made)}</div>')
        command = ["interp", "saes", "latent", str(latent), "--survey", str(run.path)]
        code(command)
    tokens = st.select_slider("Tokens to read", TOKENS, key=bound("tokens", TOKENS[1], TOKENS))
    if not _runs():
        return
    consent_to_scores(opened.directions)
    rows = remembered(
        ("examples", opened.print, opened.source, pool.content(opened.model), tokens),
        lambda: _top(opened, int(tokens)),
    )
    shown = rows[["score", "z", "before", "token", "after"]]
    first = rows.iloc[0]
    st.caption(
        plain(
            f"The highest scores in {tokens:,} tokens of Python's own documentation. Its mean "
            f"there is {first['mean']:.3g}, its standard deviation {first['std']:.3g}; z is in "
            "those."
        )
    )
    shown_table(shown, "examples", "directions")
    how = ["--tokens", str(tokens), "--limit", str(KEEP)]
    call = (
        opening(opened.source, opened.model)
        + "from interp import open_subject\n"
        + "from interp.directions.inspect import top_examples\n"
        + "from interp.text.corpus import read_corpus, token_rows\n"
        + f"subject = open_subject({opened.model!r}, bos=directions.reading.bos)\n"
        + "rows = token_rows(read_corpus(None), subject.prompting, "
        + f"subject.at_most({LENGTH}), {tokens})\n"
        + f"top_examples(subject, list(rows), directions, {KEEP})"
    )
    offer(
        rows,
        "top examples",
        words("score", opened.source, *how, model=opened.model),
        call,
        of="directions",
    )


def _survey(directions: Directions) -> tuple[Run, int] | None:
    """The survey that has this latent, if one is stored."""
    reading = directions.reading
    if not isinstance(reading, Encoder):
        return None
    latent = int(directions.index["latent"].iloc[0])
    run = search.survey_of(reading.fingerprint, latent, Store())
    return (run, latent) if run else None


def _runs() -> bool:
    """Whether the model is to run."""
    if st.toggle("Run the model", key=bound("run", False), help="Loads it: 540 MB for SmolLM2."):
        return True
    st.info("Nothing is loaded yet: the model loads when it is to run.")
    return False


def _own(opened: OpenSet) -> Directions:
    """The direction, whose SAE is let go of afterwards."""
    reading = opened.directions.reading
    fresh = replace(reading) if isinstance(reading, Encoder) else reading
    return replace(opened.directions, reading=fresh)


def _top(opened: OpenSet, tokens: int) -> pd.DataFrame:
    own = _own(opened)
    with pool.borrowed(opened.model, own.reading.bos) as subject, st.spinner("running …"):
        rows = list(
            token_rows(read_corpus(None), subject.prompting, subject.at_most(LENGTH), tokens)
        )
        return top_examples(subject, rows, own, KEEP)


def on_a_text(opened: OpenSet) -> None:
    """A text, its tokens coloured by their score."""
    text = st.text_area("Text", key=bound("text", TEXT), height=90)
    if not text.strip():
        raise UserError("the text is empty: type some")
    if not _runs():
        return
    consent_to_scores(opened.directions)

    def make() -> pd.DataFrame:
        own = _own(opened)
        with pool.borrowed(opened.model, own.reading.bos) as subject, st.spinner("running …"):
            return scores_on_text(subject, own, text)

    key = ("on a text", opened.print, opened.source, pool.content(opened.model), text)
    rows = remembered(key, make)
    st.caption(
        plain(
            "Blue is above 0, orange below; the first token has no colour. "
            f"{figures.largest_said(rows)} Point at a token for its score."
        )
    )
    st.html(figures.coloured_tokens(rows))
    call = (
        opening(opened.source, opened.model)
        + "from interp import open_subject\n"
        + "from interp.directions.inspect import scores_on_text\n"
        + f"subject = open_subject({opened.model!r}, bos=directions.reading.bos)\n"
        + f"scores_on_text(subject, directions, {text!r})"
    )
    command = words("text", opened.source, "--text", text, model=opened.model)
    offer(rows, "scores on a text", command, call, of="directions")


def split(opened: OpenSet) -> None:
    """How much of its score an SAE explains."""
    st.caption(
        "The score's variance on text, cut into three: what the SAE reconstructs, what of its "
        "error is a linear function of the activation, and the nonlinear rest. The shares add up "
        "to 1. It is for scores that are products with an activation at the SAE's site."
    )
    source = choose_sae("sae")
    consent_to_sae(source)
    tokens = st.select_slider("Tokens to read", TOKENS, key=bound("tokens", TOKENS[2], TOKENS))
    if not _runs():
        return
    from interp.saes.open import saes_fingerprint

    place = sae_place(source, Store())
    model = pool.content(opened.model)
    rows = remembered(
        ("split", opened.print, opened.source, saes_fingerprint(place), model, tokens),
        lambda: _split(opened, place, int(tokens)),
    )
    row = rows.iloc[0]
    for column, name in zip(st.columns(3), ("reconstruction", "linear", "nonlinear"), strict=True):
        column.metric(plain(name), f"{row[name]:.1%}")
    st.caption(
        plain(
            "Least squares leaves the nonlinear part uncorrelated with the activation on the half "
            "of the tokens that it is fitted on, so its size shows in its own variance on the "
            f"other half: {row['nonlinear_spread']:.1%} of the score's."
            + _too_large(int(tokens) // 2, opened.directions.vectors.shape[1])
        )
    )
    call = (
        opening(opened.source, opened.model)
        + "from interp import open_subject\n"
        + "from interp.directions.splitting import split_on_text\n"
        + "from interp.saes import open_sae\n"
        + f"sae = open_sae({place!r})\n"
        + f"subject = open_subject({opened.model!r}, bos=sae.bos)\n"
        + f"split_on_text(subject, directions, sae, tokens={tokens})"
    )
    how = ["--sae", source, "--tokens", str(tokens)]
    offer(
        rows,
        "split",
        words("split", opened.source, *how, model=opened.model),
        call,
        of="directions",
    )


def _too_large(fitted: int, inputs: int) -> str:
    """What so few tokens make of the nonlinear part; "" if it is less than a tenth."""
    share = excess(fitted, inputs)
    if share <= 0.1:
        return ""
    much = f"by {share:.0%} or more" if share < 10 else "by far"
    return (
        f" About {fitted:,} tokens fit a map of {inputs:,} numbers: the nonlinear part comes out "
        f"too large, {much}. Read more tokens."
    )


def _split(opened: OpenSet, place: str, tokens: int) -> pd.DataFrame:
    from interp.saes import open_sae

    with st.spinner("opening the SAE …"):
        sae = open_sae(place, site=str(opened.directions.site))
    with pool.borrowed(opened.model, sae.bos) as subject, st.spinner("running …"):
        return split_on_text(subject, opened.directions, sae, tokens=tokens, length=LENGTH)
