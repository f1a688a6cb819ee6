"""The first page: what is stored, and how to make more."""

from __future__ import annotations

import pandas as pd
import streamlit as st
from streamlit.navigation.page import StreamlitPage

from interp.analyses import label
from interp.apps.common import plain
from interp.errors import readable
from interp.runs.store import Store


def page(atlas: StreamlitPage) -> None:
    st.title("Runs")
    store = Store()
    runs, complaints = store.looked_through()
    for complaint in complaints:
        st.warning(plain(f"Passed over: {readable(complaint)}"))
    if not runs:
        st.info(f"Nothing stored in `{store.root}` yet. A neuron atlas takes about a minute:")
        st.code("interp neurons atlas --model smollm2-135m", language="bash")
        return
    rows = [
        {
            "study": run.study,
            "model": run.config.get("model", ""),
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
    st.dataframe(pd.DataFrame(rows), hide_index=True)
    st.page_link(atlas, label="Open the neuron atlas", icon=":material/map:")
    chosen = st.selectbox("Manifest of", [str(run.path) for run in runs])
    st.json(next(run for run in runs if str(run.path) == chosen).manifest, expanded=1)
