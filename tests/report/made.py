"""A report whose every text is hostile."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp.plots import SEQUENTIAL, heat_map, label, laid_out, said
from interp.report import Section, report

from ..manifests import finish_by_hand

EVIL = (
    '<img src="http://evil.example/x.png" onerror="document.title=1"></script>'
    "<script>alert(1)</script><a href='http://evil.example'>x</a> &#60;b\u202e`$x$"
)


def figures() -> tuple[go.Figure, go.Figure]:
    grid = pd.DataFrame(np.eye(3), index=[label(EVIL), "b", "c"], columns=list("xyz"))
    map_ = laid_out(heat_map(grid, 0, 1, "%{y}", SEQUENTIAL), label(EVIL), 300)
    line = go.Figure(go.Scatter(x=[0, 1], y=[0.5, 2.5], name=label(EVIL), mode="lines+markers"))
    return said(map_, f"Shows {EVIL}", f"Found {EVIL}"), said(laid_out(line, "", 300), "A line.")


def rows(number: int = 3) -> pd.DataFrame:
    return pd.DataFrame(
        {"token": [EVIL] * number, EVIL: np.arange(number) / 7, "words": [[EVIL, " a"]] * number}
    )


def evil(number: int = 3) -> str:
    first = Section(
        EVIL,
        EVIL,
        figures(),
        EVIL,
        {EVIL: f"{EVIL}\n{EVIL}"},
        rows(number),
        command=EVIL,
        notebook=EVIL,
    )
    return report(EVIL, [first, Section("second", rows=rows(1))])


def run_of(store, **config):
    """A finished run with a table."""
    table = pd.DataFrame({"layer": [0, 1], "kl": [1.0, 0.5]})
    return finish_by_hand(store, "a.b", config, made={"layers.parquet": table.to_parquet})
