"""Stable discs: two definitions of the discs that will not be flipped in the rest of the game.

`paper` is the rule of the code behind 'How GPT learns layer by layer'. Corners are stable. Then one
ascending scan of the top and the bottom edge makes a disc beside a stable disc stable, and a second
scan does the same for the two side edges. (Last, an inner disc with eight stable neighbours would
be stable. That never happens, because one of the eight is always an inner disc itself.) So all its
stable discs are on edges. It ignores colour, so a label can be wrong. Each scan runs once and in
one direction: a row filled from its right corner gets two labels, a row filled from its left corner
gets all of them. Mirroring a board can therefore change its labels.

`sound` labels only discs that no continuation can flip. Flipping a disc needs opponents at both
ends of an unbroken run through it. So a disc is safe along one axis if the whole line is occupied
(no move can be made on it), or if one of its two neighbours there is the board's edge or a stable
disc of its own colour. A disc that is safe along all four axes is stable. Repeat until nothing
changes:

    stable_0 = {};  stable_k+1 = {disc of colour c : for every axis, line full or edge beside it
                                  or a disc of colour c in stable_k beside it}

Naive code: the square-by-square loops of tests/othello/test_stability.py.
"""

import numpy as np

from ..compiled import njit
from .board import Mask, Masks
from .games import Replay

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
def sound_stable(black: Mask, white: Mask) -> Mask:
    """Discs of one board, of both colours, that no continuation can flip."""
    safe = np.empty(4, dtype=np.uint64)
    for axis in range(4):
        safe[axis] = _full_lines(black | white, axis) | _EDGES[axis]
    result = _ZERO
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
        result |= stable
    return result


@njit("uint64(uint64)", cache=True, nogil=True)
def paper_stable(occupied: Mask) -> Mask:
    """Stable discs of one board by the paper's rule."""
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
        paper[i] = paper_stable(black[i] | white[i])
        sound[i] = sound_stable(black[i], white[i])


def stable_discs(black: Masks, white: Masks) -> tuple[Masks, Masks]:
    """(`paper`, `sound`) masks of stable discs for boards of any shape [...]."""
    paper, sound = np.empty(black.size, np.uint64), np.empty(black.size, np.uint64)
    _label(np.ascontiguousarray(black).ravel(), np.ascontiguousarray(white).ravel(), paper, sound)
    return paper.reshape(black.shape), sound.reshape(black.shape)


def flipped_later(played: Replay) -> Masks:
    """Discs on the board after move t that a later move of the same game flips: [n, T]."""
    black, white = played.black, played.white
    flipped = np.zeros_like(black)
    flipped[:, 1:] = (black[:, 1:] & white[:, :-1]) | (white[:, 1:] & black[:, :-1])
    later = np.zeros_like(flipped)
    later[:, :-1] = np.bitwise_or.accumulate(flipped[:, :0:-1], axis=1)[:, ::-1]
    return later & (black | white)
