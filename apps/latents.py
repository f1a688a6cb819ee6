"""The latents page: search in a survey, one latent's card, what fires on a text, cards to take
away."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pandas as pd
import streamlit as st

from interp.apps import pool
from interp.apps.address import bound
from interp.apps.answers import remembered
from interp.apps.carry import carry_on
from interp.apps.columns import shown_table
from interp.apps.common import cached, errors_in_place, in_tabs
from interp.apps.offering import make_one, offer
from interp.apps.picking import pick_run
from interp.apps.shown import charts
from interp.apps.uploads import LARGEST
from interp.apps.words import called, listed, numbered, plain
from interp.errors import UserError
from interp.latents import card, figures, html, neuronpedia, search
from interp.latents.survey import SurveyConfig
from interp.model.vocabulary import visible
from interp.plain_numbers import exact
from interp.runs.command import settings
from interp.runs.fit import rebuilt
from interp.runs.store import Run

by_word, by_density = cached(search.by_word), cached(search.by_density)
described, densities = cached(search.described), cached(search.densities)
of_survey = cached(card.of_survey)

LIMIT = 50
WAYS: dict[search.By, str] = {
    "promotes": "It promotes",
    "fires": "It fires on",
    "lowers": "It lowers",
}


@errors_in_place()
def page() -> None:
    st.title("Latents")
    in_tabs({"Survey": _surveyed, "From Neuronpedia": _foreign})


def _surveyed() -> None:
    run = pick_run(search.STUDY)
    metrics = run.metrics
    st.caption(
        plain(
            f"{run.config['model']}, {run.manifest['site']}: {metrics['latents']:,} latents over "
            f"{metrics['tokens']:,} tokens of {run.manifest['documents']} documents. "
            f"On a token {metrics['l0']:g} of them fire, on average. Of all latents "
            f"{metrics['dead']:,} never fire, and {metrics['dense']:,} fire on more than "
            f"{run.manifest['dense_from']:.0%} of the tokens."
        )
    )
    views = {"Search": _search, "On a text": _text}
    how = st.segmented_control(
        "What to do",
        list(views),
        default="Search",
        format_func=plain,
        key="view",
        required=True,
    )
    views[how or "Search"](run)


def _search(run: Run) -> None:
    """The search, its table, and the card of one latent."""
    left, middle, right = st.columns([3, 2, 2], vertical_alignment="bottom")
    word = left.text_input(
        "Find a word",
        key=bound("word", ""),
        placeholder="dog, import … (empty: by density)",
    )
    by = middle.selectbox(
        "How",
        list(WAYS),
        key=bound("by", "promotes", list(WAYS)),
        format_func=called(WAYS),
        disabled=not word,
    )
    last = run.metrics["latents"] - 1
    number = right.number_input(
        "Or name a latent",
        0,
        last,
        key=bound("latent", None, read=_whole(last)),
        placeholder=f"0 to {last}",
        help="Clear it to follow the table again.",
    )
    chosen = None
    with errors_in_place():
        chosen = _results(run, word, by)
    shown = number if number is not None else chosen
    if shown is not None:
        with errors_in_place():
            _card(run, int(shown))


def _whole(last: int) -> Callable[[str], int | None]:
    """Reads a latent's number from the URL."""
    return lambda text: int(text) if text in map(str, range(last + 1)) else None


def _results(run: Run, word: str, by: search.By) -> int | None:
    """The table of a search; returns the latent that is selected in it."""
    if word:
        rows = by_word(run, word, by, False, LIMIT)
        command, call = [word, "--by", by], f"search.by_word(survey, {word!r}, {by!r})"
    else:
        charts("densities", figures.densities(densities(run)))
        left, right = st.columns(2)
        low, high = left.select_slider(
            "Density: share of the tokens that it fires on",
            _STEPS,
            (_STEPS[1], _STEPS[-1]),
            key="density",
            format_func=lambda x: listed(f"{100 * x:g} %"),
        )
        orders = get_args(search.Order)
        kept = bound("order", "dense", orders)
        order = right.segmented_control("First", orders, key=kept, format_func=plain, required=True)
        rows = by_density(run, low, high, order or "dense", LIMIT)
        command = ["--density", exact(low), exact(high), "--order", order or "dense"]
        call = f"search.by_density(survey, {low!r}, {high!r}, {order or 'dense'!r})"
    chosen = _selected(rows, f"rows {run.path} {word} {by} {len(rows)}")
    full = ["interp", "saes", "search", *command, "--survey", str(run.path)]
    offer(rows, f"latents {word or 'by density'}", full, _imports(run) + call)
    return chosen


_STEPS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)


def _selected(rows: pd.DataFrame, key: str) -> int | None:
    """The rows as a table; the selected row's latent, at first that of the first row."""
    event = shown_table(rows, key, search.STUDY, on_select="rerun", selection_mode="single-row")
    picked = event["selection"]["rows"]
    return int(rows["latent"].iloc[picked[0] if picked else 0]) if len(rows) else None


def _card(run: Run, number: int) -> None:
    """A latent of a survey, and its card to take away."""
    if "sae" not in run.manifest:
        st.info(
            "An earlier version of the workbench made this survey: it does not say which SAE it is "
            "of, and a latent's card needs that. Make it again:"
        )
        make_one(run.study, **settings(SurveyConfig, run.config))
        return
    made = of_survey(run, number)
    _shown(made, "search")
    source = rebuilt(SurveyConfig, run.config).source
    carry_on(f"sae:{source}:{number}", str(run.config["model"]), "latent")
    others = st.text_input(
        "Latents to take away",
        str(number),
        key=f"list {number}",
        help="Numbers between commas: one file of all of them.",
    )
    if not all(part.strip().isdecimal() and len(part) < 12 for part in others.split(",")):
        raise UserError("give numbers of latents between commas, such as 12, 99")
    numbers = [int(part) for part in others.split(",")]
    _take(run, [of_survey(run, each) for each in numbers], numbers)


def _shown(made: card.Card, key: str) -> None:
    """A card. Streamlit takes drawings out of HTML, so the histogram is a figure."""
    style = f"<style>{html.STYLE}</style>"
    st.html(f'{style}<div class="card">{html.head(made)}</div>')
    if made.counts and any(made.counts):
        charts(f"histogram {key} {made.latent}", figures.histogram(made))
    st.html(f'<div class="card">{html.lists(made)}{html.examples(made)}</div>')


def _take(run: Run, cards: list[card.Card], numbers: list[int]) -> None:
    left, right = st.columns(2)
    name = f"latents {' '.join(map(str, numbers[:4]))}"
    left.download_button("Download HTML", lambda: html.page(cards), f"{name}.html", "text/html")
    right.download_button(
        "Download Neuronpedia's JSON",
        lambda: neuronpedia.as_json(cards),
        f"{name}.json",
        "application/json",
    )
    words = ["interp", "saes", "latent", *map(str, numbers), "--survey", str(run.path)]
    call = f"card.of_survey(survey, {numbers[0]})"
    rows = card.plain_rows(cards[0])
    offer(rows, f"latent {numbers[0]}", words, _imports(run) + call)


def _imports(run: Run) -> str:
    return (
        "from pathlib import Path\nfrom interp.latents import card, search\n"
        f"survey = search.open_survey(Path({str(run.path)!r}))\n"
    )


def firing_on(run: Run, text: str, k: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What fires on a text: the strongest latents at each token, and over the whole."""
    from interp.latents import prompt

    def asked() -> tuple[pd.DataFrame, pd.DataFrame]:
        config = prompt.checked_config(run)
        with (
            pool.borrowed(config.model, config.feeding) as subject,
            pool.surveyed_sae(run) as sae,
            st.spinner("running …"),
        ):
            return (
                prompt.strongest(run, subject, sae, text, k),
                prompt.firing(run, subject, sae, text, LIMIT),
            )

    return remembered(("firing", run.manifest["seal"], text, k), asked)


def _text(run: Run) -> None:
    """A prompt: the strongest latents at each token, each a button that shows its card."""
    left, right = st.columns([5, 1], vertical_alignment="bottom")
    text = left.text_area("Text", "The dog and the cat sat by the river.", height=80)
    k = int(right.number_input("Latents a token", 1, 20, 4))
    if not st.toggle("Run the model", key="run text", help="Loads it: 540 MB for SmolLM2."):
        st.info("Nothing is loaded yet: the model loads when it is to run.")
        return
    if not text.strip():
        raise UserError("the text is empty: type some")
    each, whole = firing_on(run, text, k)
    if each.empty:
        st.info("No latent fires on this text.")
        return
    skipped = f"the first {run.config['skip']}, special ones and massive activations"
    st.caption(plain(f"The strongest latents at each token but {skipped}. Click one for its card."))
    with st.container(horizontal=True, gap="small"):
        for position in sorted(each["position"].astype(int).unique()):
            _column(position, each[each["position"] == position])
    picked = st.session_state.get("picked", int(whole["latent"].iloc[0]))
    columns = ["latent", "value", "token", "tokens", "density", "max"]
    shown_table(described(run, whole)[columns], "firing", search.STUDY)
    _shown(of_survey(run, picked), "text")
    words = ["interp", "saes", "search", "--text", text, "--survey", str(run.path)]
    call = (
        "from interp.latents.prompt import firing, surveyed_sae, surveyed_subject\n"
        "subject, sae = surveyed_subject(survey), surveyed_sae(survey)\n"
        f"firing(survey, subject, sae, {text!r})"
    )
    offer(whole, "latents on a text", words, _imports(run) + call)


def _column(position: int, rows: pd.DataFrame) -> None:
    """A token and its latents."""
    with st.container(width="content", gap=None):
        st.markdown(f"**{plain(visible(rows['token'].iloc[0]))}**")
        for latent, value in zip(rows["latent"].astype(int), rows["value"], strict=True):
            key = f"at {position} {latent}"
            if st.button(plain(f"{latent} · {value:.3g}"), key=key, type="tertiary"):
                st.session_state["picked"] = latent


def _foreign() -> None:
    """Cards of Neuronpedia's JSON."""
    given = st.file_uploader(
        "Features of Neuronpedia: .json of its API, or .jsonl, .gz of an export",
        ["json", "jsonl", "gz"],
        max_upload_size=LARGEST,
    )
    if given is None:
        st.info("A feature's JSON from Neuronpedia shows as a card here; nothing is stored.")
        return
    cards = neuronpedia.parsed(given.name, given.getvalue())
    names = [made.title for made in cards]
    number = st.selectbox("Feature", range(len(cards)), format_func=numbered(names))
    _shown(cards[number], "foreign")
    alone = html.page([cards[number]])
    st.download_button("Download HTML", alone, f"{names[number]}.html", "text/html")
