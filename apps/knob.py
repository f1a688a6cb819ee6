"""The context knob page: turn it on a question of one's own, and what a stored run measured."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from interp import figures
from interp.apps.common import cached, download, errors_in_place, pick_run, plain, reproduce
from interp.store import Run, Store

MAKE = "interp knob run"


def _table(run: Run, name: str) -> pd.DataFrame:
    return pd.read_parquet(run.path / f"{name}.parquet")


table = cached(_table)


@st.cache_resource(show_spinner="opening the model …", max_entries=1)
def _subject(model: str, adapter: str):  # type: ignore[no-untyped-def]
    from interp.knob.data import DataConfig, open_tuned

    return open_tuned(DataConfig(model=model), adapter)


def page() -> None:
    st.title("The context knob")
    study = "knob.run" if Store().runs("knob.run") else "knob.learn"
    run = pick_run(study, MAKE)
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
        column.metric(name, shown["text"].split("<|")[0] or "—")
        bars = figures.knob_answers(shown["tokens"], shown["probabilities"])
        column.plotly_chart(bars, width="stretch", key=name)
    command = ["interp", "knob", "steer", "--adapter", _adapter(run), "--context", context]
    command += ["--knob", str(run.path / "knob"), "--query", query, "--value", f"{c:g}"]
    reproduce(command, "from pathlib import Path\nfrom interp.directions import Directions\n"
              f"Directions.load(Path({str(run.path / 'knob')!r}))")  # fmt: skip


def _adapter(run: Run) -> str:
    own = run.path / "adapter"
    return str(own) if Path(own).is_dir() else str(run.config.get("adapter", "none"))


def _measured(run: Run) -> None:
    scores = table(run, "steer/scores")
    for column, model in zip(st.columns(2), scores["model"].unique(), strict=False):
        column.plotly_chart(figures.knob_bars(scores, str(model)), width="stretch", key=model)
    download(scores, "knob scores")
    models = [path.stem for path in sorted((run.path / "sweep").glob("*.parquet"))]
    for column, model in zip(st.columns(2), models, strict=False):
        curve = figures.knob_curve(table(run, f"sweep/{model}"), "learned")
        column.plotly_chart(curve, width="stretch", key=f"curve {model}")
        column.caption(f"{model} model")
    layers = figures.knob_layers(table(run, "learn/layers"))
    st.plotly_chart(layers, width="stretch", key="layers")
    if (run.path / "search" / "ranges.parquet").exists():
        search = figures.knob_search(table(run, "search/ranges"), table(run, "search/curves"))
        st.plotly_chart(search, width="stretch", key="search")
    paths = sorted((run.path / "effects").glob("perplexity-*.parquet"))
    effects = pd.concat(table(run, f"effects/{path.stem}") for path in paths)
    st.plotly_chart(figures.knob_price(effects), width="stretch", key="price")
