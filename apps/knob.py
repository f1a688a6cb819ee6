"""The context knob page: turn it on a question of one's own, and what a stored run measured."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from interp.apps.common import cached, download, errors_in_place, pick_run, plain, reproduce
from interp.knob import figures
from interp.runs.store import Run, Store

MAKE = "interp knob run"
STUDIES = ("knob.run", "knob.learn")
SCORES = ["setting", "part", "pair_acc", "pair_acc_low", "pair_acc_high"]
SCORES += ["named", "named_low", "named_high", "prior", "context", "pairs", "facts"]


def _table(run: Run, name: str) -> pd.DataFrame:
    return pd.read_parquet(run.path / f"{name}.parquet")


table = cached(_table)


@st.cache_resource(show_spinner="opening the model …", max_entries=1)
def _subject(model: str, adapter: str):  # type: ignore[no-untyped-def]
    from interp.knob.data import DataConfig, open_tuned

    return open_tuned(DataConfig(model=model), adapter)


def page() -> None:
    st.title("The context knob")
    kinds = [study for study in STUDIES if Store().runs(study)]
    study = st.sidebar.radio("Of", kinds) if len(kinds) > 1 else (kinds or STUDIES)[0]
    run = pick_run(str(study), MAKE)
    live, measured = st.tabs(["Turn it", "Measured"])
    with measured, errors_in_place():
        _measured(run)
    with live, errors_in_place():
        _live(run)


def _live(run: Run) -> None:
    from interp.knob.items import Item
    from interp.knob.live import pick, read_knob, turned

    knob = read_knob(str(run.path / "knob"))
    direction = st.selectbox("Direction", [str(name) for name in knob.index["direction"]])
    one = pick(knob, direction)
    context = st.text_input("Context", "The capital of France is Rome.")
    query = st.text_input("Query", "The capital of France is")
    row = one.index.iloc[0]
    ends = sorted((float(row["context_c"]), float(row["prior_c"])))
    margin = max((ends[1] - ends[0]) / 2, 1.0)
    st.caption(plain(f"Chosen on validation items: context {row['context_c']:.2f}, prior "
                     f"{row['prior_c']:.2f}; at {one.site}."))  # fmt: skip
    c = st.slider("u·h is held at", ends[0] - margin, ends[1] + margin, float(row["context_c"]))
    if not st.toggle("Open the model and turn"):  # opening it takes seconds: only when asked
        return
    subject = _subject(run.config["model"], _adapter(run))
    item = Item("own", "own", context, query, "", "")
    rows = turned(subject, item, one, [None, c], template=run.config["template"])
    for column, shown, name in zip(
        st.columns(2), rows, ("not turned", f"c = {c:.2f}"), strict=True
    ):
        column.metric(name, shown["text"] or "—")
        bars = figures.knob_answers(shown["tokens"], shown["probabilities"])
        column.plotly_chart(bars, width="stretch", key=name)
    command = ["interp", "knob", "steer", "--adapter", _adapter(run), "--context", context]
    command += ["--knob", str(run.path / "knob"), "--query", query, "--value", f"{c:g}"]
    command += ["--direction", direction, "--model", run.config["model"]]
    command += ["--template", run.config["template"]]
    reproduce(command, "from pathlib import Path\nfrom interp.directions import Directions\n"
              f"Directions.load(Path({str(run.path / 'knob')!r}))")  # fmt: skip


def _adapter(run: Run) -> str:
    own = run.path / "adapter"
    return str(own) if Path(own).is_dir() else str(run.config.get("adapter", "none"))


def _measured(run: Run) -> None:
    if (run.path / "scores" / "scores.parquet").exists():
        st.subheader("Does the model answer by the intent?")
        own = table(run, "scores/scores")
        st.dataframe(own[SCORES].round(2), hide_index=True, width="stretch")
        download(own, "PairAcc")
    _steering(run)
    st.subheader("Where it is")
    st.plotly_chart(figures.knob_layers(table(run, "learn/layers")), width="stretch", key="layers")
    st.dataframe(table(run, "learn/ranks").round(2), hide_index=True, width="stretch")
    if (run.path / "search" / "ranges.parquet").exists():
        search = figures.knob_search(table(run, "search/ranges"), table(run, "search/curves"))
        st.plotly_chart(search, width="stretch", key="search")
    _effects(run)
    st.subheader("What it is")
    for name in ("tokens", "neurons", "split"):
        if (run.path / "decode" / f"{name}.parquet").exists():
            st.dataframe(table(run, f"decode/{name}"), hide_index=True, width="stretch")
    st.code(f"interp directions decode {run.path / 'knob'}", language="bash")


def _steering(run: Run) -> None:
    st.subheader("Steering without an intent")
    scores = table(run, "steer/scores")
    for place in scores["model"].unique():
        left, right = st.columns(2)
        bars = figures.knob_bars(scores, str(place))
        left.plotly_chart(bars, width="stretch", key=f"bars {place}")
        curve = figures.knob_curve(table(run, f"sweep/{place}"), "learned")
        right.plotly_chart(curve, width="stretch", key=f"curve {place}")
    shown = ["model", "direction", "part", *SCORES[2:]]
    st.dataframe(scores[shown].round(2), hide_index=True, width="stretch")
    download(scores, "knob scores")


def _effects(run: Run) -> None:
    paths = sorted((run.path / "effects").glob("configurations-*.parquet"))
    several = pd.concat(table(run, f"effects/{path.stem}") for path in paths)
    r = float(run.metrics.get("separation correlates", float("nan")))
    st.plotly_chart(figures.knob_separation(several, r), width="stretch", key="separation")
    paths = sorted((run.path / "effects").glob("perplexity-*.parquet"))
    effects = pd.concat(table(run, f"effects/{path.stem}") for path in paths)
    st.subheader("What it costs")
    left, right = st.columns(2)
    left.plotly_chart(figures.knob_price(effects), width="stretch", key="price")
    by_position = figures.knob_positions(effects, str(effects["model"].iloc[0]))
    right.plotly_chart(by_position, width="stretch", key="positions")
