"""A section of the steering page: a surveyed SAE's latent is steered, clamped or ablated, or the
SAE spliced in, and the model's next tokens and text stand beside those without."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import streamlit as st

from interp.apps.common import charts, offer, opened, pick_run, plain
from interp.directions import figures
from interp.directions.inspect import next_logprobs
from interp.errors import UserError
from interp.latents import search
from interp.model.catalog import resolve
from interp.model.edits import Edit
from interp.model.vocabulary import check_chat_template, visible
from interp.runs.store import Run, open_run

if TYPE_CHECKING:
    from interp.model.prompting import Prompting
    from interp.saes import Sae

TOKENS = 24
"""Length of the texts."""
ACTS = {
    "steer": "Add what it writes",
    "clamp": "Hold it at a value",
    "ablate": "Take it away",
    "splice": "Replace the stream by the reconstruction",
}


class Wish(NamedTuple):
    """What to do, as plain values: the key under which an answer is remembered."""

    survey: str
    seal: str
    """When the survey was."""
    prompt: str
    chat: bool
    act: str
    latent: int
    value: float
    error: bool
    """Of a splice: whether the error is added back."""


@st.cache_data(show_spinner="running …", max_entries=256)
def answer(wish: Wish) -> tuple[pd.DataFrame, str, str]:
    """The most likely next tokens before and after, and both texts."""
    from interp.latents.act import prompted
    from interp.latents.prompt import checked_config

    if not wish.prompt.strip():
        raise UserError("the prompt is empty: type some text")
    config = checked_config(open_run(Path(wish.survey)))
    if wish.chat:
        check_chat_template(resolve(config.model), config.model, "the prompt without it")
    subject, lock = opened(config.model, config.feeding)
    edit = edit_of(wish, surveyed(wish.survey, wish.seal), subject.prompting)
    batch = prompted(subject, wish.prompt, wish.chat)
    found = []
    with lock:
        for edits in ((), (edit,)):
            with subject.edited(*edits):
                text = subject.text(subject.generate(batch, TOKENS)[0])
                found.append((next_logprobs(subject, batch).exp(), text))
    (before, plain_text), (after, text) = found
    best = (before + after).topk(12).indices
    best = best[after[best].argsort(descending=True)]
    rows = {"token": [subject.text(i[None]) for i in best]}
    rows |= {"before": before[best].tolist(), "after": after[best].tolist()}
    return pd.DataFrame(rows), plain_text, text


@st.cache_resource(show_spinner="opening the SAE …", max_entries=1)
def surveyed(path: str, seal: str) -> Sae:
    """The SAE of a survey."""
    from interp.latents.prompt import surveyed_sae

    return surveyed_sae(open_run(Path(path)))


def edit_of(wish: Wish, sae: Sae, prompting: Prompting) -> Edit:
    """The edit that a wish asks for."""
    from interp.saes.edits import ablate_latent, clamp_latent, splice, steer_latent

    if wish.act == "splice":
        return splice(sae, prompting, wish.error)
    if wish.act == "ablate":
        return ablate_latent(sae, wish.latent, prompting)
    act = steer_latent if wish.act == "steer" else clamp_latent
    return act(sae, wish.latent, wish.value, prompting)


def section(prompt: str, chat: bool) -> None:
    """Choose a survey, a latent and what to do with it; then run the model."""
    run = pick_run(search.STUDY, "Survey of an SAE", "survey")
    st.caption(plain(f"The survey's model runs: {run.config['model']}, {run.manifest['site']}."))
    wish = _wish(run, prompt, chat)
    if not st.toggle("Run the model", key="run act", help="Loads it: 540 MB for SmolLM2."):
        st.info("Nothing is loaded yet: the model loads when it is to run.")
        return
    rows, before, after = answer(wish)
    texts = {"As it is": before, "Edited": after}
    for column, (title, text) in zip(st.columns(2), texts.items(), strict=True):
        column.subheader(plain(title))
        column.text(text)
    charts("next by latent", figures.next_tokens(rows))
    offer(rows, "next tokens", _command(wish, run), _call(wish))


def _wish(run: Run, prompt: str, chat: bool) -> Wish:
    by_label = {label: name for name, label in ACTS.items()}
    label = st.segmented_control("Act", list(by_label), default=ACTS["steer"], format_func=plain)
    act = by_label.get(label or "", "steer")
    own = (str(run.path), run.manifest["seal"], prompt, chat, act)
    if act == "splice":
        return Wish(*own, 0, 0.0, st.toggle("Add the error back", key="error"))
    last = run.metrics["latents"] - 1
    latent = int(st.number_input("Latent", 0, last, 0, key="latent"))
    row = search.described(run, pd.DataFrame({"latent": [latent]})).iloc[0]
    raised = " ".join(visible(token) for token in row["top"][:8])
    largest = 0.0 if pd.isna(row["max"]) else float(row["max"])
    st.caption(plain(f"It raises {raised}. Its largest activation in the survey: {largest:.3g}."))
    if act == "ablate":
        return Wish(*own, latent, 0.0, False)
    reach = round(4 * largest, 1) or 40.0
    value = st.slider("Activation", -reach, reach, reach / 2, key=f"activation {latent}")
    return Wish(*own, latent, float(value), False)


def _command(wish: Wish, run: Run) -> list[str]:
    from interp.latents.prompt import survey_config

    config = survey_config(run)
    how = ["--prompt", wish.prompt, "--model", config.model, *([] if wish.chat else ["--no-chat"])]
    how += ["--bos", config.feeding] + ["--anyway"] * config.anyway
    which = [] if wish.act == "splice" else [str(wish.latent)]
    option = {"steer": "--by", "clamp": "--to"}.get(wish.act)
    value = [option, f"{wish.value:g}"] if option else []
    return ["interp", "saes", wish.act, config.source, *which, *value, *how]


def _call(wish: Wish) -> str:
    edit = {
        "steer": f"steer_latent(sae, {wish.latent}, {wish.value:g}, subject.prompting)",
        "clamp": f"clamp_latent(sae, {wish.latent}, {wish.value:g}, subject.prompting)",
        "ablate": f"ablate_latent(sae, {wish.latent}, subject.prompting)",
        "splice": f"splice(sae, subject.prompting, {wish.error})",
    }[wish.act]
    return (
        "from pathlib import Path\n"
        "from interp.latents.act import Acting, acted, prompted\n"
        "from interp.latents.prompt import surveyed_sae, surveyed_subject\n"
        "from interp.latents.search import open_survey\n"
        f"from interp.saes.edits import {edit.partition('(')[0]}\n"
        f"survey = open_survey(Path({wish.survey!r}))\n"
        "subject, sae = surveyed_subject(survey), surveyed_sae(survey)\n"
        f"batch = prompted(subject, {wish.prompt!r}, {wish.chat})\n"
        f"acted(Acting(sae, subject, batch), {{'edited': {edit}}}, {TOKENS})"
    )
