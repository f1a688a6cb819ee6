"""Does an edit raise a word? A sweep of its strength over neutral prompts, beside controls.

The *gain* of what is swept is the maximum over the sweep of the mean rise of the word's log
probability as the next token. Controls are read for the same word, with the same sweep and the same
maximum: taking the best of many values favours neither. Naive equivalent of one value:

    with subject.edited(edit at that value):
        logits(prompts)[:, -1].log_softmax(-1)[:, ids].logsumexp(-1).mean()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from jaxtyping import Bool, Float
    from torch import Tensor

    from ..model.edits import Edit
    from ..model.subject import Subject

    Swept = Callable[[Float[Tensor, " batch"], Bool[Tensor, "batch pos"]], Edit]
    """(a value for each text, where to act) -> the edit."""

PROMPTS = (
    "I would like to talk about the",
    "The first thing that comes to mind is the",
    "Yesterday somebody asked me about the",
)
"""Neutral texts."""


class Sweep:
    """Passes of some prompts, without an edit and with it at each of some values, all in one; what
    comes before the edits is computed once (`Again`)."""

    def __init__(self, subject: Subject, prompts: Sequence[str], values: Sequence[float]) -> None:
        import torch

        from ..model.again import Again

        self._subject, self._settings = subject, 1 + len(values)
        batch = subject.tokens(tuple(prompts) * self._settings)
        self._each = torch.tensor((0.0, *values)).repeat_interleave(len(prompts))
        self._where = torch.ones_like(batch.mask)
        self._where[: len(prompts)] = False
        self._again = Again(subject, batch)

    def logprobs(self, ids: Sequence[int], edit: Swept) -> list[float]:
        """Mean over the prompts of the log probability that one of the ids is the next token:
        without the edit, then at each value."""
        with self._subject.edited(edit(self._each, self._where)):
            # left-padded, so the last position is every prompt's own last
            logits = self._again.logits()[:, -1].double()
        logprobs = logits.log_softmax(-1)[:, list(ids)].logsumexp(-1)
        means: list[float] = logprobs.view(self._settings, -1).mean(1).tolist()
        return means


class Gain(NamedTuple):
    """What a sweep gains, beside its controls."""

    logprob: float
    """Without the edit."""
    gain: float
    value: float
    """Where it is reached."""
    control_mean: float
    control_max: float
    """Of the controls' gains."""
    beats: bool
    """Whether the gain exceeds every control's."""


def gain_of(rows: pd.DataFrame) -> Gain:
    """Of the rows of one word: `name`, `control`, `value` (null without the edit), `logprob`."""
    plain = float(rows[rows["value"].isna()]["logprob"].iloc[0])
    held = rows[rows["value"].notna()]
    own, others = held[~held["control"]], held[held["control"]]
    best = own.sort_values("logprob").iloc[-1]
    gains = others.groupby("name")["logprob"].max() - plain
    gain = float(best["logprob"]) - plain
    return Gain(
        *(plain, gain, float(best["value"]), float(gains.mean()), float(gains.max())),
        bool(gain > gains.max()),
    )


def check_prompts(prompts: Sequence[str]) -> None:
    """Raise UserError for a prompt without text."""
    if not all(prompt.strip() for prompt in prompts):
        raise UserError("a prompt is empty: give every one of --prompts some text")
