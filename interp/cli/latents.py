"""`interp saes survey`, `search`, `latent`, `card`: the latents of an SAE, one by one.

They stand in the group of `interp saes`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ..errors import UserError
from ..latents.search import By, Order
from ..latents.survey import SurveyConfig
from ..runs.store import Run, Store
from .common import (
    Flag,
    Folder,
    Json,
    Limit,
    Runs,
    answered,
    command,
    positive,
    print_frame,
    say,
    study_command,
)
from .saes import saes

if TYPE_CHECKING:
    import pandas as pd

    from ..latents.card import Card

SurveyRun = Annotated[
    Folder, tyro.conf.arg(help="A survey's run folder; by default the newest stored one.")
]
Html = Annotated[Path | None, tyro.conf.arg(help="Write one HTML file.", metavar="FILE")]


def _next(run: Run) -> None:
    say(f"Search it: interp saes search --survey {run.path}")


study_command(saes, SurveyConfig, _next)


@command(saes, "search")
def search(
    word: Annotated[str, tyro.conf.Positional] = "",
    by: By = "promotes",
    exact: Flag = False,
    text: str = "",
    density: tuple[float, float] | None = None,
    order: Order = "dense",
    survey: SurveyRun = None,
    runs: Runs = None,
    device: str = "cpu",
    limit: Limit = 20,
    json: Json = False,
) -> None:
    """Latents of a survey: of a word, that fire on a text, or of some density.

    Args:
        word: A word that they raise, lower or fire on.
        by: promotes or lowers: it is among the tokens of the decoder row through the LM head.
            fires: they fire on it.
        exact: This token's exact text alone, not its whole word family.
        text: A text that they fire on; this opens the model.
        density: The least and the largest share of tokens that they fire on.
        order: With --density, the densest or the rarest first.
        device: Where the model runs (cpu, cuda).
    """
    from ..latents import search as asked

    if (word != "") + (text != "") + (density is not None) != 1:
        raise UserError("give one of: a word, --text, --density")
    run = asked.open_survey(survey, Store(runs))
    positive(limit)
    columns = "latent density max top fires"
    if word:
        rows = asked.by_word(run, word, by, exact, limit)
        columns = columns.replace(
            "density", f"{'times share' if by == 'fires' else 'rank z'} density"
        )
    elif density is not None:
        rows = asked.by_density(run, *density, order, limit)
    else:
        rows = asked.described(run, _firing(run, text, device, limit))
        columns = "latent value token tokens density max top"
    print_frame("saes.search", rows, json, columns, run)


def _firing(run: Run, text: str, device: str, limit: int) -> pd.DataFrame:
    from ..latents.prompt import firing, surveyed_sae, surveyed_subject

    subject = surveyed_subject(run, device)
    return firing(run, subject, surveyed_sae(run), text, limit)


@command(saes, "latent")
def latent(
    latents: Annotated[tuple[int, ...], tyro.conf.Positional, tyro.conf.arg(metavar="N …")],
    survey: SurveyRun = None,
    runs: Runs = None,
    html: Html = None,
    neuronpedia: Folder = None,
    json: Json = False,
) -> None:
    """What a survey says of a latent: numbers, tokens, neighbours, texts.

    Args:
        latents: Its number, or several.
        html: Write the cards to one HTML file that stands alone.
        neuronpedia: Write features and activations as Neuronpedia imports them.
    """
    from ..latents.card import of_survey
    from ..latents.search import open_survey

    if not latents:
        raise UserError("give the number of a latent")
    run = open_survey(survey, Store(runs))
    cards = [of_survey(run, number) for number in latents]
    _give(cards, html, neuronpedia, json, run)


@command(saes, "card")
def card(
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    html: Html = None,
    json: Json = False,
) -> None:
    """What Neuronpedia says of its features: an export's folder, a .jsonl.gz, or the API's JSON.

    Args:
        source: Where it is.
        html: Write the cards to one HTML file that stands alone.
    """
    from ..latents import neuronpedia

    _give(neuronpedia.read(source), html, None, json)


def _give(
    cards: list[Card], html: Path | None, folder: Path | None, json: bool, run: Run | None = None
) -> None:
    """Write cards where they are asked for, and print them."""
    from ..latents import neuronpedia
    from ..latents.files import write_html

    written = {}
    if html:
        write_html(cards, html)
        written["html"] = str(html)
    if folder:
        neuronpedia.write(cards, folder)
        written["neuronpedia"] = str(folder)
    path, metrics = run.path if run else None, {"latents": len(cards)}
    told = [neuronpedia.feature(each, "", "") for each in cards] if json else []
    if answered(json, "saes.latent", metrics, path, **written, features=told):
        return
    for name, where in written.items():
        say(f"{name}: {where}")
    for each in () if written else cards:
        _print(each)


def _print(card: Card) -> None:
    from ..latents.card import plain_rows, plain_text
    from ..latents.html import summary

    say(f"{card.title}. {summary(card)}")
    rows = plain_rows(card)
    for what, own in rows.groupby("what", sort=False):
        named = [f"{pair.name!r} {pair.value:.3g}" for pair in own.head(8).itertuples()]
        say(f"  {what}: {', '.join(named)}")
    for example in (*card.largest_examples[:8], *card.binned_examples):
        say(f"{example.value:9.3g}  {plain_text(example)}")
