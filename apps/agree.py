"""The agreement page: how often two models' neurons have the same first token."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from interp.apps.common import NoRun, cached, errors_in_place, link
from interp.apps.offering import code, offer
from interp.apps.picking import pick_run
from interp.apps.shown import charts
from interp.apps.words import plain
from interp.neurons import agree, figures
from interp.plots import row_at_most
from interp.runs.command import store_words
from interp.runs.store import Run, Store, open_run

STUDY = "neurons.atlas"


def _both(run: Run, other: str, seal: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """By layer, and over all; `seal` is the other's, which may be made again at its place."""
    second = open_run(Path(other), STUDY)
    return agree.compared(run, second)


both = cached(_both)


@errors_in_place()
def page() -> None:
    st.title("Agreement of two models")
    run = pick_run(STUDY, "First atlas")
    other = _second(run)
    table, means = both(run, str(other.path), str(other.manifest.get("seal")))
    for column, (_, row) in zip(st.columns(len(means)), means.iterrows(), strict=True):
        column.metric(plain(row["kind"]), f"{row['agreement']:.2%}")
        column.caption(
            f"95 % interval over {row['neurons']:,} neurons: {row['agreement_low']:.2%} to "
            f"{row['agreement_high']:.2%}; chance {row['chance']:.3%}"
        )
    charts(
        "map",
        figures.agreement_map(table),
        shows="The share of neurons whose first tokens have equal texts in both atlases, by "
        "layer, kind and side. Chance is the agreement of independent choices with each atlas's "
        "own token frequencies. Two models trained apart agree by chance; a model and what was "
        "fine-tuned from it agree nearly everywhere.",
        found=_found(table),
    )
    paths = [str(run.path), str(other.path)]
    call = (
        "from pathlib import Path\nfrom interp.neurons import agree, figures, search\n"
        f"a, b = (search.open_atlas(Path(path)) for path in {paths})\n"
        "figures.agreement_map(agree.agreement(a, b))"
    )
    offer(table, "agreement", ["interp", "neurons", "agree", *paths], call)


def _second(run: Run) -> Run:
    """Another atlas that the first can be compared with; without one, how to make it."""

    def fits(other: Run) -> bool:
        return other.path != run.path and not agree.differs(run, other)

    store = Store()
    if found := [other for other in store.looked_through(STUDY)[0] if fits(other)]:
        another = [other for other in found if _model(other) != _model(run)]
        first = (another or found)[0].path.name
        return pick_run(STUDY, "Second atlas", "other", fits, first)
    st.info(
        "Agreement needs a second atlas, with the same norm and of a model of the same shape: "
        "say, of the model that this one was fine-tuned from."
    )
    link("new", "Make another atlas", ":material/add:", study=STUDY)
    norm = str(run.config["norm"])
    make = ["interp", "neurons", "atlas", "--model", "MODEL"]
    code([*make, *([] if norm == "raw" else ["--norm", norm]), *store_words(store.root)])
    raise NoRun


def _model(run: Run) -> object:
    """What tells its model from others, whatever it is called."""
    return run.manifest["fingerprints"].get("model", run.config["model"])


def _found(table: pd.DataFrame) -> str:
    if table["agreement"].nunique() < 2:
        each = table["agreement"].dropna()
        return f"The agreement is {each.iloc[0]:.1%} everywhere." if len(each) else ""
    most, least = (row_at_most(table, sign * table["agreement"]) for sign in (1, -1))
    return " ".join(
        f"{said} is in layer {row['layer']}, {row['kind']} {row['side']}: {row['agreement']:.1%}."
        for said, row in (("The highest agreement", most), ("The lowest", least))
    )
