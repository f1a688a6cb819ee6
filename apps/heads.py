"""The page on heads: activation patching of two prompts, one head, and every head of a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from interp.apps import pool
from interp.apps.address import bound
from interp.apps.carry import carry_on
from interp.apps.columns import shown_table
from interp.apps.common import errors_in_place, in_tabs, table
from interp.apps.offering import offer_run
from interp.apps.picking import pick_run
from interp.apps.shown import charts
from interp.apps.words import called, listed, plain
from interp.circuits import figures_heads as figures
from interp.circuits.heads import HeadConfig
from interp.circuits.patching import PatchConfig, said_position
from interp.circuits.roles import RolesConfig
from interp.lens.fit import FitConfig
from interp.model.catalog import DEFAULT_MODEL
from interp.model.vocabulary import visible
from interp.runs.store import Run, Store

SITES = ["resid_pre", "resid_mid", "attn_out", "mlp_out", "head_z"]


@errors_in_place()
def page() -> None:
    st.title("Heads and patching")
    st.caption(
        "Where a difference between two prompts travels through the model, what one attention head "
        "looks at and moves, and which heads look where."
    )
    in_tabs({"Patching": _patching, "A head": _head, "Every head": _heads})


def _made(config: Any, pressed: bool, **changes: Any) -> Run | None:
    """The run of what a form asks for, made if it is not stored."""
    if not pressed:
        return None
    with errors_in_place(), st.spinner("running …"):
        return pool.run(replace(config, **changes))
    return None


def _patching() -> None:
    usual = PatchConfig()
    with st.expander("Patch another pair"), st.form("patch", border=False):
        prompt = st.text_input("Prompt", usual.prompt)
        counterfactual = st.text_input("Counterfactual, of as many tokens", usual.counterfactual)
        left, right = st.columns(2)
        target = left.text_input("Target token, with its space", usual.target)
        against = right.text_input("Less the token (else the mean of all)", usual.against)
        left, right = st.columns(2)
        site = left.selectbox("Patch", SITES)
        into = right.selectbox("Into the", ["prompt", "counterfactual"])
        left, right = st.columns(2)
        at = left.text_input("Positions: each, all or a number", placeholder="each; of heads all")
        model = right.text_input("Model", DEFAULT_MODEL)
        pressed = st.form_submit_button("Patch")
    asked = {"prompt": prompt, "counterfactual": counterfactual, "target": target}
    more = {"against": against, "site": site, "into": into, "model": model.strip()}
    made = _made(usual, pressed, **asked, **more, at=at.strip())
    _patched(made or pick_run(PatchConfig.STUDY, "Patching", "patch"))


def _patched(run: Run) -> None:
    config, metrics, cells = run.config, run.metrics, table(run, "cells")
    prompt, counterfactual = run.manifest["prompts"]
    st.caption(
        f"{plain(config['model'])}: {plain(config['site'])} of the other prompt, patched into the "
        f"{plain(config['into'])}. The target, {plain(metrics['target'])}, is "
        f"{metrics['prompt']:.2f} after the prompt “{plain(prompt)}” and "
        f"{metrics['counterfactual']:.2f} after the counterfactual “{plain(counterfactual)}”."
    )
    position, shown = None, cells
    places = sorted(set(cells["position"]))
    if (cells["head"] >= 0).any() and len(places) > 1:
        kept = bound("position", places[-1], places)
        position = st.select_slider("Position", places, key=kept)
        shown = cells[cells["position"] == position]
    charts("patched", figures.patched(cells, position))
    order = shown["moved"].abs().sort_values(ascending=False).index
    unsaid = set() if (cells["head"] >= 0).any() else {"head"}
    if not shown["token"].astype(bool).any():  # patched at all positions at once: at no token
        unsaid |= {"token", "other"}
    names = [name for name in cells if name not in unsaid]
    most = shown.loc[order, names].head(20)
    most = most.assign(position=most["position"].map(said_position))
    shown_table(most, "places", run.study)
    drawn = "from interp.circuits import figures_heads\n"
    drawn += f"figures_heads.patched(run.table('cells'), {position})"
    offer_run(cells, "patched", run, drawn)


def _head() -> None:
    usual = HeadConfig()
    fits = {str(run.path): run for run in Store().runs(FitConfig.STUDY)}
    with st.expander("Show another head"), st.form("head", border=False):
        prompt = st.text_input("Prompt", usual.prompt)
        left, right = st.columns(2)
        head = left.text_input("Head", usual.head, help="Layer and number, such as 5.3.")
        model = right.text_input("Model", DEFAULT_MODEL)
        left, right = st.columns(2)
        target = left.text_input("Target token, if any", placeholder=" are")
        against = right.text_input("Less the token (else the mean of all)", placeholder=" is")
        lens = st.selectbox("Lens", ["raw", "final", *fits], format_func=listed)
        pressed = st.form_submit_button("Show")
    asked = {"prompt": prompt, "head": head, "target": target, "against": against}
    made = _made(usual, pressed, **asked, lens=lens, model=model.strip())
    _shown(made or pick_run(HeadConfig.STUDY, "A head", "head"))


def _shown(run: Run) -> None:
    cells, sources = table(run, "pattern"), table(run, "sources")
    config, metrics = run.config, run.metrics
    st.caption(
        f"{plain(config['model'])}, head {plain(config['head'])}, lens {plain(config['lens'])}. "
        f"The terms of its layer add up to attn_out within {metrics['error of the sum']:.1e}."
    )
    if "direct" in metrics:
        st.caption(
            f"It moves the target by {metrics['direct']:.3f} directly, and by "
            f"{metrics['total']:.3f} with all that later layers make of it."
        )
    names = {figures.SHADES[s]: s for s in figures.SHADES if cells[s].notna().any()}
    place = bound("colour", next(iter(names)), names)
    said = st.radio("Colour by", list(names), key=place, format_func=plain, horizontal=True)
    charts("pattern", figures.pattern(cells, names[said]))
    tokens = dict(zip(sources["position"], sources["token"], strict=True))
    labels = {at: f"{at} {visible(token)}" for at, token in tokens.items()}
    kept = bound("query", int(max(tokens)), tokens)
    query = st.selectbox("What it gives to", list(tokens), key=kept, format_func=called(labels))
    seen = cells[cells["query"] == query].merge(
        sources[["position", "top", "bottom"]], left_on="key", right_on="position"
    )
    columns = ["key", "key_token", "weight", "length", "direct", "total", "top", "bottom"]
    given = seen[columns].dropna(axis=1).sort_values("weight", ascending=False)
    shown_table(given, "given", run.study)
    _circuit(run)
    drawn = "from interp.circuits import figures_heads\n"
    drawn += f"figures_heads.pattern(run.table('pattern'), {names[said]!r})"
    offer_run(cells, "pattern", run, drawn)


def _circuit(run: Run) -> None:
    """What its OV circuit does to single tokens, and its singular vectors."""
    with st.expander("What it copies: W_U OV on the prompt's tokens"):
        copies = table(run, "copies")
        shown_table(copies[copies["given"]].drop(columns="given"), "copies", run.study)
        for name, share in run.metrics.items():
            if name.startswith("share that"):
                st.caption(
                    f"{plain(name)}: {share:.1%} of {plain((~copies['given']).sum())} tokens"
                )
    with st.expander("What it reads and writes: singular vectors of OV"):
        vectors = table(run, "vectors")
        shown_table(vectors, "vectors", run.study)
        st.caption("Those that it writes are directions; carry one on:")
        with st.container(horizontal=True):
            for number in range(len(vectors)):
                source = f"run:{run.manifest['key']}/directions:{number}"
                carry_on(source, str(run.config["model"]), f"vector {number}")


def _heads() -> None:
    with st.expander("Score another model"), st.form("heads", border=False):
        model = st.text_input("Model", DEFAULT_MODEL)
        pressed = st.form_submit_button("Score its heads")
    made = _made(RolesConfig(), pressed, model=model.strip())
    run = made or pick_run(RolesConfig.STUDY, "Every head", "heads")
    heads, metrics = table(run, "heads"), run.metrics
    st.caption(
        f"{plain(run.config['model'])} on {run.config['length']:,} random tokens said twice: a "
        f"token costs {metrics['loss of the first copy, nats']:.2f} nats in the first copy and "
        f"{metrics['loss of the second copy, nats']:.2f} in the second."
    )
    scores = [name for name in heads.columns if name not in ("layer", "head")]
    place = bound("score", "induction", scores)
    score = st.radio("Score", scores, key=place, format_func=plain, horizontal=True)
    charts("roles", figures.roles(heads, score))
    shown_table(heads.sort_values(score, ascending=False).head(20), "heads", run.study)
    drawn = "from interp.circuits import figures_heads\n"
    drawn += f"figures_heads.roles(run.table('heads'), {score!r})"
    offer_run(heads, "heads", run, drawn)
