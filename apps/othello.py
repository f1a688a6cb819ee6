"""The OthelloGPT page: a game on a board, in the model's mind, and edited there."""

from __future__ import annotations

from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from interp.apps.common import download, errors_in_place, pick_run, reproduce
from interp.model.subject import Subject, open_subject
from interp.othello import figures, mind
from interp.othello.board import N_PLIES
from interp.othello.compare import own_model
from interp.othello.facts import TILES
from interp.othello.games import random_games, squares
from interp.othello.position import Position, move_probabilities, position, written
from interp.othello.pushes import edited_legal
from interp.runs.store import Run
from interp.saes.sae import Sae

PLAYERS = {0: "black", 1: "white", -1: "nobody"}


class View(NamedTuple):
    """What is looked at."""

    layer: int
    arch: str
    seed: int


@st.cache_resource(show_spinner="opening OthelloGPT …", max_entries=2)
def opened(model: str) -> tuple[Subject, Lock]:
    """The model, and a lock: edits in scope belong to one page at a time."""
    return open_subject(model), Lock()


@st.cache_resource(show_spinner="opening the autoencoder …", max_entries=24)
def autoencoder(path: str, _run: Run, view: View) -> tuple[Sae, pd.DataFrame]:
    where = (view.arch, view.layer, view.seed)
    return mind.open_sae(_run, *where), mind.latent_rules(_run, *where)


def page() -> None:
    st.title("OthelloGPT")
    run = pick_run("othello.compare", "interp othello compare")
    with errors_in_place():
        subject, lock = opened(own_model(run))
        where, view = _position(), _view(run, subject)
        with lock:
            _boards(run, subject, where, view)
            _edited(run, subject, where, view)


def _position() -> Position:
    left, right = st.columns(2)
    game = left.number_input("Held-out game", 0, 100_000, 0, help="Number in a fixed stream.")
    tokens = random_games(1, 1_000_003, first=int(game), split="held_out")[0]
    played = int((tokens > 0).sum())
    ply = right.slider("Moves played", 1, min(played, N_PLIES - 1), min(20, played - 1))
    where = position(tokens[:ply])
    st.caption(
        f"{written(where.tokens)}. Next: {PLAYERS[where.mover]}. Dots: legal moves; rings: stable "
        "discs; numbers: probability of the move in the model, in per cent."
    )
    return where


def _view(run: Run, subject: Subject) -> View:
    layer = st.sidebar.slider("Layer", 0, subject.spec.n_layers - 1, subject.spec.n_layers - 2)
    arch = st.sidebar.selectbox("Autoencoder", ["topk", "l1"])
    seed = st.sidebar.selectbox("Seed", run.manifest["seeds"])
    return View(int(layer), str(arch), int(seed))


def _boards(run: Run, subject: Subject, where: Position, view: View) -> None:
    """The true board, the probe's and the latents', side by side."""
    label = st.sidebar.radio("Stable discs", ["sound", "paper"], horizontal=True)
    stable = where.sound if label == "sound" else where.paper
    chances = move_probabilities(subject, where.tokens)
    x = mind.residual(subject, where.tokens, view.layer)
    sae, rules = autoencoder(str(run.path), run, view)
    seen = {
        f"The probe's board, layer {view.layer}": mind.probe_board(run, view.layer, x),
        f"The {view.arch} latents' board": mind.latent_board(sae, rules, x),
    }
    columns = st.columns(3)
    true = figures.othello_board(where.absolute, "The board", chances, where.legal, stable)
    chosen = columns[0].plotly_chart(true, key="true", on_select="rerun", width="stretch")
    _remember(chosen, where)
    for column, (title, states) in zip(columns[1:], seen.items(), strict=True):
        wrong = states != where.relative
        titled = f"{title}: {int((~wrong).sum())} of 64 right"
        shown = figures.othello_board(mind.in_colours(states, where.mover), titled, wrong=wrong)
        column.plotly_chart(shown, key=title, width="stretch")
    st.caption("Framed tiles are read wrong; grey discs are claimed for both sides.")


def _remember(chosen: Any, where: Position) -> None:
    """A disc that was clicked becomes the one to turn."""
    names = [point.get("customdata") for point in chosen["selection"]["points"]]
    name = names[0][0] if names and isinstance(names[0], list) else (names or [None])[0]
    if name in TILES and where.absolute[TILES.index(name)] > 0:
        st.session_state["disc"] = name


def _edited(run: Run, subject: Subject, where: Position, view: View) -> None:
    """Turn one disc in the model's mind; the moves it expects before and after."""
    st.subheader("Turn a disc in the model's mind")
    discs = [TILES[s] for s in np.flatnonzero(where.absolute > 0)]
    if st.session_state.get("disc") not in discs:
        st.session_state["disc"] = discs[0]
    left, middle, right = st.columns(3)
    disc = left.selectbox("Disc (or click one on the board)", discs, key="disc")
    reader = middle.selectbox("Push along", ["probe", "means", "topk", "l1"])
    scale = right.slider("Length of the push at each layer but the last", 0.0, 20.0, 6.0, 0.5)
    tile = TILES.index(disc)
    layers = range(max(1, subject.spec.n_layers - 1))
    present = int(where.relative[tile])
    edits = mind.turn_disc(run, reader, view.seed, layers, tile, present, scale)
    turned = where.relative.copy()
    turned[tile] = 3 - present
    legal = squares(np.array(edited_legal(where.relative, tile), np.uint64))
    seen = mind.probe_board(
        run, view.layer, mind.residual(subject, where.tokens, view.layer, edits)
    )
    before = move_probabilities(subject, where.tokens)
    after = move_probabilities(subject, where.tokens, *edits)
    _pushed(where, turned, legal, seen, after)
    _moves(before, after, where.legal, legal)
    _reproduced(run, where, f"{reader!r}, {view.seed}, {layers}, {tile}, {present}, {scale}")


def _reproduced(run: Run, where: Position, push: str) -> None:
    moves, model = written(where.tokens), run.config["model"]
    reproduce(
        ["interp", "othello", "play", *moves.split(), "--model", model],
        "from pathlib import Path\nfrom interp.othello import mind\n"
        "from interp.othello.position import move_probabilities, parse_moves\n"
        "from interp.runs.store import open_run\nfrom interp.model.subject import open_subject\n"
        f"run = open_run(Path({str(run.path)!r}))\nsubject = open_subject({model!r})\n"
        f"edits = mind.turn_disc(run, {push})\n"
        f"move_probabilities(subject, parse_moves({moves!r}), *edits)",
    )


def _pushed(
    where: Position, turned: mind.Board, legal: np.ndarray, seen: mind.Board, after: np.ndarray
) -> None:
    """The board as edited with the moves now expected, and what the probe sees of it."""
    wrong = seen != turned
    shown = {
        "The board as edited": figures.othello_board(
            mind.in_colours(turned, where.mover), "Edited; moves expected after the push",
            after, legal,
        ),
        "seen": figures.othello_board(
            mind.in_colours(seen, where.mover),
            f"The probe's board after the push: {int((~wrong).sum())} of 64 as edited",
            wrong=wrong,
        ),
    }  # fmt: skip
    for column, (key, figure) in zip(st.columns(2), shown.items(), strict=True):
        column.plotly_chart(figure, key=key, width="stretch")


def _moves(
    before: np.ndarray, after: np.ndarray, legal: np.ndarray, legal_edited: np.ndarray
) -> None:
    """Every move that matters, and the errors of the N best against the edited board."""
    n = int(legal_edited.sum())
    shown = {"without the push": before, "with it": after}
    for column, (name, chances) in zip(st.columns(2), shown.items(), strict=True):
        missed = n - int(legal_edited[np.argsort(-chances, kind="stable")[:n]].sum())
        column.metric(f"Errors against the edited board, {name}", 2 * missed)
    columns = {"move": TILES, "before": before, "after": after}
    rows = pd.DataFrame({**columns, "legal": legal, "legal as edited": legal_edited})
    kept = rows[(rows[["before", "after"]].max(axis=1) > 0.005) | rows["legal as edited"]]
    table = kept.sort_values("after", ascending=False)
    st.dataframe(table, hide_index=True, width="stretch")
    download(table, "moves")
