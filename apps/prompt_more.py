"""Views of the prompt page that need the open model: the lens grid, tokens by a direction, latents,
and the way to a circuit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from interp.apps import pool
from interp.apps.address import bound
from interp.apps.carry import carry_on
from interp.apps.columns import shown_table
from interp.apps.common import link, table
from interp.apps.offering import make_one, offer, study_call
from interp.apps.prompt_ask import Live, Look, Stored
from interp.apps.prompt_fed import Fed, fed_of
from interp.apps.prompt_parts import where
from interp.apps.shown import charts
from interp.apps.words import called, first_of, listed, numbered, plain
from interp.directions.figures import coloured_tokens, largest_said
from interp.errors import UserError
from interp.latents import search
from interp.lens import figures
from interp.model.vocabulary import visible
from interp.runs.store import Run, Store

if TYPE_CHECKING:
    from interp.microscope.passed import Opened

LENSES = ("final", "tuned", "jacobian")
COLUMNS = 12
"""Positions of the lens grid at most."""


def lensed(look: Look) -> None:
    """What the stream says after every layer."""
    if isinstance(look, Stored):
        cells, lens = table(look.run, "cells"), str(look.run.config["lens"])
        cells = cells[cells["position"].between(look.position - COLUMNS + 1, look.position)]
    else:
        lens = st.selectbox("Lens", LENSES, key=bound("lens", LENSES[0], LENSES))
        cells = _grid(look, str(lens))
    shade = st.selectbox(
        "Colour by",
        list(figures.SHADES),
        format_func=called(figures.SHADES),
        key=bound("shade", "p", list(figures.SHADES)),
    )
    st.caption(plain(f"The {lens} lens, at the positions up to {where(look)}, {COLUMNS} at most."))
    charts("grid", figures.grid(cells, shade))
    command, call = look.call(lens=lens)
    offer(cells, "lens grid", command, f"{call}run.table('cells')")


def _grid(look: Live, lens: str) -> pd.DataFrame:
    def made(opened: Opened) -> pd.DataFrame:
        from interp.lens.files import open_lens
        from interp.microscope.live import window

        assert opened.subject.weights is not None
        return window(opened, look.asked, open_lens(lens, opened.subject.weights), 5, COLUMNS)

    return look.answer(("grid", lens, *_newest_fits(lens)), made)


def _newest_fits(lens: str) -> list[str]:
    """The keys of the stored fits that a lens may mean."""
    runs = (
        [] if lens == LENSES[0] else [r for n in ("fit", "tune") for r in Store().runs(f"lens.{n}")]
    )
    return [run.path.name for run in runs]


def directed(look: Live) -> None:
    """The text's tokens coloured by a direction or latent."""
    source = st.text_input(
        "Direction",
        key=bound("direction", ""),
        placeholder="29.down.808, sae:SOURCE:12, lens:final:20: Paris, a folder or a run's key",
        help="Whatever `interp directions` takes.",
    )
    if not source:
        st.info("Name a direction: a neuron such as 29.down.808, latents, or a stored set.")
        return
    rows, told, fed, cut = _scores(look, source)
    names = rows.drop_duplicates("text")["name"].map(visible).tolist()
    number, every = 0, range(len(names))
    if len(names) > 1:
        place = bound("which", 0, every)
        said = st.selectbox("Which", every, key=place, format_func=numbered(names))
        number = said if said in every else 0  # a browser can send any text
    if cut:
        st.info(plain(cut))
    name, own = names[number], rows[rows["text"] == number]
    st.caption(
        plain(
            f"The score of {name} at each token: {told}. Blue is above 0, orange below; the first "
            "token has no colour. A surprise is a high score on a token unlike its top examples."
        )
    )
    st.html(coloured_tokens(own))
    at = fed.place(look, "the SAE")
    chosen = own[own["position"] == at]["score"]
    there = "" if at else ", the first,"
    of_chosen = (
        f" The score of the chosen token{there} is {chosen.iloc[0]:.3g}." if len(chosen) else ""
    )
    st.markdown(plain(largest_said(own) + of_chosen))
    carry_on(source, look.model, "direction")
    command, call = look.call(direction=source)
    offer(own, "scores", command, f"{call}run.table('scores')")


def _scores(look: Live, source: str) -> tuple[pd.DataFrame, str, Fed, str]:
    """The tokens' scores on the text as the directions ask for it, how they are read, and how many
    are left out."""
    from interp.apps.sets import consent_to_named_sae, consent_to_scores, warn_of_weights
    from interp.directions import open_directions

    consent_to_named_sae(source)
    directions = open_directions(source, look.model)
    consent_to_scores(directions)
    warn_of_weights(directions, look.model)
    told = f"{directions.read_as}, read at {directions.read_at}"

    def made(opened: Opened) -> tuple[pd.DataFrame, Fed]:
        from interp.microscope.scores import scored

        text, bos = look.asked.text, directions.reading.bos
        with opened.fed(bos):
            rows = scored(opened.passed(text), directions)
        return rows, fed_of(opened, text, bos)

    rows, fed = look.answer(("scores", directions.identity), made)
    cut = first_of(rows["text"].nunique(), len(directions))
    return rows, told, fed, f"{cut} Name the others themselves." if cut else ""


def latents(look: Live) -> None:
    """The strongest latents at the chosen token, of an SAE that was surveyed."""
    from interp.latents.prompt import survey_config

    runs = [run for run in Store().runs(search.STUDY) if run.config.get("model") == look.model]
    if not runs:
        st.info("No SAE of this model is surveyed here. Make a survey:")
        make_one(search.STUDY, model=look.model)
        return
    by_key = {run.path.name: run for run in runs}
    key = st.selectbox(
        "Survey",
        list(by_key),
        key=bound("survey", runs[0].path.name, by_key),
        format_func=lambda k: listed(f"{by_key[k].manifest['site']} · {k}" if k in by_key else k),
    )
    if key not in by_key:  # a browser can send any text
        raise UserError("there is no such survey: choose one of the list")
    survey = by_key[key]
    rows, fed = _strongest(look, survey)
    rows = rows[rows["position"] == fed.place(look, "the survey")]
    if rows.empty:
        st.info(
            plain(
                f"No latent counts at {where(look)}: the survey leaves out special tokens, the "
                f"first {survey.config['skip']} positions and massive activations."
            )
        )
        return
    told = search.described(survey, rows)
    first = told.iloc[0]
    st.caption(
        plain(
            f"The largest latents at {where(look)}, at {survey.manifest['site']}, with what each "
            "raises, and what it fires on in the survey. A surprise is a latent that fires "
            "on other things there."
        )
    )
    columns = ["latent", "value", "density", "max", "fires", "top"]
    shown_table(told[columns], "latents", search.STUDY)
    st.markdown(
        plain(
            f"Latent {int(first['latent'])} is the largest, {first['value']:.2f} (at most "
            f"{first['max']:.2f} in the survey)."
        )
    )
    numbers = [int(each) for each in told["latent"]]
    chosen = st.selectbox("Go on with latent", numbers, key=bound("latent", numbers[0], numbers))
    with st.container(horizontal=True):
        carry_on(f"sae:{survey_config(survey).source}:{chosen}", look.model, "latent")
        link("latents", "Its card", run=str(key), latent=str(chosen))
    words = ["interp", "saes", "search", "--text", look.asked.text, "--survey", str(survey.path)]
    call = (
        "from pathlib import Path\nfrom interp.latents import search\n"
        "from interp.latents.prompt import strongest, surveyed_sae, surveyed_subject\n"
        f"survey = search.open_survey(Path({str(survey.path)!r}))\n"
        "subject, sae = surveyed_subject(survey), surveyed_sae(survey)\n"
        f"strongest(survey, subject, sae, {look.asked.text!r}, {PER_TOKEN})"
    )
    offer(told, "latents of the token", words, call)


PER_TOKEN = 10
"""Latents of a token."""


def _strongest(look: Live, survey: Run) -> tuple[pd.DataFrame, Fed]:
    """The latents of every token, on the text as the survey was fed."""

    def made(opened: Opened) -> tuple[pd.DataFrame, Fed]:
        from interp.latents.prompt import strongest, survey_config

        text, bos = look.asked.text, survey_config(survey).feeding
        with pool.surveyed_sae(survey) as sae, opened.fed(bos) as subject:
            rows = strongest(survey, subject, sae, text, PER_TOKEN)
        return rows, fed_of(opened, text, bos)

    whole = look.about(position=-1, target="", against="", alone=False)
    return whole.answer(("latents", str(survey.manifest["seal"])), made)


def circuit(look: Live) -> None:
    """The way to a circuit of the chosen token."""
    if look.asked.alone:
        raise UserError("a circuit explains a logit less something: choose what under 'Less'")

    def made(opened: Opened) -> str:
        from interp.microscope.live import prefix

        return prefix(opened, look.asked)

    text = look.answer(("prefix",), made)
    if not text:
        raise UserError(
            "the text up to this token has other tokens by itself: choose another position"
        )
    target = look.asked.target or str(look.tokens["next"].iloc[look.position][0])
    against = look.asked.against
    st.caption(
        plain(
            f"Contributions are direct: with no other part in between. A circuit follows the paths "
            f"through all layers that say {visible(target)} after {where(look)}."
        )
    )
    asked = {"model": look.model, "prompt": text, "target": target, "against": against}
    if st.button("Trace the circuit", key="trace circuit", icon=":material/hub:"):
        from interp.circuits.trace import TraceConfig

        with st.spinner("tracing …"):
            run = pool.run(TraceConfig(look.model, prompt=text, target=target, against=against))
        st.success(plain(f"{len(run.table('nodes'))} nodes are kept."))
        link("circuits", "Open the circuit", run=run.path.name)
    given = {name: value for name, value in asked.items() if value}
    link("circuits", "Or fill in the form of the page Circuits", **given)
    offer(pd.DataFrame([asked]), "circuit", *study_call("circuits.trace", asked))
