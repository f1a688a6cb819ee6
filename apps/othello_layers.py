"""The OthelloGPT comparison's page: curves by layer, findings, the board edit, the latents."""

from __future__ import annotations

import shlex

import numpy as np
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
from interp.othello import compare, edit, figures, findings
from interp.othello.board_labels import STATES, TILES
from interp.runs.store import Run, Store


def _scores(run: Run) -> pd.DataFrame:
    return compare.scores(run.path)


def _map(run: Run, arch: str, layer: int, seed: int, what: str) -> np.ndarray:
    from interp.othello.read_board import latent_map  # which imports torch

    return latent_map(run, arch, layer, seed, what)


scores, maps = cached(_scores), cached(_map)


def page() -> None:
    st.title("Probes against SAEs, layer by layer")
    run = pick_run("othello.compare", "interp othello compare")
    boards = run.manifest["boards"]
    st.caption(
        f"Scores are of {boards['score']:,} boards of held-out games. Probes are fitted and "
        f"latents chosen on {boards['choose']:,} other boards. Each kind of autoencoder has "
        f"{len(run.manifest['seeds'])} seeds."
    )
    layers, tiles, latents, edits = st.tabs(["Layers", "Tiles", "Latents", "Board edit"])
    with layers, errors_in_place():
        _layers(run)
    with tiles, errors_in_place():
        _tiles(run)
    with latents, errors_in_place():
        _latents(run)
    with edits, errors_in_place():
        _edits(run)


def _layers(run: Run) -> None:
    rows = findings.table(scores(run))
    st.plotly_chart(figures.othello_layers(rows), width="stretch", key="layers")
    for sentence in findings.sentences(scores(run), run.metrics):
        st.markdown(f"- {plain(sentence)}")
    st.dataframe(rows, hide_index=True, width="stretch")
    download(rows, "layers")
    command = ["interp", "othello", "compare"]
    command, call = study_call(command, run.config, compare.CompareConfig())
    shown = (
        "from interp.othello import compare, figures, findings\n"
        "figures.othello_layers(findings.table(compare.scores(run.path)))"
    )
    reproduce(command, call + shown)


def _choose(run: Run, key: str) -> tuple[str, int, int]:
    left, middle, right = st.columns(3)
    arch = left.selectbox("Autoencoder", ["topk", "l1"], key=f"{key} arch")
    layers = sorted(scores(run)["layer"].unique())
    layer = middle.selectbox("Layer", layers, len(layers) // 2, key=f"{key} layer")
    seed = right.selectbox("Seed", run.manifest["seeds"], key=f"{key} seed")
    return str(arch), int(layer), int(seed)


def _tiles(run: Run) -> None:
    arch, layer, seed = _choose(run, "tiles")
    rows = table(run, f"latents/L{layer}")
    mine = rows[(rows["reader"] == arch) & (rows["seed"] == seed)]
    for what in ("auroc", "f1"):
        grids = {kind: _grid(mine[mine["kind"] == kind], what) for kind in (*STATES, "sound")}
        title = f"{what.upper()} of the best latent for each tile, held-out games"
        st.plotly_chart(figures.tile_maps(grids, title), width="stretch", key=f"tiles {what}")
    st.dataframe(mine, hide_index=True, width="stretch")
    download(mine, f"latents {arch} L{layer} S{seed}")


def _grid(rows: pd.DataFrame, what: str) -> np.ndarray:
    values = np.full(64, np.nan)
    values[rows["tile"]] = rows[what]
    return values


def _latents(run: Run) -> None:
    """Which labels of the board one latent detects."""
    arch, layer, seed = _choose(run, "latents")
    f1 = maps(run, arch, layer, seed, "f1")
    strength = f1[:, :192].max(1)
    ranked = np.argsort(-strength, kind="stable")
    left, right = st.columns([1, 3])
    latent = int(left.number_input("Latent", 0, len(f1) - 1, int(ranked[0])))
    order = np.argsort(-f1[latent, :192], kind="stable")[:5]
    labels = [f"{_label(c)} ({f1[latent, c]:.2f})" for c in order]
    right.markdown(plain(f"Detects best (F1): {', '.join(labels)}"))
    for what in ("f1", "auroc"):
        values = maps(run, arch, layer, seed, what)[latent]
        kinds = {kind: values[64 * k : 64 * k + 64] for k, kind in enumerate(STATES)}
        kinds["sound"] = values[256:]
        title = f"{what.upper()} of latent {latent} for every tile, choosing games"
        st.plotly_chart(figures.tile_maps(kinds, title), width="stretch", key=f"latent {what}")
    listed = pd.DataFrame(
        [(j, _label(c), f1[j, c]) for j in ranked[:200] for c in [int(f1[j, :192].argmax())]],
        columns=["latent", "label", "F1"],
    )
    st.dataframe(listed, hide_index=True, width="stretch", height=300)
    download(listed, f"latents {arch} L{layer} S{seed} best")


def _label(column: int) -> str:
    return f"{STATES[column // 64]} {TILES[column % 64]}"


def _edits(compared: Run) -> None:
    """The newest run of `othello.edit` with the directions of this comparison."""
    key, usual = compared.manifest["key"], edit.EditConfig()
    runs = [r for r in Store().runs("othello.edit") if r.manifest["fingerprints"]["compare"] == key]
    config = {**(runs[0].config if runs else {}), "compare": str(compared.path)}
    command, call = study_call(["interp", "othello", "edit"], config, usual)
    if not runs:
        st.info("There is no board edit with this comparison's directions yet. Make one:")
        st.code(shlex.join(command), language="bash")
        return
    run = runs[0]
    rows = table(run, "errors/table")
    figure = figures.edit_errors(rows, run.manifest["layers"])
    st.plotly_chart(figure, width="stretch", key="edits")
    st.caption("Dashed: without an edit. Dotted: the unedited model against the board as it is.")
    chosen = edit.chosen_scales(rows)
    st.dataframe(chosen, hide_index=True, width="stretch")
    download(chosen, "edits")
    shown = (
        "from interp.othello.edit import chosen_scales\nchosen_scales(run.table('errors/table'))"
    )
    reproduce(command, call + shown)
