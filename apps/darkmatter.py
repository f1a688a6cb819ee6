"""The page of SAE errors: bands over width, measures, tokens, the price, planted faults."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from interp.apps.common import (
    cached,
    download,
    errors_in_place,
    pick_run,
    plain,
    reproduce,
    study_call,
)
from interp.darkmatter.error_saes import ErrorSaesConfig
from interp.darkmatter.figures import (
    downstream_bars,
    error_bands,
    error_measures,
    fault_map,
    token_scatter,
)
from interp.darkmatter.measure import DarkMatterConfig, PursuitConfig
from interp.darkmatter.results import summary
from interp.darkmatter.synthetic import SyntheticConfig
from interp.darkmatter.widths import bands, fits
from interp.directions.figures import coloured_tokens
from interp.runs.store import Run, Store

NORMS = {
    "r2_norm x": "x",
    "r2_norm output": "SAE(x)",
    "r2_norm error": "error",
    "r2_norm linear": "linear part",
    "r2_norm nonlinear": "nonlinear part",
}
VECTORS = {
    "r2_vector_weighted": "error vector, by variance",
    "r2_vector": "error vector, mean over outputs",
    "r2_vector_weighted_corrected": "by variance, shrinkage out",
}


def _table(run: Run, name: str) -> pd.DataFrame:
    return pd.read_parquet(run.path / f"{name}.parquet")


def _summary(run: Run) -> pd.DataFrame:
    return summary(run.path)


table, summarised = cached(_table), cached(_summary)


def page() -> None:
    st.title("What SAEs leave unexplained")
    own, planted, trained = st.tabs(["Errors", "Planted faults", "SAEs of the error"])
    with planted, errors_in_place():
        _planted()
    with trained, errors_in_place():
        _trained()
    with own, errors_in_place():
        _own()


def _own() -> None:
    studies = {"encoder": "darkmatter.run", "encoder and pursuit": "darkmatter.pursuit"}
    codes = st.sidebar.radio("Codes from", list(studies))
    study = studies[str(codes)]
    run = pick_run(study, f"interp {study.replace('.', ' ')}")
    config = run.config
    st.caption(
        plain(
            f"{config['model']}, {run.manifest['site']}: {config['tokens']:,} tokens in contexts "
            f"of {config['length']}; 40 % to fit on, 30 % to fit norms on, 30 % measured."
            f"{_documents(run)}"
        )
    )
    measures = table(run, "measures")
    parts = bands(measures)
    st.plotly_chart(error_bands(parts), width="stretch", key="bands")
    _about_bands(parts)
    left, right = st.columns(2)
    left.plotly_chart(error_measures(measures, VECTORS), width="stretch", key="vectors")
    right.plotly_chart(error_measures(measures, NORMS), width="stretch", key="norms")
    right.caption("R² of squared lengths predicted from x by least squares.")
    st.dataframe(summarised(run).round(4), hide_index=True, width="stretch")
    download(measures, "measures")
    _tokens(run)
    _downstream(run)
    with st.expander("Width laws, regressions side by side, lengths from narrower SAEs"):
        for rows in (fits(measures), table(run, "variants"), table(run, "scaling")):
            st.dataframe(rows, hide_index=True, width="stretch")
    usual = DarkMatterConfig() if study == "darkmatter.run" else PursuitConfig()
    command, call = study_call(["interp", *study.split(".")], config, usual)
    read = "from interp.darkmatter.results import summary\nsummary(run.path)"
    reproduce(command, call + read)


def _documents(run: Run) -> str:
    """What the intervals rest on; nothing for a run from before that was kept."""
    found = run.manifest.get("documents")
    if not found:
        return ""
    measured, priced = found["measured"], found["priced"]
    few = "; of fewer than 3 none is told" if min(measured, priced or measured) < 3 else ""
    return f" Intervals resample documents: {measured}, and {priced} for the price{few}."


def _about_bands(parts: pd.DataFrame) -> None:
    said = ["nonlinear: no linear function of x", "linear: one that no width removes"]
    if parts["absent"].notna().any():
        said.append("absent: linear, and falling with width")
    else:
        said.append("fewer than three widths: what falls with width is not told apart")
    if parts["encoder"].notna().any():
        said.append("encoder: what pursuit over the same latents saves")
    st.caption(plain("; ".join(said) + "."))


def _tokens(run: Run) -> None:
    tokens = table(run, "tokens")
    names = list(dict.fromkeys(tokens["sae"]))
    st.subheader("Token by token")
    left, middle, right = st.columns(3)
    small = str(left.selectbox("Narrow", names, 0))
    large = str(middle.selectbox("Wide", names, len(names) - 1))
    part = str(right.selectbox("Part", ["error", "nonlinear"]))
    st.plotly_chart(token_scatter(tokens, small, large, part), width="stretch", key="pairs")
    colour = st.segmented_control(
        "Colour by", ["error over x", "nonlinear over error"], default="error over x"
    )
    contexts = list(dict.fromkeys(tokens["context"]))
    context = st.selectbox("Context", contexts)
    shown = tokens[(tokens["sae"] == large) & (tokens["context"] == context)]
    over = ("error", "x") if colour == "error over x" else ("nonlinear", "error")
    rows = pd.DataFrame(
        {
            "text": shown["context"],
            "position": shown["position"],
            "token": shown["text"],
            "score": shown[over[0]] / shown[over[1]],
        }
    )
    st.html(coloured_tokens(rows))
    st.caption("Squared lengths; the darkest is the highest here, and numbers are on hover.")
    download(shown, "tokens")


def _downstream(run: Run) -> None:
    if not (run.path / "downstream.parquet").exists():
        return
    prices = table(run, "downstream")
    st.subheader("What it costs the model")
    st.plotly_chart(downstream_bars(prices), width="stretch", key="downstream")
    st.caption(
        "x with the SAE's output in its place recovers 0 %, x itself 100 %; the two parts need not "
        "add up."
    )
    st.dataframe(prices.round(3), hide_index=True, width="stretch")
    download(prices, "downstream")


def _planted() -> None:
    runs = Store().runs("darkmatter.synthetic")
    if not runs:
        st.info("No run of darkmatter.synthetic yet. Make one:")
        st.code("interp darkmatter synthetic", language="bash")
        return
    run = pick_run("darkmatter.synthetic", "", "Planted faults", "planted")
    measures = table(run, "measures")
    for measure, title in {
        "fvu": "FVU of the planted faults",
        "fvu_nonlinear": "Its nonlinear part",
        "r2_norm error": "R² of the error's squared length, from x",
    }.items():
        st.plotly_chart(fault_map(measures, measure, title), width="stretch", key=measure)
    download(measures, "planted")
    reproduce(*study_call(["interp", "darkmatter", "synthetic"], run.config, SyntheticConfig()))


def _trained() -> None:
    if not Store().runs("darkmatter.errors"):
        st.info("No run of darkmatter.errors yet. Make one:")
        st.code("interp darkmatter errors", language="bash")
        return
    run = pick_run("darkmatter.errors", "", "SAEs of the error", "trained")
    rows = table(run, "error_saes")
    st.dataframe(rows.round(4), hide_index=True)
    st.caption("Fraction of variance unexplained of each part, on held-out contexts.")
    download(rows, "error_saes")
    reproduce(*study_call(["interp", "darkmatter", "errors"], run.config, ErrorSaesConfig()))
