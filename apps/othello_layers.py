"""The OthelloGPT comparison's page: curves by layer, findings, the board edit, the latents."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from interp.apps.address import bound
from interp.apps.columns import shown_table
from interp.apps.common import cached, errors_in_place, in_tabs, table
from interp.apps.offering import code, offer_run
from interp.apps.picking import pick_run
from interp.apps.shown import charts
from interp.apps.words import listed, plain
from interp.othello import edit, figures, findings
from interp.othello.board_labels import STATES, TILES
from interp.othello.compare import compared_kinds
from interp.runs.command import store_words
from interp.runs.store import Run, Store


@cached
def maps(run: Run, arch: str, layer: int, seed: int, what: str) -> np.ndarray:
    from interp.othello.read_board import latent_map  # which imports torch

    return latent_map(run, arch, layer, seed, what)


@errors_in_place()
def page() -> None:
    st.title("Probes against SAEs, layer by layer")
    run = pick_run("othello.compare")
    boards = run.manifest["boards"]
    st.caption(
        f"Scores are of {boards['score']:,} boards of held-out games. Probes are fitted and "
        f"latents chosen on {boards['choose']:,} other boards. Each kind of autoencoder has "
        f"{len(run.manifest['seeds']):,} seeds."
    )
    tabs = {"Layers": _layers, "Tiles": _tiles, "Latents": _latents, "Board edit": _edits}
    if not any(name.startswith("latents/") for name in run.files):
        tabs = {"Layers": _layers}
        st.caption("The tabs on tiles, latents and board edits need the latents too; make them:")
        code(["interp", "othello", "compare", *store_words(Store().root)])
    in_tabs(tabs, run)


def _layers(run: Run) -> None:
    rows = findings.table(table(run, "scores"))
    charts("layers", figures.othello_layers(rows))
    for sentence in findings.sentences(table(run, "scores"), run.metrics):
        st.markdown(f"- {plain(sentence)}")
    shown_table(rows, "scores", run.study)
    call = (
        "from interp.othello import compare, figures, findings\n"
        "figures.othello_layers(findings.table(run.table('scores')))"
    )
    offer_run(rows, "layers", run, call)


def _choose(run: Run) -> tuple[str, int, int]:
    left, middle, right = st.columns(3)
    kinds, seeds = list(compared_kinds(run)), list(run.manifest["seeds"])
    layers = sorted(int(layer) for layer in table(run, "scores")["layer"].unique())
    place = bound("sae", kinds[0], kinds)
    arch = left.selectbox("Autoencoder", kinds, key=place, format_func=listed)
    place = bound("layer", layers[len(layers) // 2], layers)
    layer = middle.selectbox("Layer", layers, key=place, format_func=listed)
    place = bound("seed", seeds[0], seeds)
    seed = right.selectbox("Seed", seeds, key=place, format_func=listed)
    return str(arch), int(layer), int(seed)


def _tiles(run: Run) -> None:
    arch, layer, seed = _choose(run)
    rows = table(run, f"latents/L{layer}")
    mine = rows[(rows["reader"] == arch) & (rows["seed"] == seed)]
    for what in ("auroc", "f1"):
        wide = mine.pivot(index="tile", columns="kind", values=what).reindex(range(64))
        grids = {kind: wide[kind].to_numpy() for kind in (*STATES, "sound")}
        title = f"{what.upper()} of the best latent for each tile, held-out games"
        charts(f"tiles {what}", figures.tile_maps(grids, title))
    shown_table(mine, "best", run.study)
    offer_run(mine, f"latents {arch} L{layer} S{seed}", run, f"run.table('latents/L{layer}')")


def _latents(run: Run) -> None:
    """Which labels of the board one latent detects."""
    arch, layer, seed = _choose(run)
    f1 = maps(run, arch, layer, seed, "f1")
    ranked = np.argsort(-f1[:, :192].max(1), kind="stable")
    left, right = st.columns([1, 3])
    place = bound("latent", int(ranked[0]), range(len(f1)))
    latent = int(left.number_input("Latent", 0, len(f1) - 1, key=place))
    order = np.argsort(-f1[latent, :192], kind="stable")[:5]
    labels = [f"{_label(c)} ({f1[latent, c]:.2f})" for c in order]
    right.markdown(plain(f"Detects best (F1): {', '.join(labels)}"))
    for what in ("f1", "auroc"):
        values = maps(run, arch, layer, seed, what)[latent]
        kinds = {kind: values[64 * k : 64 * k + 64] for k, kind in enumerate(STATES)}
        kinds["sound"] = values[256:]
        title = f"{what.upper()} of latent {latent} for every tile, choosing games"
        charts(f"latent {what}", figures.tile_maps(kinds, title))
    best = f1[ranked[:200], :192]
    labels = [_label(c) for c in best.argmax(1)]
    best_known = pd.DataFrame({"latent": ranked[:200], "label": labels, "F1": best.max(1)})
    shown_table(best_known, "listed", run.study)
    call = f"latent_map(run, {arch!r}, {layer}, {seed}, 'f1')"
    call = f"from interp.othello.read_board import latent_map\n{call}"
    offer_run(best_known, f"latents {arch} L{layer} S{seed} best", run, call)


def _label(column: int) -> str:
    return f"{STATES[column // 64]} {TILES[column % 64]}"


def _edits(compared: Run) -> None:
    """The newest run of `othello.edit` with the directions of this comparison."""
    key = compared.manifest["key"]
    runs = [r for r in Store().runs("othello.edit") if r.manifest["fingerprints"]["compare"] == key]
    if not runs:
        st.info("There is no board edit with this comparison's directions yet. Make one:")
        command = ["interp", "othello", "edit", "--compare", str(compared.path)]
        code([*command, *store_words(Store().root)])
        return
    run = runs[0]
    rows = table(run, "errors/table")
    charts("edits", figures.edit_errors(rows, run.manifest["layers"]))
    chosen = edit.chosen_scales(rows)
    shown_table(chosen, "edits", run.study)
    call = "from interp.othello.edit import chosen_scales\nchosen_scales(run.table('errors/table'))"
    offer_run(chosen, "edits", run, call, compare=str(compared.path))
