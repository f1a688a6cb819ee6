"""The tab of the knob's page that asks the model: your own question, at a value of the knob."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from interp.apps import pool
from interp.apps.address import bound
from interp.apps.answers import remembered
from interp.apps.common import consent
from interp.apps.offering import offer
from interp.apps.words import plain
from interp.errors import UserError
from interp.knob import figures
from interp.model.vocabulary import visible
from interp.plain_numbers import exact
from interp.runs.command import store_words
from interp.runs.shipped import is_shipped
from interp.runs.store import Run, Store

if TYPE_CHECKING:
    from interp.directions import Directions


def steer(run: Run) -> None:
    from interp.knob.steer_prompt import pick_direction, read_knob

    knob = read_knob(knob_folder(run))
    names = knob.names
    name = st.selectbox("Direction", names, key=bound("along", names[0], names))
    direction = pick_direction(knob, name)
    context = st.text_input(
        "Context", key=bound("context", "The capital of France is Rome."), help="May be wrong."
    )
    query = st.text_input("Question", key=bound("query", "The capital of France is"))
    c = _value(direction)
    if not st.toggle("Run the model", key=bound("live", False)):
        st.info("Nothing is loaded yet: the model loads when it is to run.")
        return
    consent(run.config["model"])
    rows = _answers(run, direction, context, query, c)
    labels = ("as it is", f"c = {c:.1f}")
    for column, shown, label in zip(st.columns(2), rows, labels, strict=True):
        column.metric(plain(label), plain(shown["text"] or "—"))
        bars = figures.knob_answers(shown["tokens"], shown["probabilities"])
        column.plotly_chart(bars, key=label)
    before, after = (visible(str(row["tokens"][0])) for row in rows)
    same = "the same first token" if before == after else "another first token"
    st.markdown(plain(
        f"Held at {c:.1f}, the model begins with “{after}” ({rows[1]['probabilities'][0]:.2g}), "
        f"as it is with “{before}” ({rows[0]['probabilities'][0]:.2g}): {same}."
    ))  # fmt: skip
    _offered(run, name, context, query, c, rows)


def _value(direction: Directions) -> float:
    """The slider. It opens at prior knowledge: behind a context, models believe the context."""
    row = direction.index.iloc[0]
    told, known = float(row["context_c"]), float(row["prior_c"])
    low, high = sorted((told, known))
    margin = max((high - low) / 2, 1.0)
    st.caption(plain(
        f"At {direction.site}. Validation items chose c = {told:.1f} for the context and "
        f"{known:.1f} for prior knowledge. The slider opens at prior knowledge."
    ))  # fmt: skip
    ends = round(low - margin, 1), round(high + margin, 1)
    place = bound(f"c {direction.names[0]}", round(known, 1))
    st.session_state[place] = min(max(float(st.session_state[place]), ends[0]), ends[1])
    return float(st.slider("c, the value of u·h", *ends, step=0.1, key=place, format="%.1f"))


def _answers(
    run: Run, direction: Directions, context: str, query: str, c: float
) -> list[dict[str, Any]]:
    """What the model says as it is and at c, from the pool's one copy."""
    from interp.directions.sources import content
    from interp.knob.items import Item
    from interp.knob.steer_prompt import steering_curve

    if not query.strip():
        raise UserError("the question is empty: type some text")
    model, template = str(run.config["model"]), run.config["template"]

    def asked(value: float | None) -> dict[str, Any]:
        item = Item("own", "own", context, query, "", "")
        with pool.borrowed(model, adapter=_adapter(run)) as subject, st.spinner("running …"):
            return steering_curve(subject, item, direction, [value], template=template)[0]

    own = ("knob", pool.content(model, adapter=_adapter(run)), template, context, query)
    plain_row = remembered(own, lambda: asked(None))
    along = (content(knob_folder(run)), direction.names[0], c)
    return [plain_row, remembered((*own, *along), lambda: asked(c))]


def knob_folder(run: Run) -> str:
    return str(run.path / "knob")


def _adapter(run: Run) -> str:
    """The adapter that the run made, or used."""
    own = "adapter/adapter_config.json" in run.files
    return str(run.path / "adapter") if own else str(run.config.get("adapter", "none"))


def _offered(
    run: Run, name: str, context: str, query: str, c: float, rows: list[dict[str, Any]]
) -> None:
    model, template, adapter = run.config["model"], run.config["template"], _adapter(run)
    folder = "shipped" if is_shipped(run) else knob_folder(run)
    command = ["interp", "knob", "steer", "--adapter", adapter, "--context", context]
    command += ["--knob", folder, "--query", query, "--value", exact(c)]
    command += ["--direction", name, "--model", model, "--template", template]
    command += store_words(Store().root)
    call = (
        "from interp.knob.adapter import open_tuned\nfrom interp.knob.items import Item\n"
        "from interp.knob.steer_prompt import pick_direction, read_knob, steering_curve\n"
        f"direction = pick_direction(read_knob({folder!r}), {name!r})\n"
        f"item = Item('own', 'own', {context!r}, {query!r}, '', '')\n"
        f"subject = open_tuned({model!r}, {adapter!r})\n"
        f"rows = steering_curve(subject, item, direction, [None, {c!r}], template={template!r})"
    )
    offer(pd.DataFrame(rows), "answers", command, call)
