"""What a model makes of each token of a text, and what it says after it.

The logits at a position are of the token *after* it: with q the distribution there,

    surprise of token t = -log q[t - 1][ids[t]] nats
    entropy after t     = -sum q[t] log q[t] nats

so the first token has no probability: nothing stands before it that the model could predict from.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from torch import Tensor

from .passed import Passed


def token_table(passed: Passed, k: int = 10) -> pd.DataFrame:
    """A row a token: `position`, `token`, `id`, `special` (BOS and other special tokens);
    `probability`, `rank` (1: the likeliest) and `surprise` (nats), which the model gave it at the
    position before (none of the first: NaN, and a null rank); then what the model says after it:
    `entropy` (nats), and the k likeliest tokens `next` with their `next_probabilities`.
    """
    subject = passed.opened.subject
    special = (~subject.counted(passed.batch))[0].tolist()
    given: dict[str, Any] = {"probability": math.nan, "rank": pd.NA, "surprise": math.nan}
    ids, made = passed.ids.tolist(), []
    for position, token in enumerate(ids):
        logprobs = passed.logprobs(position)
        about = {"position": position, "token": passed.tokens[position], "id": token}
        made.append({**about, "special": special[position], **given, **_after(passed, logprobs, k)})
        if position + 1 < len(ids):
            given = _given(logprobs, ids[position + 1])
    return pd.DataFrame(made).astype({"rank": "Int64"})


def _given(logprobs: Tensor, token: int) -> dict[str, Any]:
    """What a distribution gives a token."""
    own = logprobs[token]
    rank = int((logprobs > own).sum()) + 1
    return {"probability": float(own.exp()), "rank": rank, "surprise": -float(own)}


def _after(passed: Passed, logprobs: Tensor, k: int) -> dict[str, Any]:
    """What a distribution says."""
    best = logprobs.topk(k)
    return {
        "entropy": -float((logprobs.exp() * logprobs).sum()),
        "next": [passed.opened.strings[token] for token in best.indices.tolist()],
        "next_probabilities": best.values.exp().tolist(),
    }
