"""Batches of contexts as parts: what the model and the SAEs make of each, by any worker.

A part carries its rows, so a worker needs the model and the SAEs and no corpus. It comes back as
activations and errors in float32, about `BATCH * length * d * (2 + saes)` numbers, and not
as sums: the sums of later contexts need the maps that are fitted on the first ones, and a batch's
second moments would be the larger, [d, d] and [d, saes * d] in float64.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor

from ..model.batch import Batch
from ..saes.open import ErrorSource, SaeErrors
from ..text.contexts import Contexts, ContextStream, Row, Tokens, ended
from .faults import PlantedFaults

BATCH = 2
"""Contexts in a forward pass."""
MEASURED = 2
"""The block whose losses are read: the contexts that are fitted on are 0, those that norms are
fitted on 1."""


@dataclass(frozen=True)
class Part:
    """Contexts that go through the model together."""

    block: int
    first: int
    """The number of the first one in the stream."""
    documents: tuple[int, ...]
    ids: tuple[bytes, ...]
    """Token ids of each, four bytes an id."""

    def __str__(self) -> str:
        return f"contexts {self.first} to {self.first + len(self.ids) - 1}"

    @property
    def rows(self) -> Iterator[Row]:
        for document, ids in zip(self.documents, self.ids, strict=True):
            yield document, array("i", ids).tolist()


def parts_of(rows: Iterator[Row], block: int, first: int, end: int) -> Iterator[Part]:
    """The next rows, those from `first` to `end` of the stream, as parts of a block.

    Raises:
        UserError: the rows end before.
    """
    while first < end:
        taken = list(islice(rows, min(BATCH, end - first)))
        if len(taken) < min(BATCH, end - first):
            raise ended(first + len(taken))
        documents, ids = zip(*taken, strict=True)
        yield Part(block, first, documents, tuple(array("i", each).tobytes() for each in ids))
        first += len(taken)


class Read(NamedTuple):
    """What a part is read as."""

    contexts: Contexts
    """Without the positions of massive activations."""
    tokens: Tokens
    errors: SaeErrors | None
    """None where they depend on the parts before."""
    losses: Float[Tensor, "batch pos"] | None
    """Of measured contexts: the cross-entropy of the next token, in nats."""
    left_out: int
    """Positions of massive activations."""
    seconds: dict[str, float]
    """That the forward passes and the SAEs took."""


@dataclass(frozen=True, eq=False)
class Opened:
    """Reads parts with what this process has opened."""

    stream: ContextStream
    saes: ErrorSource

    def open(self) -> Opened:
        return self

    def make(self, opened: Opened, part: Part) -> bytes:
        """What `read_back` reads; b"" where none of the part's positions counts.

        Raises:
            UserError: as `ContextStream.read`.
        """
        return opened.read(part)

    def read(self, part: Part) -> bytes:
        stream, start = self.stream, time.perf_counter()
        given = next(stream.contexts(part.rows, len(part.ids), BATCH, part.first), None)
        if given is None:
            return b""
        before = stream.left_out
        contexts, tokens = stream.read(given)
        counts, losses = len(tokens.x) > 0, None
        if counts and part.block == MEASURED:
            losses = contexts.losses(stream.subject.logits(contexts.batch))
        passed, errors = time.perf_counter(), None
        if counts and not isinstance(self.saes, PlantedFaults):
            errors = self.saes.errors(tokens.x)
        seconds = {"forward": passed - start, "readers": time.perf_counter() - passed}
        return _written(Read(contexts, tokens, errors, losses, stream.left_out - before, seconds))


def _written(read: Read) -> bytes:
    (batch, *places), tokens = read.contexts, read.tokens
    tensors = dict(zip(("ids", "mask"), batch, strict=True))
    tensors |= dict(zip(("chosen", "context", "of"), places, strict=True))
    tensors |= {"x": tokens.x, "document": tokens.document, "token": tokens.token}
    tensors |= {f"before/{n}": x for n, x in enumerate(tokens.before)}
    if read.errors:
        tensors |= {"error": read.errors.error, "active": read.errors.active}
        if read.errors.x is not tokens.x:
            tensors["read"] = read.errors.x
    if read.losses is not None:
        tensors["losses"] = read.losses
    tensors["left_out"] = torch.tensor(read.left_out)
    tensors["seconds"] = torch.tensor(list(read.seconds.values()), dtype=torch.float64)
    return save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})


def read_back(made: bytes, device: torch.device) -> Read:
    """A part as `Opened.make` gives it.

    Args:
        device: the model's, where the contexts are.
    """
    held = load(made)
    batch = Batch(held["ids"].to(device), held["mask"].to(device))
    contexts = Contexts(batch, *(held[name].to(device) for name in ("chosen", "context", "of")))
    before = tuple(held[f"before/{n}"] for n in range(sum("before/" in name for name in held)))
    tokens = Tokens(held["x"], held["document"], held["token"], before)
    errors = None
    if "error" in held:
        errors = SaeErrors(held.get("read", tokens.x), held["error"], held["active"])
    seconds = dict(zip(("forward", "readers"), held["seconds"].tolist(), strict=True))
    return Read(contexts, tokens, errors, held.get("losses"), int(held["left_out"]), seconds)
