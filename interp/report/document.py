"""A report as one HTML file: sections, and a foot that says what made them."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from plotly.offline import get_plotlyjs

from ..plots import DARK, many_panels, sentences
from ..runs.store import Run
from ..webpage import document, text
from .foot import foot, text_lines
from .loader import SCRIPT, STYLE
from .section import Section
from .tables import ROWS, csv, markup

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST = 5_000_000
"""Bytes of a usual report. A larger one says its size: mail may refuse it."""


def report(title: str, sections: Sequence[Section], runs: Sequence[Run] = ()) -> str:
    """The document.

    Args:
        runs: what the sections show; the foot names them and cites them.
    """
    made = _document(title, sections, runs, "")
    if len(made) <= MOST:  # all but a few characters have one byte
        return made
    said = f"This file has {len(made) / 1e6:.1f} MB: its figures hold many points."
    return _document(title, sections, runs, said)


def _document(title: str, sections: Sequence[Section], runs: Sequence[Run], said: str) -> str:
    figures = [figure for section in sections for figure in section.figures]
    tables = {i: csv(s.rows) for i, s in enumerate(sections) if s.rows is not None}
    body = [f"<h1>{text(title)}</h1>"]
    body += [f'<p class="about">{text(said)}</p>'] if said else []
    if len(sections) > 1:
        links = (f'<a href="#s{i}">{text(each.title)}</a>' for i, each in enumerate(sections))
        body.append(f"<nav>{' '.join(links)}</nav>")
    body.append('<p id="broken" role="alert" hidden></p>')
    body.append("<noscript><p>The figures need JavaScript; all texts are here.</p></noscript>")
    body += [_section(i, each, tables.get(i, ("", 0))[1]) for i, each in enumerate(sections)]
    body.append(foot(runs))
    shown = [json.loads(figure.to_json()) for figure in figures]
    files = {i: made for i, (made, _) in tables.items()}
    held = json.dumps({"figures": shown, "csv": files, "colours": DARK}, separators=(",", ":"))
    body.append(_packed("data", _pack(held)))
    body += [_packed("plotly", _plotly())] if figures else []
    scripts = (SCRIPT, get_plotlyjs()) if figures else (SCRIPT,)
    return document(title, "".join(body), STYLE, scripts, pictures=True)


def _section(number: int, section: Section, kept: int) -> str:
    facts = "".join(
        f"<dt>{text(name)}</dt><dd>{text_lines(value)}</dd>"
        for name, value in section.facts.items()
    )
    parts = [
        f'<section id="s{number}"><h2>{text(section.title)}</h2>',
        f"<dl>{facts}</dl>" if facts else "",
        _sentence(section.shows),
        f'<div class="figures">{"".join(map(_figure, section.figures))}</div>',
        _sentence(section.found),
        _table(section, number, kept),
        _again(section),
        "</section>",
    ]
    return "".join(parts)


def _sentence(words: str) -> str:
    return f"<p>{text(words)}</p>" if words else ""


def _figure(figure: go.Figure) -> str:
    shows, found = sentences(figure)
    wide = " panels" if many_panels(figure) else ""
    place = f'<div class="figure{wide}"><div></div></div>'
    return f"<div>{_sentence(shows)}{place}{_sentence(found)}</div>"


def _table(section: Section, number: int, kept: int) -> str:
    if section.rows is None:
        return ""
    shown, total = min(len(section.rows), ROWS), section.total or len(section.rows)
    of = f"The first {shown:,} of {total:,} rows" if total > shown else f"{total:,} rows"
    held = "" if kept == total else f"; this file holds {kept:,}, and the CSV of the view has all"
    name = f"{_name(section.title)}.csv"
    button = f'<button data-csv="{number}" title="{name}">Save {kept:,} rows as CSV</button>'
    return f'{markup(section.rows, section.of)}<p class="about">{of}{held}. {button}</p>'


def _again(section: Section) -> str:
    lines = [each for each in (section.command, section.notebook) if each]
    if not lines:
        return ""
    blocks = "".join(f"<pre>{text_lines(each)}</pre>" for each in lines)
    return f"<details><summary>Reproduce this</summary>{blocks}</details>"


def _name(title: str) -> str:
    """A title as a file's name."""
    kept = "".join(sign if sign.isalnum() or sign in "-_." else "-" for sign in title)
    return kept.strip("-.")[:80] or "table"


def _pack(content: str) -> str:
    return base64.b64encode(gzip.compress(content.encode(), 9, mtime=0)).decode()


@cache
def _plotly() -> str:
    return _pack(get_plotlyjs())


def _packed(name: str, content: Any) -> str:
    return f'<script type="application/gzip" id="{name}">{content}</script>'
