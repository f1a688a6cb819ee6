"""The page of SAE errors: bands over width, measures, tokens, costs, planted faults."""

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
    table,
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


summarised = cached(summary)


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
            f"of {config['length']}: 40 % to fit on, 30 % to fit norms on, 30 % measured."
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
    right.caption("R² of squared lengths that least squares predicts from x.")
    st.dataframe(summarised(run).round(4), hide_index=True, width="stretch")
    download(measures, "measures")
    _tokens(run)
    _downstream(run)
    with st.expander("Width laws, regressions side by side, lengths from narrower SAEs"):
        for rows in (fits(measures), table(run, "variants"), table(run, "scaling")):
            st.dataframe(rows, hide_index=True, width="stretch")
    usual = DarkMatterConfig() if study == "darkmatter.run" else PursuitConfig()
    command, call = study_call(["interp", *study.split(".")], config, usual)
    read = "from interp.darkmatter.results import summary\nsummary(run)"
    reproduce(command, call + read)


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
    st.caption(
        "Ratios of squared lengths. The darkest token has the highest; hover for the number."
    )
    download(shown, "tokens")


def _downstream(run: Run) -> None:
    if not run.has("downstream"):
        return
    costs = table(run, "downstream")
    st.subheader("What it costs the model")
    st.plotly_chart(downstream_bars(costs), width="stretch", key="downstream")
    st.caption(
        "The SAE's output in the place of x recovers 0 % of the lost cross-entropy (in nats), x "
        "itself 100 %. The two parts need not add up to 100 %."
    )
    st.dataframe(costs.round(3), hide_index=True, width="stretch")
    download(costs, "downstream")


def _stored(study: str) -> bool:
    """Whether there is a run of a study; without one, how to make it."""
    if Store().runs(study):
        return True
    st.info(f"No run of {study} yet. Make one:")
    st.code(f"interp {study.replace('.', ' ')}", language="bash")
    return False


def _planted() -> None:
    if not _stored("darkmatter.synthetic"):
        return
    run = pick_run("darkmatter.synthetic", "", "Planted faults", "planted")
    measures = table(run, "measures")
    for measure, title in {
        "fvu": "FVU of the planted faults",
        "fvu_nonlinear": "Its nonlinear part",
        "r2_norm error": "R² of the error's squared length, predicted from x",
    }.items():
        st.plotly_chart(fault_map(measures, measure, title), width="stretch", key=measure)
    download(measures, "planted")
    reproduce(*study_call(["interp", "darkmatter", "synthetic"], run.config, SyntheticConfig()))


def _trained() -> None:
    if not _stored("darkmatter.errors"):
        return
    run = pick_run("darkmatter.errors", "", "SAEs of the error", "trained")
    rows = table(run, "error_saes")
    st.dataframe(rows.round(4), hide_index=True)
    st.caption("The fraction of each part's variance that its SAE leaves unexplained, held out.")
    download(rows, "error_saes")
    reproduce(*study_call(["interp", "darkmatter", "errors"], run.config, ErrorSaesConfig()))
