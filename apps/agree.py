"""The agreement page: how often two models' neurons have the same first token."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from interp.apps.common import cached, charts, errors_in_place, offer, pick_run, plain
from interp.neurons import agree, figures
from interp.runs.store import Run, open_run


@cached
def agreement(run: Run, other: str) -> pd.DataFrame:
    return agree.agreement(run, open_run(Path(other), "neurons.atlas"))


@cached
def summary(run: Run, other: str) -> pd.DataFrame:
    return agree.summary(run, open_run(Path(other), "neurons.atlas"))


@errors_in_place()
def page() -> None:
    st.title("Agreement of two models")
    run = pick_run("neurons.atlas", "First atlas")
    other = pick_run("neurons.atlas", "Second atlas", "other")
    table = agreement(run, str(other.path))
    means = summary(run, str(other.path))
    for column, (_, row) in zip(st.columns(len(means)), means.iterrows(), strict=True):
        column.metric(plain(row["kind"]), f"{row['agreement']:.2%}")
        column.caption(
            f"95 % interval over {row['neurons']:,} neurons: {row['agreement_low']:.2%} to "
            f"{row['agreement_high']:.2%}; chance {row['chance']:.3%}"
        )
    charts("map", figures.agreement_map(table))
    st.caption(
        "A neuron agrees on a side when the texts of its first tokens are equal. Chance is the "
        "agreement of independent choices with each atlas's own token frequencies."
    )
    paths = [str(run.path), str(other.path)]
    call = (
        "from pathlib import Path\nfrom interp.neurons import agree, figures, search\n"
        f"a, b = (search.open_atlas(Path(path)) for path in {paths})\n"
        "figures.agreement_map(agree.agreement(a, b))"
    )
    offer(table, "agreement", ["interp", "neurons", "agree", *paths], call)
