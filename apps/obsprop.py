"""The observable propagation page: heads, paths, features on text, probes, and coupling."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from interp.apps import pool
from interp.apps.address import bound
from interp.apps.answers import remembered
from interp.apps.carry import carry_on
from interp.apps.columns import shown_table
from interp.apps.common import errors_in_place, in_tabs, table
from interp.apps.offering import download, offer, offer_run
from interp.apps.picking import chosen_model, pick_run
from interp.apps.shown import charts
from interp.apps.words import listed, plain
from interp.directions.figures import coloured_tokens
from interp.errors import UserError
from interp.model.vocabulary import visible
from interp.obsprop import figures
from interp.runs.store import Run

CHECKS = {
    "checks/ablation": "The feature taken out where it is read. kept: the share of the gap between "
    "the classes that is left.",
    "checks/steering": "The feature added where it is read. Strength 1 is the gap of the classes.",
    "writers/neurons": "The neurons that write most along the feature.",
}
KINDS = {"all": "all pairs", "alike": "those with a cosine above ½"}


def _norms(model: str, words: list[tuple[str, ...]]) -> tuple[pd.DataFrame, list[str]]:
    from interp.obsprop.observables import contrast, make_observable
    from interp.obsprop.propagate import head_norms

    def asked() -> tuple[pd.DataFrame, list[str]]:
        with pool.stacked_weights(model) as weights:
            observable = make_observable("typed", contrast(*words), weights.stored)
            return head_norms(weights, observable), list(observable.notes)

    return remembered(("head norms", pool.content(model), *words), asked)


@errors_in_place()
def page() -> None:
    st.title("Observable propagation")
    in_tabs({"An observable": _stored, "Type one": _typed, "Coupling": _coupled})


def _stored() -> None:
    run = pick_run("obsprop.run", "An observable")
    facts = run.manifest
    pair = " against ".join(f"“{text}”" for text in facts["pair"])
    about = f"{run.config['model']}, {run.config['observable']}: {facts['about']}"
    st.caption(plain(f"{about} From {pair}."))
    for note in facts["notes"]:
        st.warning(plain(note))
    _heads(run)
    _paths(run)
    st.subheader(f"The feature of {plain(facts['best'])} on text")
    st.caption(
        "Blue pushes the observable up, orange down; hover for the score. A surprise would be a "
        "strong colour on a word that has nothing to do with the task."
    )
    st.html(coloured_tokens(table(run, "texts/tokens")))
    _carried(run)
    with st.expander("Does the model use the feature?"):
        for name, caption in CHECKS.items():
            if run.has(name):
                st.caption(plain(caption))
                shown_table(table(run, name), name, run.study)
    _methods(run)


FEATURES = 6
"""Of a site that have a menu of their own."""


def _carried(run: Run) -> None:
    """The features of the paths, to carry on with."""
    folders = [name.removesuffix("/directions.json") for name in run.files]
    folders = [name for name in folders if f"{name}/directions.json" in run.files]
    st.caption("The features of the paths, to carry on with:")
    with st.container(horizontal=True):
        for folder in folders:
            for row, name in enumerate(table(run, f"{folder}/index")["name"].head(FEATURES)):
                source = f"run:{run.manifest['key']}/{folder}:{row}"
                carry_on(source, str(run.config["model"]), source, str(name))


def _heads(run: Run) -> None:
    heads = table(run, "heads/heads")
    kinds = {
        "Length of the vector, from the weights alone": "norm",
        "Length with the final norm": "norm_frozen",
        "Direct effect, prompt minus counterfactual": "effect",
    }
    place = bound("heads", next(iter(kinds)), kinds)
    shown = st.segmented_control(
        "Every head", list(kinds), key=place, format_func=plain, required=True
    )
    if shown:
        charts("heads", figures.head_map(heads, kinds[shown], shown))


def _paths(run: Run) -> None:
    st.subheader("Paths")
    paths = table(run, "paths/paths")
    kept = bound("read", False)
    only = st.checkbox("Only paths that are read where the label can be read", key=kept)
    shown = paths[paths["read"]] if only else paths
    tokens = [" → ".join(map(visible, row)) for row in shown["tokens"]]
    columns = ["path", "effect", "error", "crossed", "site", "auc", "r2"]
    shown_table(shown.filter(columns).assign(runs=tokens), "paths", run.study)
    if len(shown):
        first = shown.iloc[0]
        st.markdown(plain(f"The strongest is {first['path']}: it carries {first['effect']:.3g}."))
    download(shown, "paths")


def _methods(run: Run) -> None:
    st.subheader("Against probes that learn from labels")
    methods = table(run, "scores/methods")
    names = [name for name in ("auc", "r2") if name in methods]
    charts("methods", *(figures.method_curves(methods, name) for name in names))
    examples = table(run, "scores/examples")
    if examples["observable"].notna().all():
        charts("scatter", figures.score_scatter(examples))
        if "template" in examples:  # version-2 runs lack it
            from interp.obsprop.evaluate import within_templates

            within = within_templates(examples)
            if within == within:  # templates with one example each say nothing
                st.caption(f"r² within a template: {within:.2f}.")
    offer_run(methods, "methods", run, "run.table('paths/paths')")


def _typed() -> None:
    st.caption("Which heads could move the observable? The weights alone say so; no text is run.")
    model = st.text_input("Model", key=bound("of", chosen_model()))
    left, right = st.columns(2)
    key = bound("plus", " she")
    plus = left.text_area("Words with weight +1, one a line; spaces count", key=key)
    minus = right.text_area("Words with weight −1", key=bound("minus", " he"))
    words = [tuple(word for word in text.split("\n") if word) for text in (plus, minus)]
    heads, notes = _norms(model, words)
    for note in notes:
        st.warning(plain(note))
    charts("typed", figures.head_map(heads, "norm", "Length of the vector"))
    shown_table(heads.head(10)[["name", "norm"]], "longest", "obsprop.run")
    command = ["interp", "obsprop", "heads", "--model", model, "--plus", *words[0]]
    call = (
        "from interp.obsprop.model_weights import StackedWeights\n"
        "from interp.obsprop.observables import contrast, make_observable\n"
        "from interp.obsprop.propagate import head_norms\n"
        "from interp.model.weights import open_weights\n"
        f"weights = open_weights({model!r})\n"
        f"words = contrast({words[0]!r}, {words[1]!r})\n"
        "head_norms(StackedWeights(weights), make_observable('typed', words, weights))"
    )
    offer(heads, "heads", [*command, *(["--minus", *words[1]] if words[1] else [])], call)


def _coupled() -> None:
    run = pick_run("obsprop.couple", "Coupling", "couple")
    pairs = table(run, "pairs/pairs")
    heads = list(dict.fromkeys(pairs["head"]))
    place = bound("head", heads[0] if heads else "", heads)
    head = str(st.selectbox("Head", heads, key=place, format_func=listed))
    if head not in heads:
        raise UserError(f"this run has no pair of head {head}")
    charts("matrix", figures.coupling_matrix(pairs, head))
    measured = ("prompts", "corpus")
    slopes = [figures.coupling_scatter(pairs, f"{where}_slope") for where in measured]
    for column, where in zip(charts("slopes", *slopes), measured, strict=True):
        column.caption(plain(_agreement(pairs, where)))
    shown_table(pairs, "pairs", run.study)
    offer_run(pairs, "coupling", run)


def _agreement(pairs: pd.DataFrame, where: str) -> str:
    from interp.obsprop.couple import agreement

    metrics = agreement(pairs)
    shares = {kind: metrics.get(f"r2 of slope = coupling, {where}, {kind}") for kind in KINDS}
    parts = [f"{r2:.2f} over {KINDS[kind]}" for kind, r2 in shares.items() if r2 is not None]
    return f"Measured on the {where}. r² of slope = coefficient: {', '.join(parts)}."
