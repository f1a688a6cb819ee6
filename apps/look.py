"""One look for all pages: what Streamlit's theme does not say."""

from __future__ import annotations

STYLE = """
/* a run's label says what tells it apart: it wraps instead of being cut */
[data-testid="stSidebar"] [data-baseweb="select"] > div > div { white-space: normal; }
[data-testid="stSidebar"] [data-baseweb="select"] * { text-overflow: clip; }
/* wide things scroll inside themselves */
[data-testid="stCode"] pre, [data-testid="stTable"] { overflow-x: auto; max-width: 100%; }
[data-testid="stMainBlockContainer"] { padding-top: 3rem; }
[data-testid="stHeading"] h1 { font-size: 2rem; }
[data-testid="stHeading"] h2 { font-size: 1.5rem; }
[data-testid="stHeading"] h3 { font-size: 1.15rem; }
@media (max-width: 640px) {
  [class*="st-key-wide-"] { overflow-x: auto; }
  [class*="st-key-wide-"] > div { min-width: 44rem; }
  [data-testid="stMainBlockContainer"] { padding-left: 1rem; padding-right: 1rem; }
}
"""

THEME = {
    "theme.light.primaryColor": "#2f5f9e",
    "theme.dark.primaryColor": "#8ab4e8",
    "theme.baseRadius": "0.4rem",
}
"""Streamlit's settings: the pictures' blue, dark enough to be read on white."""
