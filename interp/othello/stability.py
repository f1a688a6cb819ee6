"""Stable discs: two labelings of the discs that will not be turned for the rest of the game.

`paper` follows the code behind 'How GPT learns layer by layer': corners; then one ascending scan of
the top and bottom edge, in which a disc beside a stable one becomes stable, then of the two side
edges. (Then inner discs whose eight neighbours are all stable, which never happens: one of the
eight is always an inner disc itself. The labels know edges only.) Colour is ignored, so a label
may be wrong; and as the scan runs one way and once, a row filled from its right corner gets two
labels, from its left corner all: mirroring a board can change its labels.

`sound` labels only discs that no continuation can turn. Turning a disc needs opponents at both ends
of an unbroken run through it, so along one axis it is safe if the whole line is occupied (no move
can be made on it), or if next to it on one side is the board's edge or a stable disc of its own
colour. A disc safe along all four axes is stable; repeated until nothing changes:

    stable_0 = {};  stable_k+1 = {disc of colour c : for every axis, line full or edge beside it
                                  or a disc of colour c in stable_k beside it}

Naive twins: the square-by-square loops of tests/othello/test_stability.py.
"""

import numpy as np
from numba import njit

from interp.othello.board import Mask, Masks
from interp.othello.games import Replay

_ZERO = np.uint64(0)
_ALL = 0xFFFFFFFFFFFFFFFF
_LEFT = 0x0101010101010101
_RIGHT = 0x8080808080808080
_TOP, _BOTTOM = 0xFF, 0xFF << 56
# One step along each axis is a shift; a step up to a higher square must not land on column a (b..h
# the other way round), where it would have wrapped round the board's edge.
_SHIFTS = np.array([1, 8, 7, 9], dtype=np.uint64)
_UP_LANDS = np.array([_ALL ^ _LEFT, _ALL, _ALL ^ _RIGHT, _ALL ^ _LEFT], dtype=np.uint64)
_DOWN_LANDS = np.array([_ALL ^ _RIGHT, _ALL, _ALL ^ _LEFT, _ALL ^ _RIGHT], dtype=np.uint64)
_SIDES, _ENDS = _LEFT | _RIGHT, _TOP | _BOTTOM
# Squares with the board's edge beside them along each axis.
_EDGES = np.array([_SIDES, _ENDS, _SIDES | _ENDS, _SIDES | _ENDS], dtype=np.uint64)
_CORNERS = np.uint64(0x8100000000000081)


@njit("uint64(uint64, int64)", cache=True, nogil=True)
def _full_lines(occupied: Mask, axis: int) -> Mask:
    """Squares whose line along one axis has no empty square."""
    s, up, down = _SHIFTS[axis], _UP_LANDS[axis], _DOWN_LANDS[axis]
    open_ = ~occupied
    for _ in range(7):
        open_ |= ((open_ << s) & up) | ((open_ >> s) & down)
    return ~open_


@njit("uint64(uint64, uint64)", cache=True, nogil=True)
def sound_of(black: Mask, white: Mask) -> Mask:
    """Sound-stable discs of one board, both colours."""
    safe = np.empty(4, dtype=np.uint64)
    for axis in range(4):
        safe[axis] = _full_lines(black | white, axis) | _EDGES[axis]
    found = _ZERO
    for discs in (black, white):
        stable = _ZERO
        while True:
            grown = discs
            for axis in range(4):
                s = _SHIFTS[axis]
                # A shift that wraps lands on an edge square, which is safe on that axis anyway.
                grown &= safe[axis] | (stable << s) | (stable >> s)
            if grown == stable:
                break
            stable = grown
        found |= stable
    return found


@njit("uint64(uint64)", cache=True, nogil=True)
def paper_of(occupied: Mask) -> Mask:
    """The paper's stable discs of one board."""
    one = np.uint64(1)
    stable = occupied & _CORNERS
    for step, far in ((1, 56), (8, 7)):  # top and bottom edge, then the two side edges
        for start in (0, far):
            for k in range(8):
                bit = one << np.uint64(start + k * step)
                beside = _ZERO
                if k > 0:
                    beside |= bit >> np.uint64(step)
                if k < 7:
                    beside |= bit << np.uint64(step)
                if bit & occupied and beside & stable:
                    stable |= bit
    return stable


@njit("void(uint64[::1], uint64[::1], uint64[::1], uint64[::1])", cache=True, nogil=True)
def _label(black: Masks, white: Masks, paper: Masks, sound: Masks) -> None:
    for i in range(black.size):
        paper[i] = paper_of(black[i] | white[i])
        sound[i] = sound_of(black[i], white[i])


def stable_discs(black: Masks, white: Masks) -> tuple[Masks, Masks]:
    """(`paper`, `sound`) masks of stable discs for boards of any shape [...]."""
    paper, sound = np.empty(black.size, np.uint64), np.empty(black.size, np.uint64)
    _label(np.ascontiguousarray(black).ravel(), np.ascontiguousarray(white).ravel(), paper, sound)
    return paper.reshape(black.shape), sound.reshape(black.shape)


def turned_later(played: Replay) -> Masks:
    """Discs standing after move t that some later move of the same game turns: [n, T]."""
    black, white = played.black, played.white
    turned = np.zeros_like(black)
    turned[:, 1:] = (black[:, 1:] & white[:, :-1]) | (white[:, 1:] & black[:, :-1])
    later = np.zeros_like(turned)
    later[:, :-1] = np.bitwise_or.accumulate(turned[:, :0:-1], axis=1)[:, ::-1]
    return later & (black | white)
