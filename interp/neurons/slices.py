"""A layer in slices: what is decoded at once is small beside the unembedding, however wide it is.

Most layers are one slice. Where the vectors of a layer are more than NUMBERS, its experts are
shared out over several, and where one MLP's are, each kind is, some neurons at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from ..model.places import Bank, Kind

NUMBERS = 2**28
"""Of the vectors of a slice, at most: 1 GiB in float32. Another value would draw other random
directions in models that are wider."""


class Part(NamedTuple):
    """A slice of a layer, by its number."""

    layer: int
    number: int = 0

    def __str__(self) -> str:
        if self == VOCABULARY:
            return "vocabulary (the table of the tokens)"
        return f"layer {self.layer}, slice {self.number}"


VOCABULARY = Part(-1)
"""The table of the tokens among the parts."""


class Piece(NamedTuple):
    """Neurons of a bank that are decoded at once."""

    expert: str
    kinds: tuple[Kind, ...]
    start: int
    stop: int

    @property
    def some(self) -> slice:
        """These neurons of the bank."""
        return slice(self.start, self.stop)

    @property
    def vectors(self) -> int:
        """How many they are, of all its kinds."""
        return len(self.kinds) * (self.stop - self.start)


class Slice(NamedTuple):
    """What one part of an atlas decodes."""

    pieces: tuple[Piece, ...]
    random: tuple[int, ...]
    """The number of random directions beside each piece, of each of its kinds."""

    @property
    def vectors(self) -> int:
        return sum(piece.vectors for piece in self.pieces)


def slices(
    banks: Sequence[Bank], kinds: tuple[Kind, ...], width: int, random: int, most: int
) -> list[Slice]:
    """A layer's, in the order of its banks.

    Args:
        width: of a vector.
        random: the layer's random directions of each kind.
        most: numbers of a slice, unless one vector has more.
    """
    pieces = [piece for bank in banks for piece in _pieces(bank, kinds, width, most)]
    found: list[list[tuple[Piece, int]]] = []
    room = 0
    for piece in pieces:
        # where a bank is cut, so is each of its kinds
        alike = [each for each in pieces if piece.kinds[0] in each.kinds]
        share = _share(random, len(alike), alike.index(piece))
        if piece.vectors * width > room:
            found.append([])
            room = most
        found[-1].append((piece, share))
        room -= piece.vectors * width
    return [Slice(*zip(*each, strict=True)) for each in found]


def _pieces(bank: Bank, kinds: tuple[Kind, ...], width: int, most: int) -> Iterator[Piece]:
    if len(kinds) * bank.size * width <= most:
        yield Piece(bank.expert, kinds, 0, bank.size)
        return
    count = -(-bank.size // max(most // width, 1))
    ends = [number * bank.size // count for number in range(count + 1)]
    for kind in kinds:
        for start, stop in pairwise(ends):
            yield Piece(bank.expert, (kind,), start, stop)


def _share(whole: int, count: int, number: int) -> int:
    """Of `whole` things that `count` get, those of one of them."""
    return whole // count + (number < whole % count)
