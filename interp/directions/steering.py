"""What a model says as it is and under several edits (`acts`), token by token, in one conversation.

Naive equivalent of one side:

    with subject.edited(*edits):
        subject.generate(batch, tokens)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..errors import UserError
from ..model.batch import Batch, Sampling, Step
from ..model.edits import Edit
from ..model.subject import Subject
from ..progress import progress

PLAIN, EDITED = "as it is", "edited"
"""The two sides."""


def streamed(
    subject: Subject,
    batches: Mapping[str, Batch],
    edits: Mapping[str, Sequence[Edit]],
    tokens: int,
    how: Sampling,
) -> Iterator[tuple[str, Step]]:
    """New tokens of several sides, one of each in turn; each side's edits are in scope for its own
    passes alone, and none while this waits to be asked for more."""
    running = {side: subject.stream(batch, tokens, how) for side, batch in batches.items()}
    while running:
        for side in list(running):
            with subject.edited(*edits[side]):
                step = next(running[side], None)
            if step is None:
                del running[side]
            else:
                yield side, step


def answer_text(subject: Subject, ids: Sequence[int]) -> str:
    """New tokens as text, without the one that ends it."""
    whole = bool(ids) and ids[-1] in subject.ends
    return subject.text(torch.tensor(ids[:-1] if whole else ids, dtype=torch.long))


def turn(subject: Subject, prompts: Sequence[str], answers: Sequence[str], chat: bool) -> Batch:
    """What the model gets at the end of a conversation: the user's messages, with an answer to each
    but the last; of a text to continue, the text.

    Raises:
        UserError: an empty message; several without a chat template.
    """
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise UserError("the prompt is empty: type some text")
    if not chat:
        if len(prompts) > 1:
            raise UserError("several messages are a conversation: use the chat template")
        return subject.tokens(prompts[0])
    messages = []
    for number, prompt in enumerate(prompts):
        messages.append({"role": "user", "content": prompt})
        if number < len(prompts) - 1:
            messages.append({"role": "assistant", "content": answers[number]})
    return subject.chat(messages)


def compared(
    subject: Subject,
    edits: Sequence[Edit],
    prompts: Sequence[str],
    chat: bool = True,
    tokens: int = 24,
    how: Sampling = Sampling(),  # noqa: B008  it is a tuple
) -> pd.DataFrame:
    """What the model says as it is and edited, over a conversation of one or more messages; each
    side goes on from its own answers.

    Returns:
        A row a message and side: `turn`, `side`, `next` (the most likely first token), its
        `probability`, `kl` (from the distribution as it is to the edited one, in nats; NaN behind
        answers that differ) and `text`.
    """
    sides = {PLAIN: (), EDITED: tuple(edits)}
    said: dict[str, list[str]] = {side: [] for side in sides}
    made: list[dict[str, Any]] = []
    with progress("answer", len(prompts), "messages") as advance:
        for number in range(len(prompts)):
            asked = prompts[: number + 1]
            batches = {side: turn(subject, asked, said[side], chat) for side in sides}
            first, ids = {}, {side: [] for side in sides}  # type: ignore[var-annotated]
            for side, step in streamed(subject, batches, sides, tokens, how):
                first.setdefault(side, step.logits[0].double().log_softmax(-1))
                ids[side].append(int(step.ids[0]))
            same = said[PLAIN] == said[EDITED]
            for side in sides:
                best = int(first[side].argmax())
                row = {"turn": number, "side": side, "next": subject.text(torch.tensor([best]))}
                row["probability"] = float(first[side][best].exp())
                row["kl"] = divergence(first[PLAIN], first[side]) if same else math.nan
                made.append({**row, "text": answer_text(subject, ids[side])})
            for side in sides:
                said[side].append(answer_text(subject, ids[side]))
            advance(1)
    return pd.DataFrame(made)


def divergence(before: Tensor, after: Tensor) -> float:
    """KL from one distribution to another, of log probabilities, in nats."""
    return float((before.exp() * (before - after)).nan_to_num(0.0).sum())


def next_tokens(subject: Subject, before: Tensor, after: Tensor, most: int = 12) -> pd.DataFrame:
    """The likeliest next tokens of two distributions, log probabilities [d_vocab]: `token`,
    `before`, `after`, the likeliest afterwards first."""
    best = (before.exp() + after.exp()).topk(min(most, len(before))).indices
    best = best[after[best].argsort(descending=True)]
    rows = {"token": [subject.text(i[None]) for i in best]}
    rows |= {"before": before[best].exp().tolist(), "after": after[best].exp().tolist()}
    return pd.DataFrame(rows)
