"""How much too large few tokens make the nonlinear part of an error."""

from __future__ import annotations

import math


def excess(tokens: int, inputs: int) -> float:
    """By what share the nonlinear part comes out too large of a map fitted to so many tokens, at
    least; inf if by any.

    On tokens that it was not fitted on, least squares with n tokens and d inputs (Gaussian ones,
    tokens independent of each other) leaves more than the best linear map does, by a share of
    (n + 1) (n - 2) / (n (n - d - 2)) - 1 (Thompson 1978). Tokens of one text are alike, so it is
    more.
    """
    left = tokens - inputs - 2
    return (tokens + 1) * (tokens - 2) / (tokens * left) - 1 if left > 0 else math.inf
