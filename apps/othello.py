"""The OthelloGPT page: a game's board, the board the model represents, and edits of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import streamlit as st

from interp.apps import pool
from interp.apps.address import bound
from interp.apps.columns import shown_table
from interp.apps.common import consent, errors_in_place
from interp.apps.offering import offer
from interp.apps.picking import pick_run
from interp.apps.shown import charts
from interp.apps.take import figure_shown
from interp.apps.words import listed, plain
from interp.model.subject import Subject
from interp.othello import figures, read_board
from interp.othello.board import N_PLIES
from interp.othello.board_labels import TILES
from interp.othello.compare import compared_kinds, compared_model
from interp.othello.games import random_games, squares
from interp.othello.interventions import legal_after_flip
from interp.othello.position import (
    PLAYERS,
    Position,
    move_names,
    move_probabilities,
    position_after,
)
from interp.othello.read_board import Board
from interp.runs.shipped import is_shipped
from interp.runs.store import Run
from interp.saes.sae import Sae


def _reads_boards(run: Run) -> bool:
    """Whether a comparison has what reads a board; the shipped one has its scores alone."""
    return not is_shipped(run) or any(name.startswith("directions/probe-") for name in run.files)


class View(NamedTuple):
    """What the sidebar chooses."""

    arch: str
    layer: int
    seed: int


@contextmanager
def autoencoder(run: Run, view: View) -> Iterator[tuple[Sae, pd.DataFrame]]:
    """An autoencoder of the run and which latents say what, after the model."""

    def made() -> tuple[Sae, pd.DataFrame]:
        return read_board.compared_sae(run, *view), read_board.latent_rules(run, *view)

    key = (str(run.manifest.get("seal", run.manifest["finished"])), *map(str, view))
    with pool.kept(key, "the autoencoder", made) as opened:
        yield opened


@errors_in_place()
def page() -> None:
    st.title("OthelloGPT")
    run = pick_run("othello.compare", fits=_reads_boards, lacks="the probes and latents")
    consent(run.config["model"])
    position = _position()
    with pool.borrowed(compared_model(run)) as subject:
        view = _view(run, subject)
        _boards(run, subject, position, view)
        _edited(run, subject, position, view)


def _position() -> Position:
    left, right = st.columns(2)
    place = bound("game", 0, range(100_001))
    game = left.number_input(
        "Held-out game", 0, 100_000, key=place, help="Number in a fixed stream."
    )
    tokens = random_games(1, 1_000_003, first=int(game), split="held_out")[0]
    played = int((tokens > 0).sum())
    last = min(played, N_PLIES - 1)
    place = bound("moves", min(20, last), range(1, last + 1))
    ply = right.slider("Moves played", 1, last, key=place)
    position = position_after(tokens[:ply])
    st.caption(
        f"{plain(move_names(position.tokens))}. Next to move: {plain(PLAYERS[position.mover])}. "
        "Dots: legal moves. Rings: stable discs. Numbers: the model's probability of the move, in "
        "per cent."
    )
    return position


def _view(run: Run, subject: Subject) -> View:
    last, kinds, seeds = subject.spec.n_layers - 1, compared_kinds(run), run.manifest["seeds"]
    place = bound("layer", max(last - 1, 0), range(last + 1))
    layer = st.sidebar.slider("Layer", 0, last, key=place)
    place = bound("sae", kinds[0], kinds)
    arch = st.sidebar.selectbox("Autoencoder", kinds, key=place, format_func=listed)
    place = bound("seed", seeds[0], seeds)
    seed = st.sidebar.selectbox("Seed", seeds, key=place, format_func=listed)
    return View(str(arch), int(layer), int(seed))


def _boards(run: Run, subject: Subject, position: Position, view: View) -> None:
    """The true board, the probe's and the latents', side by side."""
    label = st.sidebar.radio(
        "Stable discs", ["sound", "paper"], horizontal=True, format_func=plain,
        key=bound("stable", "sound", ["sound", "paper"]),
        help="sound: discs that no continuation can flip. paper: the rule of the paper's code, "
        "which can be wrong.",
    )  # fmt: skip
    stable = position.sound if label == "sound" else position.paper
    chances = move_probabilities(subject, position.tokens)
    x = read_board.residual(subject, position.tokens, view.layer)
    with autoencoder(run, view) as (sae, rules):
        seen = {
            f"The probe's board, layer {view.layer}": read_board.probe_board(run, view.layer, x),
            f"The {view.arch} latents' board": read_board.latent_board(sae, rules, x),
        }
    columns = st.columns(3)
    true = figures.othello_board(position.absolute, "The board", chances, position.legal, stable)
    figure_shown(true)
    clicked = columns[0].plotly_chart(true, key="true", on_select="rerun")
    _remember(clicked, position)
    for column, (title, states) in zip(columns[1:], seen.items(), strict=True):
        _compared(column, title, states, position.relative, position.mover)
    st.caption(
        "Framed tiles are wrong. Grey discs are claimed to be own and enemy at once. A surprise "
        "would be a wrong tile in the middle of a settled board: the model would have lost count."
    )


def _compared(column: Any, title: str, seen: Board, true: Board, mover: int) -> None:
    """A board as it is read, with the tiles framed that differ from another."""
    wrong = seen != true
    titled = f"{title}: {int((~wrong).sum())} of 64 right"
    figure = figures.othello_board(read_board.in_colours(seen, mover), titled, wrong=wrong)
    figure_shown(figure)
    column.plotly_chart(figure, key=title)


def _remember(clicked: Any, position: Position) -> None:
    """A disc that was clicked becomes the disc to flip."""
    names = [point.get("customdata") for point in clicked["selection"]["points"]]
    name = names[0][0] if names and isinstance(names[0], list) else (names or [None])[0]
    if name in TILES and position.absolute[TILES.index(name)] > 0:
        st.session_state["disc"] = name


def _edited(run: Run, subject: Subject, position: Position, view: View) -> None:
    """Flip one disc in the board the model represents; its moves before and after."""
    st.subheader("Flip a disc in the board the model represents")
    discs = [TILES[s] for s in np.flatnonzero(position.absolute > 0)]
    if st.session_state.get("disc") not in discs:
        st.session_state["disc"] = discs[0]
    left, middle, right = st.columns(3)
    disc = left.selectbox("Disc (or click one on the board)", discs, key="disc")
    readers = ["probe", "means", *compared_kinds(run)]
    place = bound("directions", "probe", readers)
    reader = middle.selectbox("Directions of", readers, key=place, format_func=listed)
    about, place = "Length of the vector added at each layer but the last", bound("scale", 6.0)
    scale = right.slider(plain(about), 0.0, 20.0, step=0.5, key=place)
    tile = TILES.index(disc)
    layers = range(max(1, subject.spec.n_layers - 1))
    present = int(position.relative[tile])
    edits = read_board.flip_disc(run, reader, view.seed, layers, tile, present, scale)
    flipped = position.relative.copy()
    flipped[tile] = 3 - present
    legal = squares(legal_after_flip(position.relative, tile))
    x = read_board.residual(subject, position.tokens, view.layer, edits)
    before = move_probabilities(subject, position.tokens)
    after = move_probabilities(subject, position.tokens, *edits)
    left, right = st.columns(2)
    title, colours = "The edited board", read_board.in_colours(flipped, position.mover)
    figure = figures.othello_board(colours, f"{title}; moves after the edit", after, legal)
    with left:
        charts(title, figure)
    seen = read_board.probe_board(run, view.layer, x)
    _compared(right, "The probe's board after the edit", seen, flipped, position.mover)
    moves = _moves(before, after, position.legal, legal)
    flip = f"{reader!r}, {view.seed}, {layers}, {tile}, {present}, {scale}"
    played, model = move_names(position.tokens), run.config["model"]
    call = (
        "from pathlib import Path\nfrom interp.othello import read_board\n"
        "from interp.othello.position import move_probabilities, parse_moves\n"
        "from interp.runs.store import open_run\nfrom interp.model.subject import open_subject\n"
        f"run = open_run(Path({str(run.path)!r}))\nsubject = open_subject({model!r})\n"
        f"edits = read_board.flip_disc(run, {flip})\n"
        f"move_probabilities(subject, parse_moves({played!r}), *edits)"
    )
    command = ["interp", "othello", "play", *played.split(), "--model", model]
    offer(moves, "moves", command, call)


def _moves(
    before: np.ndarray, after: np.ndarray, legal: np.ndarray, legal_edited: np.ndarray
) -> pd.DataFrame:
    """The likely and the legal moves, and the errors of the N most probable ones."""
    n = int(legal_edited.sum())
    shown = {"unedited": before, "edited": after}
    for column, (name, chances) in zip(st.columns(2), shown.items(), strict=True):
        missed = n - int(legal_edited[np.argsort(-chances, kind="stable")[:n]].sum())
        column.metric(
            f"Errors of the {plain(name)} model against the edited board", f"{2 * missed:,}"
        )
    columns = {"move": TILES, "before": before, "after": after}
    rows = pd.DataFrame({**columns, "legal": legal, "legal as edited": legal_edited})
    kept = rows[(rows[["before", "after"]].max(axis=1) > 0.005) | rows["legal as edited"]]
    kept = kept.sort_values("after", ascending=False)
    shown_table(kept, "moves", "othello.edit")
    return kept
