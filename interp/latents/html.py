"""Cards as HTML: the app shows these pieces, and `page` is one file that stands alone.

No script, style sheet, font or picture from elsewhere; every text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..model.vocabulary import visible
from ..webpage import CARD, document, text
from .card import Card, Example, Pair, bars

STYLE = (
    CARD
    + """
.card .lists{display:flex;flex-wrap:wrap;gap:0 2rem}
.card .lists>div{min-width:13rem;max-width:100%}
.card .lists td:first-child{white-space:pre-wrap}
.example{font:13px/1.7 ui-monospace,monospace;margin:.15rem 0;white-space:pre-wrap;
overflow-wrap:anywhere}
.example .value{display:inline-block;min-width:4.5rem;opacity:.7}
.example .at{outline:1px solid #c2620f;border-radius:2px}
.example span.t{border-radius:2px}
.histogram text{fill:currentColor}
"""
)
BLUE = "9,105,218"
ORANGE = "219,109,40"
"""Colours of positive and of negative activations."""


def page(cards: Sequence[Card]) -> str:
    """A self-contained document of one card or several, with links between them at the top."""
    title = cards[0].title if len(cards) == 1 else f"{len(cards)} latents"
    links = "".join(f'<a href="#l{i}">{text(card.title)}</a> ' for i, card in enumerate(cards))
    body = "".join(f'<div id="l{i}">{card_html(card)}</div>' for i, card in enumerate(cards))
    nav = f"<nav>{links}</nav>" if len(cards) > 1 else ""
    return document(title, nav + body, STYLE)


def card_html(card: Card) -> str:
    """One card, without a style."""
    return f'<div class="card">{head(card)}{histogram(card)}{lists(card)}{examples(card)}</div>'


def head(card: Card) -> str:
    """A card's name and numbers."""
    return f'<h2>{text(card.title)}</h2><p class="about">{text(summary(card))}</p>'


def summary(card: Card) -> str:
    """A card's numbers in one sentence."""
    of = f"{card.model}, {card.site}" if card.site else card.model
    if not card.density:
        return f"{of}. It fires on none of the tokens that were read."
    mean = f", {card.mean:.3g} on average" if math.isfinite(card.mean) else ""
    return f"{of}. Fires on {card.density:.3%} of the tokens, at most {card.largest:.3g}{mean}."


def lists(card: Card) -> str:
    """The tokens, neighbours and neurons beside each other."""
    counted = "Fires on, times" + (f" (up to {card.short:,} more)" if card.short else "")
    every = (
        ("Raises, logit", card.top, True),
        ("Lowers, logit", card.bottom, True),
        (counted, card.fires_on[:10], True),
        ("Decoder like latent, cosine", card.neighbours, False),
        ("Beside it in top examples, times", card.coactive, False),
        ("Writes like neuron, cosine", card.neurons, False),
    )
    made = "".join(_list(name, pairs, words) for name, pairs, words in every if pairs)
    return f'<div class="lists">{made}</div>'


def _list(name: str, pairs: Sequence[Pair], words: bool) -> str:
    rows = "".join(
        f"<tr><td>{text(visible(pair.name) if words else pair.name)}</td>"
        f"<td>{pair.value:.3g}</td></tr>"
        for pair in pairs
    )
    return f"<div><h3>{text(name)}</h3><table>{rows}</table></div>"


def examples(card: Card) -> str:
    """Texts, coloured by the latent's activation: the largest, then one of each bin."""
    made, most = [], max((abs(x) for e in card.examples for x in e.values if x == x), default=0.0)
    if card.largest_examples:
        made.append("<h3>Largest activations</h3>")
        made += [example(e, most) for e in card.largest_examples]
    if card.binned_examples:
        made.append("<h3>One of each bin of the histogram, drawn at random</h3>")
        made += [example(e, most) for e in card.binned_examples]
    return "".join(made)


def example(shown: Example, most: float) -> str:
    """One text; `most` is the activation of the full colour."""
    about = shown.place
    if shown.low is not None and shown.high is not None:
        share = f", {shown.share:.1%} of its firings" if shown.share is not None else ""
        about = f"{shown.low:.3g} to {shown.high:.3g}{share}; {about}"
    spans = [
        _span(token, value, most, i == shown.at)
        for i, (token, value) in enumerate(zip(shown.tokens, shown.values, strict=True))
    ]
    return (
        f'<div class="example" title="{text(about)}"><span class="value">{shown.value:.3g}'
        f"</span>{''.join(spans)}</div>"
    )


def _span(token: str, value: float, most: float, at: bool) -> str:
    shown = text(token.replace("\n", "⏎").replace("\t", "⇥").replace("\r", "␍"))
    known = value == value
    strength = abs(value) / most if known and most else 0.0
    style = ""
    if strength:
        colour = BLUE if value > 0 else ORANGE
        style = f' style="background:rgba({colour},{0.08 + 0.62 * strength:.2f})"'
    told = f"{value:.3g}" if known else "does not count"
    return f'<span class="t{" at" if at else ""}" title="{told}"{style}>{shown}</span>'


def histogram(card: Card, width: int = 420, height: int = 90) -> str:
    """The histogram as a drawing: counts by size, the sizes on a log scale."""
    drawn = bars(card)
    if not drawn:
        return ""
    most, each = max(count for *_, count in drawn), width / len(drawn)
    made = []
    for i, (low, high, count) in enumerate(drawn):
        tall = height * count / most
        about = f"{low:.3g} to {high:.3g}: {count:,.6g}"
        made.append(
            f'<rect x="{i * each:.1f}" y="{height - tall:.1f}" width="{each - 1:.1f}" '
            f'height="{tall:.1f}" fill="rgb({BLUE})"><title>{about}</title></rect>'
        )
    ends = (
        f'<text x="0" y="{height + 14}" font-size="11">{drawn[0][0]:.3g}</text>'
        f'<text x="{width}" y="{height + 14}" font-size="11" text-anchor="end">'
        f"{drawn[-1][1]:.3g}</text>"
    )
    return (
        f'<svg class="histogram" viewBox="0 0 {width} {height + 18}" width="{width}" '
        f'style="max-width:100%" role="img" aria-label="histogram of its activations">'
        f"{''.join(made)}{ends}</svg>"
    )
