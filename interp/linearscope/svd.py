"""Singular triplets of an interpreter's matrix, which is never formed: A v = s u, A^T u = s v.

By scipy's ARPACK over `matvec` and `rmatvec`. For the 16 largest of EfficientNet-Lite0 it takes 152
products and leaves residuals of 9e-7. PROPACK returns one value ten times in single precision, and
LOBPCG takes 30 times as long. Equivalent, where A fits in memory:

    u, s, vt = torch.linalg.svd(A)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..progress import waiting
from .interpreter import Interpreter

SPARE = 4
"""How many triplets are computed beyond those asked for."""


class Triplets(NamedTuple):
    """The largest singular values, largest first, their vectors as pictures, and their errors."""

    values: Float[Tensor, " k"]
    left: Float[Tensor, "k ..."]
    """Of the output's shape."""
    right: Float[Tensor, "k ..."]
    """Of the input's shape."""
    residuals: Float[Tensor, " k"]
    """max(|A v - s u|, |A^T u - s v|) / s; NaN for s = 0."""
    products: int
    """How many products with A and its adjoint it took."""


def singular_triplets(system: Interpreter, k: int, seed: int = 0, tol: float = 1e-6) -> Triplets:
    """The k largest singular triplets, to a relative tolerance `tol`.

    Raises:
        UserError: k is not below the smaller side of A, A is 0, or ARPACK does not converge.
    """
    from scipy.sparse.linalg import ArpackError, LinearOperator, svds

    rows, columns = system.y[0].numel(), system.x0[0].numel()
    smaller = min(rows, columns)
    if not 1 <= k < smaller:
        raise UserError(f"k is {k}: a {rows} x {columns} matrix takes 1 to {smaller - 1}")
    count = 0

    def product(x: np.ndarray, back: bool) -> np.ndarray:
        nonlocal count
        count += 1
        like = system.y if back else system.x0
        # ARPACK asks for A^T of A v, which single precision does not hold if A is 1e-25
        length = float(np.linalg.norm(x)) or 1.0
        given = torch.from_numpy(x / length).to(like).view(like.shape)
        out = system.rmatvec(given) if back else system.matvec(given)
        flat: np.ndarray = out.flatten().double().cpu().numpy() * length
        return flat

    operator = LinearOperator(
        (rows, columns),
        matvec=lambda x: product(x, False),
        rmatvec=lambda x: product(x, True),
        dtype=np.float64,
    )
    with waiting(f"find {k} singular triplets of a {rows:,} x {columns:,} matrix"):
        # without spare ones a value that occurs twice is sometimes found once (in 4 of 400 small
        # circular convolutions; with them in none)
        try:
            u, s, vt = svds(operator, min(k + SPARE, smaller - 1), tol=tol, rng=seed)
        except ArpackError as error:
            if not energy(system, probes=2, seed=seed)[0]:
                raise UserError(
                    "A is 0, so it has no singular triplets: the output does not depend on the "
                    "input here (no ReLU passes, say); take another input"
                ) from error
            raise UserError(
                f"ARPACK finds no singular triplets ({error}): ask for fewer, or use float64"
            ) from error
    order = np.argsort(-s)[:k]
    values = torch.from_numpy(s[order])
    left = torch.from_numpy(u.T[order]).reshape(k, *system.y.shape[1:])
    right = torch.from_numpy(vt[order]).reshape(k, *system.x0.shape[1:])
    errors = [
        (product.cpu().flatten(1).double() - values[:, None] * vectors.flatten(1)).norm(dim=1)
        for product, vectors in ((system.matvec(right), left), (system.rmatvec(left), right))
    ]
    # a value that is zero except for rounding has no relative residual
    real = values > torch.finfo(system.y.dtype).eps * values[0]
    residuals = torch.where(real, torch.maximum(*errors) / values, torch.nan)
    return Triplets(values, left.float(), right.float(), residuals, count)


def energy(system: Interpreter, probes: int = 32, seed: int = 0) -> tuple[float, float]:
    """|A|_F^2, the sum of all squared singular values, and its standard error: the mean of
    |A^T z|^2 over vectors z of random signs (Hutchinson's estimator)."""
    rng = torch.Generator().manual_seed(seed)
    shape = (1, *system.y.shape[1:])
    squares = []
    for _ in range(probes):
        signs = torch.randint(0, 2, shape, generator=rng).to(system.y) * 2 - 1
        squares.append(float(system.rmatvec(signs).double().square().sum()))
    values = torch.tensor(squares, dtype=torch.float64)
    return float(values.mean()), float(values.std() / probes**0.5)
