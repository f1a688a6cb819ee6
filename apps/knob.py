"""The context knob page: steer your own question, and read what a stored run measured."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from interp.apps.common import (
    charts,
    code,
    consent,
    download,
    errors_in_place,
    in_tabs,
    offer,
    offer_run,
    pick_run,
    plain,
    table,
)
from interp.knob import figures
from interp.runs.command import store_words
from interp.runs.store import Run, Store

STUDIES = ("knob.run", "knob.learn")
SCORES = ["setting", "part", "pair_acc", "pair_acc_low", "pair_acc_high"]
SCORES += ["named", "named_low", "named_high", "prior", "context", "pairs", "facts"]


@st.cache_resource(show_spinner="opening the model …", max_entries=1)
def _subject(model: str, adapter: str):  # type: ignore[no-untyped-def]
    from interp.knob.adapter import open_tuned

    return open_tuned(model, adapter)


@errors_in_place()
def page() -> None:
    st.title("The context knob")
    kinds = [study for study in STUDIES if Store().runs(study)]
    chosen = st.sidebar.radio("Study", kinds, format_func=plain) if len(kinds) > 1 else None
    study = chosen if chosen in kinds else (kinds or STUDIES)[0]  # a browser can send any text
    in_tabs({"Steer": _steer, "Measured": _measured}, pick_run(study))


def _steer(run: Run) -> None:
    from interp.knob.items import Item
    from interp.knob.steer_prompt import pick_direction, read_knob, steering_curve

    folder, own = str(run.path / "knob"), "adapter/adapter_config.json" in run.files
    adapter = str(run.path / "adapter") if own else str(run.config.get("adapter", "none"))
    knob = read_knob(folder)
    name = st.selectbox("Direction", knob.names)
    direction = pick_direction(knob, name)
    context = st.text_input("Context", "The capital of France is Rome.")
    query = st.text_input("Query", "The capital of France is")
    row = direction.index.iloc[0]
    low, high = sorted((float(row["context_c"]), float(row["prior_c"])))
    margin = max((high - low) / 2, 1.0)
    st.caption(plain(
        f"At {direction.site}. Validation items chose c = {row['context_c']:.2f} for the context "
        f"and {row['prior_c']:.2f} for prior knowledge."
    ))  # fmt: skip
    c = st.slider("c, the value of u·h", low - margin, high + margin, float(row["context_c"]))
    if not st.toggle("Open the model and steer it"):  # opening it takes seconds: only when asked
        return
    model, template = run.config["model"], run.config["template"]
    consent(model)
    item = Item("own", "own", context, query, "", "")
    rows = steering_curve(_subject(model, adapter), item, direction, [None, c], template=template)
    labels = ("not steered", f"c = {c:.2f}")
    for column, shown, label in zip(st.columns(2), rows, labels, strict=True):
        column.metric(plain(label), plain(shown["text"] or "—"))
        bars = figures.knob_answers(shown["tokens"], shown["probabilities"])
        column.plotly_chart(bars, key=label)
    command = ["interp", "knob", "steer", "--adapter", adapter, "--context", context]
    command += ["--knob", folder, "--query", query, "--value", f"{c:g}"]
    command += ["--direction", name, "--model", model, "--template", template]
    command += store_words(Store().root)
    call = "from pathlib import Path\nfrom interp.directions import Directions\n"
    offer(pd.DataFrame(rows), "answers", command, f"{call}Directions.load(Path({folder!r}))")


def _measured(run: Run) -> None:
    if run.has("scores/scores"):
        st.subheader("Does the model answer by the intent?")
        own = table(run, "scores/scores")
        st.dataframe(own[SCORES].round(2), hide_index=True)
        download(own, "PairAcc")
    _steering(run)
    st.subheader("Which layers decide?")
    charts("layers", figures.knob_layers(table(run, "learn/layers")))
    st.dataframe(table(run, "learn/ranks").round(2), hide_index=True)
    if run.has("search/ranges"):
        ranges, curves = table(run, "search/ranges"), table(run, "search/curves")
        charts("search", figures.knob_search(ranges, curves))
    _effects(run)
    st.subheader("What is the direction?")
    for name in ("tokens", "neurons", "split"):
        if run.has(f"decode/{name}"):
            st.dataframe(table(run, f"decode/{name}"), hide_index=True)
    code(["interp", "directions", "decode", str(run.path / "knob")])


def _steering(run: Run) -> None:
    st.subheader("Does the knob steer, with no intent in the prompt?")
    scores = table(run, "steer/scores")
    for setting in scores["model"].unique():
        bars = figures.knob_bars(scores, str(setting))
        curve = figures.knob_curve(table(run, f"sweep/{setting}"), "learned")
        charts(f"steering {setting}", bars, curve)
    shown = ["model", "direction", "part", *SCORES[2:]]
    st.dataframe(scores[shown].round(2), hide_index=True)
    offer_run(scores, "knob scores", run, "run.table('steer/scores')")


def _effects(run: Run) -> None:
    several = figures.of_both_models(run, "configurations")
    r = float(run.metrics.get("separation correlates", float("nan")))
    charts("separation", figures.knob_separation(several, r))
    effects = figures.of_both_models(run, "perplexity")
    st.subheader("What does it cost?")
    by_position = figures.knob_positions(effects, str(effects["model"].iloc[0]))
    charts("cost", figures.knob_text_cost(effects), by_position)
