"""The agreement page: how often two models' neurons have the same first token."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from interp.apps.common import cached, download, errors_in_place, pick_run, reproduce
from interp.neurons import agree, figures
from interp.runs.store import Run, open_run


def _agreement(run: Run, other: str) -> pd.DataFrame:
    return agree.agreement(run, open_run(Path(other), "neurons.atlas"))


agreement = cached(_agreement)


def page() -> None:
    st.title("Agreement of two models")
    make = "interp neurons atlas --model smollm2-135m"
    run = pick_run("neurons.atlas", make, "First atlas")
    other = pick_run("neurons.atlas", make, "Second atlas", "other")
    with errors_in_place():
        _comparison(run, other)


def _comparison(run: Run, other: Run) -> None:
    table = agreement(run, str(other.path))
    means = agree.summary(table)
    for column, (name, value) in zip(st.columns(len(means)), means.items(), strict=True):
        column.metric(name.replace("_", ", "), f"{value:.2%}")
    st.plotly_chart(figures.agreement_map(table), width="stretch", key="map")
    st.caption(
        "A neuron agrees on a side when the texts of its first tokens are equal. Chance is the "
        "agreement of independent choices with each atlas's own token frequencies."
    )
    download(table, "agreement")
    reproduce(
        ["interp", "neurons", "agree", str(run.path), str(other.path)],
        "from pathlib import Path\nfrom interp.neurons import agree, figures, search\n"
        f"a = search.open_atlas(Path({str(run.path)!r}))\n"
        f"b = search.open_atlas(Path({str(other.path)!r}))\n"
        "figures.agreement_map(agree.agreement(a, b))",
    )
