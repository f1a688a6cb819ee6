"""One HTML document that stands alone: it fetches nothing, and no script runs but those named.

What every such file of the workbench shares: the shell, its policy, and one style in light and in
dark. A circuit (circuits/html.py), cards of latents (latents/html.py) and reports (report/) add
their own pieces.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from typing import Any

from .plain_text import printable

CARD = """
.card{font-size:14px;line-height:1.5}
.card h2{font-size:1.15rem;margin:0 0 .2rem;overflow-wrap:anywhere}
.card h3{font-size:.95rem;margin:1rem 0 .2rem}
.card table{border-collapse:collapse;font-size:13px}
.card td{padding:0 .7rem 0 0;border:0;overflow-wrap:anywhere}
.card td+td{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.about,.card td+td{color:color-mix(in srgb,currentColor 70%,transparent)}
.about{overflow-wrap:anywhere}
"""
"""Cards: in the colours of what they stand in, so that the app shows them in its own."""

STYLE = (
    """
:root{color-scheme:light dark;--ink:#1f2328;--ground:#fff;--line:#d0d7de;--field:#f0f2f4;
--link:#0550ae;--blue:#3b6fb6;--orange:#d9822b}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--ground:#0e1117;--line:#3d444d;
--field:#21262d;--link:#79b8ff;--blue:#6f9fdc;--orange:#e39a50}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground);
margin:1rem auto;padding:0 1rem;max-width:76rem}
h1{font-size:1.3rem;margin:0;overflow-wrap:anywhere}
p{margin:.3rem 0}
a{color:var(--link)}
"""
    + CARD
)
"""Of the whole document; colours by name, light or dark as the reader's system is."""


def document(
    title: str, body: str, style: str = "", scripts: Sequence[str] = (), pictures: bool = False
) -> str:
    """The document.

    Args:
        title: as text; it is escaped.
        body: markup, whose texts are escaped.
        scripts: what may run. All but the first are allowed only: the first one adds them.
        pictures: whether a script may draw pictures of its own (`data:` and `blob:`).
    """
    allowed = " ".join(f"'sha256-{_hash(script)}'" for script in scripts) or "'none'"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; "
    policy += "base-uri 'none'; form-action 'none'"
    policy += "; img-src data: blob:" if pictures else ""
    script = f"<script>{scripts[0]}</script>" if scripts else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{text(title)}</title><style>{STYLE}{style}</style></head>"
        f"<body>{body}{script}</body></html>\n"
    )


def text(words: object) -> str:
    """A text of anybody's, as markup that shows it."""
    return escape(printable(str(words)))


def data(content: Any) -> str:
    """JSON that ends no script and opens no comment, whatever is in it."""
    made = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return made.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
