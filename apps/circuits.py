"""The circuits page: trace a prompt, see its graph, a node's card, groups, and files to take."""

from __future__ import annotations

import json
from typing import NoReturn

import pandas as pd
import streamlit as st

from interp.apps.address import bound, go
from interp.apps.circuits_node import node_card
from interp.apps.circuits_trace import traced
from interp.apps.columns import shown_table
from interp.apps.common import errors_in_place, in_tabs, table
from interp.apps.offering import code, offer_run
from interp.apps.picking import pick_run
from interp.apps.shown import charts, clickable
from interp.apps.words import plain
from interp.circuits import export, figures, html
from interp.circuits.groups import GroupConfig
from interp.circuits.picked import GROUP, TRACE, By, Graph, opened, words
from interp.errors import UserError
from interp.model.vocabulary import visible
from interp.plain_text import printable
from interp.runs.store import Run
from interp.runs.study import run_or_load

SHOWS = {"Traced": (TRACE, "run"), "Grouped": (GROUP, "grouped")}
"""What can be shown: the study, and the URL's parameter for its run."""


@errors_in_place()
def page() -> None:
    st.title("Circuits")
    st.caption(
        "Which neurons, heads and tokens made the model say this: with every decision frozen, the "
        "network is a sum over paths, and the graph shows the parts that carry most of it."
    )
    asked = "prompt" in st.query_params and "run" not in st.query_params
    with st.expander("Trace a prompt", expanded=asked), errors_in_place():
        if made := traced():
            _show(made, "Traced")
    first = "Grouped" if "grouped" in st.query_params else "Traced"
    shown = st.segmented_control(
        "Circuits",
        list(SHOWS),
        format_func=plain,
        key=bound("shown", first, list(SHOWS)),
        required=True,
    )
    study, parameter = SHOWS[shown or "Traced"]
    run = pick_run(study, "Circuit", parameter)
    graph = opened(run)
    _head(run, graph)
    in_tabs({"Graph": _graph, "Layers": _layers, "Groups": _groups, "Take away": _take}, run, graph)


def _show(run: Run, what: str) -> NoReturn:
    """Run the page again, with a run that was made."""
    go(**{SHOWS[what][1]: run.path.name, "shown": what, "view": "Graph"})


def _head(run: Run, graph: Graph) -> None:
    """What is traced, and how well the parts add up to it."""
    about, metrics = graph.about, run.metrics
    st.caption(
        plain(
            f"{about.get('model', '')}: {graph.said}; rule {about.get('rule', '')}, "
            f"lens {about.get('lens', '')}. "
            f"{len(graph.parts):,} nodes and {len(graph.edges):,} edges are kept, with "
            f"{metrics['share']:.0%} of the absolute {graph.by} of all nodes. Each layer's cut "
            f"adds up to the target within {metrics['largest error of a cut']:.2g}."
        )
    )


def _graph(run: Run, graph: Graph) -> None:
    by: By = "attribution"
    if graph.has_effects:
        ways = ["effect", "attribution"]
        asked = st.segmented_control(
            "Nodes by",
            ways,
            key=bound("by", "effect", ways),
            format_func=plain,
            required=True,
        )
        by = "attribution" if asked == "attribution" else "effect"
    left, right = st.columns(2)
    share = left.slider(
        f"Nodes: share of the absolute {plain(by)}",
        *(0, 100),
        step=5,
        format="%d %%",
        key=bound("nodes", 80, range(0, 101, 5)),
    )
    of_edges = "effect" if by == "effect" else "weight"
    edges = right.slider(
        f"Edges: share of the absolute {plain(of_edges)}",
        *(0, 100),
        step=5,
        format="%d %%",
        key=bound("edges", 40, range(0, 101, 5)),
    )
    order = graph.parts[by].abs().sort_values(ascending=False).index
    names = [graph.nodes["label"][n] for n in order] + ["target", "remainder"]
    key = bound("node", names[0], names)

    def pressed(node: int) -> None:
        st.session_state[key] = str(graph.nodes["label"][int(node)])

    picture, about = st.columns([3, 2])
    with picture:
        drawn = figures.graph_figure(graph, share / 100, edges / 100, by)
        clickable("circuit", drawn, pressed)
    with about:
        chosen = st.selectbox(
            "Node", names, key=key, format_func=printable, help="Or click one in the picture."
        )
        node_card(graph, graph.number(chosen), by)
    rows = _listed(graph.nodes.loc[order])
    shown_table(rows, "nodes", run.study)
    offer_run(rows, f"circuit {run.path.name}", run, _drawn("graph"))


def _listed(nodes: pd.DataFrame) -> pd.DataFrame:
    """Nodes as a table that can be read."""
    made = nodes[["label", "kind", "token", "attribution", "activation", "effect"]].copy()
    made["token"] = made["token"].map(visible)
    for side in ("top", "bottom"):
        made[side] = [
            [visible(token) for token in words(row, side)] for row in nodes.to_dict("records")
        ]
    return made.dropna(axis=1, how="all")


def _layers(run: Run, graph: Graph) -> None:
    charts("layers", figures.by_layer(table(run, "totals")))
    charts("largest", figures.largest(graph, by=graph.by))
    charts("cuts", figures.cut_errors(table(run, "cuts")))
    shown_table(table(run, "totals"), "totals", run.study)
    offer_run(table(run, "totals"), f"circuit {run.path.name} layers", run, _drawn("layers"))


def _drawn(name: str) -> str:
    """The notebook call that draws a figure of the run."""
    return f"from interp.circuits import pictures\npictures.of_run(run)[{name!r}]()"


def _groups(run: Run, graph: Graph) -> None:
    """Merge nodes under a name: a run of its own, which shows here as any other."""
    st.caption(
        "A group's attribution is the sum of its members'. What flows from one of them to another "
        "is inside it, and its edges are those to the rest."
    )
    if (graph.nodes["kind"] == "group").any():
        groups = graph.nodes[graph.nodes["kind"] == "group"]
        shown_table(groups[["name", graph.by, "inside", "members"]], "groups", GROUP)
    order = graph.parts[graph.by].abs().sort_values(ascending=False).index
    with st.form("group", border=False, clear_on_submit=False):
        name = st.text_input("Name of the group", placeholder="plural")
        labels = [str(graph.nodes["label"][n]) for n in order]
        members = st.multiselect("Nodes", labels, format_func=printable)
        pressed = st.form_submit_button("Merge")
    if pressed:
        if not name.strip() or not members:
            raise UserError("give the group a name and at least one node")
        made = GroupConfig((f"{name.strip()}={','.join(members)}",), circuit=str(run.path))
        _show(run_or_load(made), "Grouped")


def _take(run: Run, graph: Graph) -> None:
    """Files: what the pages of others read, one that stands alone, and the tables."""
    name = f"circuit-{run.path.name}"
    left, middle, right = st.columns(3)
    left.download_button(
        "Download HTML", lambda: html.page(graph), f"{name}.html", "text/html", on_click="ignore"
    )
    middle.download_button(
        "Download JSON",
        lambda: json.dumps(export.as_json(graph, name)),
        f"{name}.json",
        "application/json",
        on_click="ignore",
        help="For circuit-tracer's front end and Neuronpedia.",
    )
    right.download_button(
        "Download edges as CSV",
        lambda: graph.edges.to_csv(index=False),
        f"{name}-edges.csv",
        "text/csv",
        on_click="ignore",
    )
    for kind in ("html", "json"):
        code(["interp", "circuits", "export", str(run.path), f"{name}.{kind}"])
