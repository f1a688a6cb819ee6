"""The page of SAE errors: bands over width, measures, tokens, costs, planted faults."""

from __future__ import annotations

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from interp.apps.address import bound
from interp.apps.columns import shown_table
from interp.apps.common import cached, errors_in_place, in_tabs, table
from interp.apps.offering import download, offer_run
from interp.apps.picking import pick_run
from interp.apps.shown import charts
from interp.apps.words import listed, plain
from interp.darkmatter import figures
from interp.darkmatter.enough import cautions
from interp.darkmatter.results import summary
from interp.darkmatter.widths import bands, fits
from interp.directions.figures import coloured_tokens
from interp.runs.store import Run

summarised, wary = cached(summary), cached(cautions)


@errors_in_place()
def page() -> None:
    st.title("What SAEs leave unexplained")
    in_tabs({"Errors": _own, "Planted faults": _planted, "SAEs of the error": _trained})


def _own() -> None:
    studies = {"encoder": "darkmatter.run", "encoder and pursuit": "darkmatter.pursuit"}
    kept = bound("codes", "encoder", studies)
    chosen = str(st.sidebar.radio("Codes from", list(studies), key=kept, format_func=plain))
    run = pick_run(studies[chosen], "Errors", chosen.rpartition(" ")[2])
    config = run.config
    st.caption(
        plain(
            f"{config['model']}, {run.manifest['site']}: {config['tokens']:,} tokens in contexts "
            f"of {config['length']}: 40 % to fit on, 30 % to fit norms on, 30 % measured."
            f"{_documents(run)}"
        )
    )
    for line in wary(run):
        st.warning(plain(line))
    measures = table(run, "measures")
    parts = bands(measures)
    charts("bands", figures.error_bands(parts))
    _about_bands(parts)
    of_columns = [
        figures.error_measures(measures, columns) for columns in (figures.VECTORS, figures.NORMS)
    ]
    charts("measures", *of_columns)
    shown_table(summarised(run), "summary", run.study)
    call = "from interp.darkmatter.results import summary\nsummary(run)"
    offer_run(measures, "measures", run, call)
    _tokens(run)
    _downstream(run)
    with st.expander("Width laws, regressions side by side, lengths from narrower SAEs"):
        more = {"Width laws": fits(measures), "Regressions": table(run, "variants")}
        more["Lengths from narrower SAEs"] = table(run, "scaling")
        for title, rows in more.items():
            st.caption(plain(title if len(rows) else f"{title}: too few SAEs"))
            if len(rows):
                shown_table(rows, title, run.study)


def _documents(run: Run) -> str:
    """What the intervals resample; "" for a version-1 run, which lacks it."""
    documents = run.manifest.get("documents")
    if not documents:
        return ""
    measured, replaced = documents["measured"], documents["priced"]
    few = " (fewer than 3 documents: no interval)" if min(measured, replaced or 3) < 3 else ""
    return f" Intervals resample documents: {measured}, and {replaced} for the cost in nats{few}."


def _about_bands(parts: pd.DataFrame) -> None:
    three = parts["absent"].notna().any()
    lines = [
        "nonlinear: not a linear function of x",
        f"linear: a linear function of x{' that no width removes' if three else ''}",
        "absent: linear, and it falls with width"
        if three
        else "fewer than three widths: what falls with width is not known",
    ]
    if parts["encoder"].notna().any():
        lines.append("encoder: what pursuit over the same latents saves")
    st.caption(plain("; ".join(lines) + "."))


def _tokens(run: Run) -> None:
    tokens = table(run, "tokens")
    names = list(dict.fromkeys(tokens["sae"]))
    st.subheader("Token by token")
    left, middle, right = st.columns(3)
    if not names:
        st.info("This run keeps no tokens.")
        return
    small = _chosen(left, "Narrow", names, names[0])
    large = _chosen(middle, "Wide", names, names[-1])
    part = _chosen(right, "Part", ["error", "nonlinear"], "error")
    charts("pairs", figures.token_scatter(tokens, small, large, part))
    ratios = ["error over x", "nonlinear over error"]
    place = bound("colour", ratios[0], ratios)
    colour = st.segmented_control("Colour by", ratios, key=place, format_func=plain, required=True)
    contexts = list(dict.fromkeys(tokens["context"]))
    place = bound("context", contexts[0], contexts)
    context = st.selectbox("Context", contexts, key=place, format_func=listed)
    shown = tokens[(tokens["sae"] == large) & (tokens["context"] == context)]
    above, below = str(colour or ratios[1]).split(" over ")
    rows = shown[["context", "position", "text"]].set_axis(["text", "position", "token"], axis=1)
    st.html(coloured_tokens(rows.assign(score=shown[above] / shown[below])))
    st.caption(
        "Ratios of squared lengths. The darkest token has the highest; hover for the number."
    )
    download(shown, "tokens")


def _chosen(column: DeltaGenerator, title: str, names: list[str], usual: str) -> str:
    """A choice whose value stands in the URL."""
    place = bound(title.lower(), usual, names)
    return str(column.selectbox(plain(title), names, key=place, format_func=listed))


def _downstream(run: Run) -> None:
    if not run.has("downstream"):
        return
    costs = table(run, "downstream")
    st.subheader("What it costs the model")
    charts("downstream", figures.downstream_bars(costs))
    st.caption(
        "The SAE's output in the place of x recovers 0 % of the lost cross-entropy (in nats), x "
        "itself 100 %. The two parts need not add up to 100 %. Where an SAE may cost nothing, any "
        "percentage may be true: its interval is -inf to inf, and it has no bar."
    )
    shown_table(costs, "costs", run.study)
    download(costs, "downstream")


def _planted() -> None:
    run = pick_run("darkmatter.synthetic", "Planted faults", "planted")
    measures = table(run, "measures")
    for measure, title in {
        "fvu": "FVU of the planted faults",
        "fvu_nonlinear": "Its nonlinear part",
        "r2_norm error": "R² of the error's squared length, predicted from x",
    }.items():
        charts(measure, figures.fault_map(measures, measure, title))
    shown_table(measures, "planted", run.study)
    offer_run(measures, "planted", run)


def _trained() -> None:
    run = pick_run("darkmatter.errors", "SAEs of the error", "trained")
    rows = table(run, "error_saes")
    shown_table(rows, "trained", run.study)
    st.caption("The fraction of each part's variance that its SAE leaves unexplained, held out.")
    offer_run(rows, "error_saes", run)
