"""One look for all pages: what Streamlit's theme does not say."""

from __future__ import annotations

STYLE = """
/* wide things scroll inside themselves */
[data-testid="stCode"] pre, [data-testid="stTable"] { overflow-x: auto; max-width: 100%; }
[data-testid="stMainBlockContainer"] { padding-top: 3rem; }
[data-testid="stHeading"] h1 { font-size: 2rem; }
[data-testid="stHeading"] h2 { font-size: 1.5rem; }
[data-testid="stHeading"] h3 { font-size: 1.15rem; }
/* what streamlit draws too light or too dark to be read (WCAG AA asks for 4.5 : 1) */
[data-testid="stCaptionContainer"], [data-testid="stCaptionContainer"] * {
  color: light-dark(#595b61, #b4b7be);
  opacity: 1;
}
[data-testid^="stBaseButton-primary"] * { color: light-dark(#ffffff, #10131a); }
[data-testid="stCode"] .token.parameter { color: light-dark(#00687f, #5cc8e8); }
[data-testid="stCode"] .token.function { color: light-dark(#1560b0, #7fb6f5); }
@media (max-width: 640px) {
  [class*="st-key-wide-"] { overflow-x: auto; }
  [class*="st-key-wide-"] > div { min-width: 44rem; }
  [data-testid="stMainBlockContainer"] { padding: 4.5rem 1rem 3rem; }
}
"""

THEME = {
    "theme.light.primaryColor": "#2f5f9e",
    "theme.dark.primaryColor": "#8ab4e8",
    "theme.baseRadius": "0.4rem",
}
"""Streamlit's settings: the pictures' blue, dark enough to be read on white."""
