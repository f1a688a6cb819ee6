"""One visual language for what the pages speak of: sites, neurons, latents, tokens, models, sets.

A chip is a small coloured label. `chip` is markdown for captions, headings and `st.markdown`;
`chip_html` is for `st.html`. Both escape what they show; blanks of a token are visible. No torch.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from pathlib import PurePath
from typing import Literal

from interp.apps.words import plain
from interp.model.vocabulary import visible

Kind = Literal["site", "neuron", "latent", "token", "model", "set", "vector", "read"]

_MARKDOWN: dict[str, str] = {
    **{"site": "blue", "neuron": "violet", "latent": "orange", "token": "gray"},
    **{"model": "green", "set": "gray", "vector": "blue", "read": "gray"},
}
"""Streamlit's colours, which follow the theme."""
_HTML: dict[str, str] = {
    **{"site": "59,111,182", "neuron": "122,77,180", "latent": "217,130,43"},
    **{"token": "138,143,152", "model": "53,140,90", "set": "138,143,152"},
    **{"vector": "59,111,182", "read": "138,143,152"},
}
"""The same as red, green and blue; thin enough for light and dark."""
_MOST = 60
"""Characters of a chip."""


def shown(kind: Kind, text: object) -> str:
    """What a chip says: a token with its blanks, of a model's path the end, nothing too long."""
    said = visible(str(text)) if kind == "token" else str(text)
    if kind == "model" and PurePath(said).is_absolute():
        said = PurePath(said).name
    return said if len(said) <= _MOST else f"{said[: _MOST // 2 - 1]} … {said[2 - _MOST // 2 :]}"


def apart(models: Iterable[str]) -> dict[str, str]:
    """What models that stand together are called: of folders of one name so much of each path that
    two are two."""
    every = dict.fromkeys(models)
    short = {model: shown("model", model) for model in every}
    made = dict(short)
    for model, name in short.items():
        twins = [PurePath(each).parts for each in every if each != model and short[each] == name]
        parts = PurePath(model).parts
        if twins and PurePath(model).is_absolute():
            deep = next(
                (n for n in range(2, len(parts)) if all(t[-n:] != parts[-n:] for t in twins)),
                len(parts),
            )
            made[model] = "/".join(parts[-deep:])
    return made


def chip(kind: Kind, text: object) -> str:
    """A chip in markdown."""
    return f":{_MARKDOWN[kind]}-badge[{plain(shown(kind, text))}]"


def chips(*each: tuple[Kind, object]) -> str:
    """Chips beside each other in markdown; one without a text is left out."""
    return " ".join(chip(kind, text) for kind, text in each if str(text))


def chip_html(kind: Kind, text: object) -> str:
    """A chip in HTML."""
    style = (
        f"background:rgba({_HTML[kind]},.16);border:1px solid rgba({_HTML[kind]},.45);"
        "border-radius:.4em;padding:.05em .4em;white-space:pre-wrap;overflow-wrap:anywhere"
    )
    whole = visible(str(text)) if kind == "token" else str(text)
    told = html.escape(shown(kind, text))
    return f'<span style="{style}" title="{html.escape(whole)}">{told}</span>'
