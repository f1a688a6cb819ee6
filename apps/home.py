"""The first page: what is stored, and how to make more."""

from __future__ import annotations

from typing import Literal

import pandas as pd
import streamlit as st

from interp.analyses import label
from interp.apps.common import code, errors_in_place, left_out, link, plain
from interp.runs.command import store_words
from interp.runs.store import Store
from interp.runs.unfinished import unfinished

WIDTHS: dict[str, Literal["medium", "large"]] = {
    "study": "medium",
    "model": "medium",
    "of": "large",
    "finished": "medium",
}
"""Of columns whose text would be cut where the window is narrow; the table scrolls instead."""


@errors_in_place()
def page() -> None:
    st.title("Runs")
    store = Store()
    runs, complaints = store.looked_through()
    left_out(complaints, unfinished(store.root))
    if not runs:
        st.info(f"Nothing stored in {plain(store.root)} yet. A neuron atlas takes about a minute:")
        first = ["interp", "neurons", "atlas", "--model", "smollm2-135m"]
        code([*first, *store_words(store.root)])
        return
    rows = [
        {
            "study": run.study,
            "model": str(run.config.get("model", "")),
            "of": label(run.study, run.config),
            "finished": run.manifest["finished"],
            "wall time, s": run.manifest["wall_s"],
            "peak memory of its process, MiB": round(run.manifest["peak_memory_bytes"] / 2**20),
            "metrics": ", ".join(
                f"{name} {f'{value:.4g}' if isinstance(value, float) else value}"
                for name, value in run.metrics.items()
            ),
            "folder": str(run.path),
        }
        for run in runs
    ]
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        column_config={
            name: st.column_config.Column(width=width) for name, width in WIDTHS.items()
        },
    )
    link("atlas", "Open the neuron atlas", ":material/map:")
    chosen = st.selectbox("Manifest of", [str(run.path) for run in runs], key="manifest")
    st.json(next(run for run in runs if str(run.path) == chosen).manifest, expanded=1)
