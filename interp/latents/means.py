"""Mean activations and mean latents of rows of ids, read once for all SAEs; it can be stopped."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_array, vstack
from torch import Tensor

from ..errors import UserError
from ..progress import progress
from ..runs.checkpoint import Checkpoint
from ..saes.open import Saes
from ..text.contexts import ContextStream, Tokens

BATCH = 8
"""Rows in a forward pass."""
Codes = dict[str, csr_array]
"""Each SAE's mean latents [rows, d_sae]."""


def gathered(
    stream: ContextStream,
    saes: Saes,
    rows: Sequence[list[int]],
    checkpoint: Checkpoint,
    label: str,
) -> tuple[Float[Tensor, "rows d"], Codes]:
    """The mean over each row's tokens that count, of activations as the SAEs read them, and of
    latents.

    Raises:
        UserError: a row of which no token counts, or a NaN.
    """
    xs: list[Tensor] = []
    codes: dict[str, list[csr_array]] = {name: [] for name in saes.by_name}
    if state := checkpoint.read():
        xs = [state.tensors["x"]]
        stream.median, stream.left_out = state.note["stream"]
        codes = {n: [_loaded(state.tensors, n, s.d_sae)] for n, s in saes.by_name.items()}
    done = sum(map(len, xs))
    numbered = itertools.islice(enumerate(rows), done, None)
    with progress(label, len(rows), "rows", done) as advance:
        for part in stream.contexts(numbered, len(rows) - done, BATCH, done):
            _, tokens = stream.read(part)
            x, made = _means(tokens, saes, part.document.cpu(), label)
            xs.append(x)
            for name, z in made.items():
                codes[name].append(z)
            advance(len(x))
            if checkpoint.due():
                checkpoint.write(*_state(xs, codes, stream))
    if sum(map(len, xs)) < len(rows):
        raise UserError(f"{label}: none of a row's tokens counts; give a smaller --skip")
    checkpoint.write(*_state(xs, codes, stream))
    return torch.cat(xs), {name: csr_array(vstack(parts)) for name, parts in codes.items()}


def _means(
    tokens: Tokens, saes: Saes, rows: Tensor, label: str
) -> tuple[Float[Tensor, "m d"], Codes]:
    own = tokens.document - rows[0]
    count = torch.bincount(own, minlength=len(rows))
    if not count.all():
        raise UserError(f"{label}: none of a row's tokens counts; give a smaller --skip")

    def mean(values: Tensor, at: Tensor) -> Tensor:
        total = torch.zeros(len(rows), values.shape[1], dtype=torch.float64)
        return total.index_add_(0, at, values.double()) / count[:, None]

    x = mean(next(iter(saes.by_name.values())).read(tokens.x), own).float()
    made = {}
    for name, sae in saes.by_name.items():
        total, start = torch.zeros(len(rows), sae.d_sae, dtype=torch.float64), 0
        for _, z, _ in sae.reconstructions(tokens.x):
            total += mean(z, own[start : start + len(z)])
            start += len(z)
        if not total.isfinite().all():
            raise UserError(f"{name} makes a NaN of x: its weights are damaged; replace them")
        made[name] = csr_array(total.float().numpy())
    return x, made


def _state(
    xs: list[Tensor], codes: dict[str, list[csr_array]], stream: ContextStream
) -> tuple[dict[str, Tensor], dict[str, object]]:
    tensors = {"x": torch.cat(xs)}
    for name, parts in codes.items():
        whole = csr_array(vstack(parts))
        for key in ("data", "indices", "indptr"):
            tensors[f"{key}/{name}"] = torch.from_numpy(np.ascontiguousarray(getattr(whole, key)))
    return tensors, {"stream": (stream.median, stream.left_out)}


def _loaded(tensors: dict[str, Tensor], name: str, width: int) -> csr_array:
    parts = tuple(tensors[f"{key}/{name}"].numpy() for key in ("data", "indices", "indptr"))
    return csr_array(parts, shape=(len(parts[2]) - 1, width))
