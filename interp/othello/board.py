"""Bitboard Othello: the compiled rules of the game.

A position is two uint64 masks (own, enemy) as the player to move sees it; bit s is square
s = 8 * row + col. Start: black on (3,4), (4,3), white on (3,3), (4,4); black moves first.
A player without a legal move passes, which is not a token; the game ends when neither can move.
Tokens: 0 = pad, 1..60 = the squares without 27, 28, 35, 36 (never empty), in order.

A move is legal on an empty square from which, along one of 8 rays, an unbroken run of enemy
discs ends at an own disc; all such runs are flipped. The runs are grown one step at a time
for all 64 squares at once: run_1 = shift(start) & enemy, run_k+1 = run_k | shift(run_k) & enemy.
Equivalent naive code: the ray walk in tests/othello/test_board.py.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..compiled import njit

Mask: TypeAlias = np.uint64
Masks: TypeAlias = npt.NDArray[np.uint64]
Movers: TypeAlias = npt.NDArray[np.int8]
Tokens: TypeAlias = npt.NDArray[np.uint8]

N_PLIES = 60
"""Moves in a full game."""
PAD = 0
"""Token of a ply that was not played."""
CENTRE = (27, 28, 35, 36)
"""The four squares occupied at the start: they have no token."""
BLACK, WHITE, NOBODY = 0, 1, -1
"""Values of `mover`."""
START_BLACK = np.uint64((1 << 28) | (1 << 35))
START_WHITE = np.uint64((1 << 27) | (1 << 36))
PREFIX = 14
"""The first moves, which decide whether a game is for training or held out."""
HELD_OUT_ONE_IN = np.uint64(64)
"""One game prefix in this many is held out."""
ANY, TRAIN, HELD_OUT = -1, 0, 1
"""Values of `split` in fill_random_games."""

SQUARE_OF_TOKEN = np.array([-1] + [s for s in range(64) if s not in CENTRE], dtype=np.int64)
"""[61]: square of each token, -1 for the pad."""
TOKEN_OF_SQUARE = np.zeros(64, dtype=np.uint8)
"""[64]: token of each square, 0 for the four centre squares."""
TOKEN_OF_SQUARE[SQUARE_OF_TOKEN[1:]] = np.arange(1, 61)

# Shifts for the four axes (row, column, two diagonals), each used in both directions. A run
# that moves sideways must not wrap round the board's edge: its discs stay off columns a and h.
_SHIFTS = np.array([1, 8, 7, 9], dtype=np.uint64)
_INNER = 0x7E7E7E7E7E7E7E7E
_RUN_ALLOWED = np.array([_INNER, 0xFFFFFFFFFFFFFFFF, _INNER, _INNER], dtype=np.uint64)
_ONE = np.uint64(1)
_ZERO = np.uint64(0)


@njit("UniTuple(uint64, 2)(uint64, uint64, int64)", cache=True, nogil=True)
def _runs(start: Mask, enemy: Mask, axis: int) -> tuple[Mask, Mask]:
    """The runs of enemy discs that begin beside `start`, up and down along one axis."""
    s = _SHIFTS[axis]
    through = enemy & _RUN_ALLOWED[axis]
    up = (start << s) & through
    down = (start >> s) & through
    for _ in range(5):  # a run holds at most 6 discs
        up |= (up << s) & through
        down |= (down >> s) & through
    return up, down


@njit("uint64(uint64, uint64)", cache=True, nogil=True)
def legal_moves(own: Mask, enemy: Mask) -> Mask:
    """Mask of the squares the player to move may play; 0 means a pass (or the end)."""
    ends = _ZERO
    for axis in range(4):
        up, down = _runs(own, enemy, axis)
        ends |= (up << _SHIFTS[axis]) | (down >> _SHIFTS[axis])
    return ends & ~(own | enemy)


@njit("uint64(uint64, uint64, uint64)", cache=True, nogil=True)
def flipped(own: Mask, enemy: Mask, move: Mask) -> Mask:
    """Enemy discs flipped by a disc on the single-bit mask `move`; 0 if the move is illegal."""
    taken = _ZERO
    for axis in range(4):
        up, down = _runs(move, enemy, axis)
        # A run counts only if an own disc closes it.
        if (up << _SHIFTS[axis]) & own:
            taken |= up
        if (down >> _SHIFTS[axis]) & own:
            taken |= down
    return taken


@njit("UniTuple(uint64, 2)(uint64, uint64, uint64)", cache=True, nogil=True)
def play(own: Mask, enemy: Mask, move: Mask) -> tuple[Mask, Mask]:
    """Put a disc on `move`; returns (own, enemy) as the *other* player sees them."""
    taken = flipped(own, enemy, move)
    return enemy ^ taken, own | move | taken


@njit("uint64(uint64)", cache=True, nogil=True)
def _mix(x: Mask) -> Mask:
    """The finaliser of splitmix64: a bijection of uint64 that scatters its bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit("int64(uint64)", cache=True, nogil=True)
def _count(x: Mask) -> int:
    """Number of set bits: sums over groups of 2, 4 and 8 bits, then over the eight groups."""
    x -= (x >> _ONE) & np.uint64(0x5555555555555555)
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return int((x * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(
    "Tuple((uint64, uint64, uint64))(uint8[::1], int64, int64, uint64, uint64, uint64)",
    cache=True,
    nogil=True,
)
def _play_randomly(
    row: Tokens, first: int, last: int, own: Mask, enemy: Mask, state: Mask
) -> tuple[Mask, Mask, Mask]:
    """Fill row[first:last] with uniform legal moves; returns (own, enemy, generator state)."""
    for ply in range(first, last):
        moves = legal_moves(own, enemy)
        if moves == _ZERO:
            own, enemy = enemy, own
            moves = legal_moves(own, enemy)
            if moves == _ZERO:
                break
        state += np.uint64(0x9E3779B97F4A7C15)
        # 32 random bits scaled to the number of moves: the bias is below 1e-8.
        drop = ((_mix(state) >> np.uint64(32)) * np.uint64(_count(moves))) >> np.uint64(32)
        for _ in range(np.int64(drop)):
            moves &= moves - _ONE
        move = moves & (~moves + _ONE)
        row[ply] = TOKEN_OF_SQUARE[_count(move - _ONE)]
        own, enemy = play(own, enemy, move)
    return own, enemy, state


@njit("boolean(uint8[::1])", cache=True, nogil=True)
def is_held_out(row: Tokens) -> bool:
    """Whether a game's first PREFIX moves put it in the held-out split.

    The hash is the smallest over the board's four colour-preserving symmetries (identity,
    both diagonals, half turn), so a held-out game is not a mirrored training game either.
    """
    smallest = ~_ZERO
    for symmetry in range(4):
        h = _ZERO
        for ply in range(min(PREFIX, row.size)):
            square = SQUARE_OF_TOKEN[row[ply]]
            if square < 0:
                break
            if symmetry & 1:
                square = 8 * (square % 8) + square // 8
            if symmetry & 2:
                square = 63 - square
            h = _mix((h ^ np.uint64(square)) + np.uint64(0x9E3779B97F4A7C15))
        smallest = min(smallest, h)
    return bool(_mix(smallest) % HELD_OUT_ONE_IN == _ZERO)


@njit("void(uint8[:, ::1], uint64, int64, int64)", cache=True, nogil=True)
def fill_random_games(out: Tokens, seed: Mask, first: int, split: int) -> None:
    """Fill the zeroed out [n, 60] with games number first, first + 1, ... of stream `seed`.

    Each game has its own generator, so a game depends on (seed, number, split) alone. An
    opening that falls in the other split is drawn again from the same generator.
    """
    for i in range(out.shape[0]):
        row = out[i]
        state = _mix(_mix(seed) ^ np.uint64(first + i))
        while True:
            own, enemy, state = _play_randomly(row, 0, PREFIX, START_BLACK, START_WHITE, state)
            if split == ANY or is_held_out(row) == (split == HELD_OUT):
                break
            row[:PREFIX] = PAD
        _play_randomly(row, PREFIX, N_PLIES, own, enemy, state)


@njit(
    "int64(uint8[:, ::1], uint64[:, ::1], int8[:, ::1], uint64[:, ::1], uint64[:, ::1])",
    cache=True,
    nogil=True,
)
def replay_into(games: Tokens, legal: Masks, mover: Movers, black: Masks, white: Masks) -> int:
    """Replay games [n, T] into four [n, T] arrays; returns the first illegal game or -1."""
    for i in range(games.shape[0]):
        own, enemy, colour, over = START_BLACK, START_WHITE, BLACK, False
        for ply in range(games.shape[1]):
            mover[i, ply] = NOBODY
            legal[i, ply] = _ZERO
            if not over:
                moves = legal_moves(own, enemy)
                if moves == _ZERO:
                    own, enemy, colour = enemy, own, 1 - colour
                    moves = legal_moves(own, enemy)
                legal[i, ply] = moves
                if moves != _ZERO:
                    mover[i, ply] = colour
            token = games[i, ply]
            if token == PAD:
                over = True
            else:
                if token > N_PLIES:
                    return i
                move = _ONE << np.uint64(SQUARE_OF_TOKEN[token])
                if over or (legal[i, ply] & move) == _ZERO:
                    return i
                own, enemy = play(own, enemy, move)
                colour = 1 - colour
            black[i, ply] = own if colour == BLACK else enemy
            white[i, ply] = enemy if colour == BLACK else own
    return -1
