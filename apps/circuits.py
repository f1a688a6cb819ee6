"""The circuits page: trace a prompt, see its graph, a node's card, groups, and files to take."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NoReturn

import pandas as pd
import streamlit as st

from interp.apps import pool
from interp.apps.address import bound, go
from interp.apps.carry import carry_on
from interp.apps.columns import shown_table
from interp.apps.common import errors_in_place, in_tabs, link, table
from interp.apps.offering import code, offer_run
from interp.apps.picking import chosen_model, pick_run
from interp.apps.shown import charts, clickable
from interp.apps.words import placed, plain
from interp.circuits import export, figures, html
from interp.circuits.groups import GroupConfig
from interp.circuits.picked import (
    GROUP,
    NUMBERS,
    TRACE,
    By,
    Graph,
    card,
    flowing,
    opened,
    place,
    words,
)
from interp.columns import column
from interp.errors import UserError
from interp.model.neuron import clamp_site, parse_neuron
from interp.model.vocabulary import visible
from interp.plain_text import printable
from interp.runs.command import store_words
from interp.runs.store import Run, Store
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
        _asked()
    first = "Grouped" if "grouped" in st.query_params else "Traced"
    shown = st.segmented_control(
        "Circuits",
        list(SHOWS),
        format_func=plain,
        key=bound("shown", first, list(SHOWS)),
        required=True,
    )
    run = pick_run(*_in_order(*SHOWS[shown or "Traced"]))
    graph = opened(run)
    _head(run, graph)
    in_tabs({"Graph": _graph, "Layers": _layers, "Groups": _groups, "Take away": _take}, run, graph)


def _in_order(study: str, parameter: str) -> tuple[str, str, str]:
    """The arguments of `pick_run`."""
    return study, "Circuit", parameter


def _asked() -> None:
    """The form; the run that it makes is shown from then on."""
    lenses = _lenses()
    with st.form("ask", border=False):
        prompt = st.text_input(
            "Prompt", key=bound("prompt", ""), placeholder="The keys to the cabinet"
        )
        left, right = st.columns(2)
        target = left.text_input(
            "Target",
            key=bound("target", ""),
            placeholder=" are",
            help="With its space. Empty: the likeliest next token.",
        )
        against = right.text_input(
            "Against (may be empty)", key=bound("against", ""), placeholder=" is"
        )
        other = st.text_input(
            "Counterfactual prompt (may be empty)",
            placeholder="The key to the cabinet",
            help="Of as many tokens. Each node then has an effect too: what the target loses if "
            "it alone is taken from there.",
        )
        left, middle, right = st.columns(3)
        usual = chosen_model()
        model = left.text_input("Model", usual, key=f"trace model {usual}")
        rule = middle.selectbox("Rule", ["half", "gate"], help="How a gated product is shared out.")
        lens = right.selectbox("Lens of the tokens", lenses, format_func=placed)
        pressed = st.form_submit_button("Trace")
    if not pressed:
        return
    if not prompt:
        raise UserError("the prompt is empty: give one, such as 'The keys to the cabinet'")
    if lens not in lenses:  # a browser can send any text
        raise UserError(f"'{lens}' is no lens of a stored run: choose one of the list")
    from interp.circuits.trace import TraceConfig  # now: it imports torch

    asked = TraceConfig(
        model.strip(),
        prompt=prompt,
        target=target,
        against=against,
        counterfactual=other,
        rule="gate" if rule == "gate" else "half",
        lens=lens,
    )
    with st.spinner("tracing …"):
        run = pool.run(asked)
    _show(run, "Traced")


def _lenses() -> list[str]:
    """Those by name, and the stored fits."""
    fits = [run for kind in ("fit", "tune") for run in Store().looked_through(f"lens.{kind}")[0]]
    return ["raw", "final", "tuned", "jacobian", *(str(run.path) for run in fits)]


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
        _card(graph, graph.number(chosen), by)
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


def _card(graph: Graph, node: int, by: By) -> None:
    """One node: numbers, tokens, edges, and where to go on from it."""
    shown = card(graph, node, by)
    row = shown.node
    st.subheader(plain(row["label"]))
    st.caption(plain(place(row, graph.tokens)))
    numbers = {name: row[name] for name in NUMBERS if name in row and row[name] == row[name]}
    with st.container(horizontal=True):
        for name, value in numbers.items():
            known = "attention" if (row["kind"], name) == ("head", "activation") else name
            about = column(known, TRACE)
            st.metric(plain(about.words), f"{value:.3g}", width="content", help=plain(about.help))
    for side, said in (("top", "Writes"), ("bottom", "Against")):
        if tokens := words(row, side):
            st.caption(plain(said))
            st.text("  ".join(printable(visible(token)) for token in tokens))
    if len(members := list(row.get("members", []))):
        st.caption("Members")
        st.text("  ".join(printable(str(each)) for each in members))
    for name, ends in (("Edges in", shown.incoming), ("Edges out", shown.outgoing)):
        together = f", {flowing(ends, by).sum():+.4g} together" if len(ends) else ""
        st.caption(plain(f"{name}: {len(ends)}{together}"))
        shown_table(ends, f"{name} {node}", TRACE)
    if row["kind"] == "neuron":
        _neuron(graph, str(row["name"]))


def _neuron(graph: Graph, name: str) -> None:
    """A neuron on the pages of its model, and the command that clamps it."""
    about = graph.about
    try:
        neuron = parse_neuron(name)
        clamp_site(neuron)
    except UserError as error:
        st.caption(plain(error))
        return
    store = Store()
    atlas = _first(store, "neurons.atlas", lambda run: _same_model(run, graph))
    clamped = _first(
        store, "neurons.clamp", lambda run: _same_model(run, graph) and run.config["neuron"] == name
    )
    with st.container(horizontal=True):
        if atlas:
            link("atlas", "In the neuron atlas", run=atlas.path.name, neuron=name)
        if clamped:
            link("clamp", "Clamped", run=clamped.path.name)
        carry_on(name, str(about["model"]), "node")
    where = store_words(store.root)
    if not atlas:
        st.caption("There is no atlas of this model yet:")
        code(["interp", "neurons", "atlas", "--model", str(about["model"]), *where])
    if not clamped:
        st.caption("Hold it at a sweep of values, for the page Clamp:")
        prompt, word = str(about["prompt"]), str(about.get("target", "")).strip()
        held = [f"--neuron={name}", f"--prompt={prompt}", "--no-chat"]
        held += [f"--word={word}"] if word else []
        code(["interp", "neurons", "clamp", *held, "--model", str(about["model"]), *where])


def _first(store: Store, study: str, fits: Callable[[Run], bool]) -> Run | None:
    return next((run for run in store.looked_through(study)[0] if fits(run)), None)


def _same_model(run: Run, graph: Graph) -> bool:
    return bool(graph.model_print) and (
        run.manifest.get("fingerprints", {}).get("model") == graph.model_print
    )


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
