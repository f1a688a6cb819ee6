"""Steering with the knob: hold u.h = c at the last token of every decoding step.

`sweep` leaves the intent out of the prompts (format "none") and steps c through a range: how often
is the answer's first token the context's or the prior one? The range follows the same rule for
every direction: its own centre +- k times its own spread (mean and standard deviation of u.h over
both intents). `at_best` takes the c at which the context's, and the one at which the prior
answer is likeliest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import UserError
from ..model.edits import Edit, set_coordinate
from ..model.site import Site
from .evaluate import answer_texts, cached_batches, graded
from .items import Item
from .prompts import INTENTS, Prompter, Row

if TYPE_CHECKING:
    import pandas as pd

    from ..directions import Directions
    from ..model.subject import Subject

_ONE_SIDE = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
STEPS = (*(-k for k in _ONE_SIDE[::-1]), 0.0, *_ONE_SIDE)
"""Where the sweep holds a knob, in spreads from its centre."""


@torch.no_grad()
def last_token_states(
    subject: Subject, prompter: Prompter, rows: Sequence[Row], site: Site, batch_size: int = 16
) -> Float[Tensor, "rows d"]:
    """The residual at the last token of every row's prompt."""
    states: list[Tensor] = [torch.empty(0)] * len(rows)
    ids = [prompter.ids(row) for row in rows]
    for indices, prompts in cached_batches(subject, ids, batch_size, f"read {site}"):
        for i, h in zip(indices, prompts.run(sites=[site]).sites[site], strict=True):
            states[i] = h
    return torch.stack(states)


def knobs_along(
    site: Site, vectors: Mapping[str, Tensor], h: Float[Tensor, "rows d"], rows: Sequence[Row]
) -> Directions:
    """Knobs along some vectors. Their index: name, layer, context and prior (mean of u.h under
    each intent, over `rows` with the states h), spread (standard deviation of u.h over both)."""
    import pandas as pd

    from ..directions import Directions

    follows = torch.tensor([row.intent == INTENTS[1] for row in rows])
    units, lines = [], []
    for name, vector in vectors.items():
        units.append(vector.double().cpu() / torch.linalg.vector_norm(vector.double().cpu()))
        along = h.double().cpu() @ units[-1]
        values = (along[follows].mean(), along[~follows].mean(), along.std())
        lines.append((name, site.layer, *map(float, values)))
    index = pd.DataFrame(lines, columns=["name", "layer", "context", "prior", "spread"])
    return Directions(site, torch.stack(units).float(), index)


def baselines(
    h: Float[Tensor, "rows d"], rows: Sequence[Row], seed: int
) -> dict[str, Float[Tensor, " d"]]:
    """Directions to compare with: mean difference, logistic probe, and a random one."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    follows = torch.tensor([row.intent == INTENTS[1] for row in rows])
    x = h.double().cpu()
    scaler = StandardScaler().fit(x.numpy())
    probe = LogisticRegression(max_iter=2000).fit(scaler.transform(x.numpy()), follows.numpy())
    generator = torch.Generator().manual_seed(seed)
    return {
        "mean difference": x[follows].mean(0) - x[~follows].mean(0),
        "logistic probe": torch.from_numpy(probe.coef_[0] / scaler.scale_),
        "random": torch.randn(h.shape[1], generator=generator, dtype=torch.float64),
    }


def sweep_values(knobs: Directions) -> list[list[float]]:
    """For each knob, the values of c at which the sweep holds it."""
    centre = (knobs.index["context"] + knobs.index["prior"]) / 2
    both = zip(centre, knobs.index["spread"], strict=True)
    return [[c + k * spread for k in STEPS] for c, spread in both]


@torch.no_grad()
def sweep(
    subject: Subject,
    prompter: Prompter,
    items: Sequence[Item],
    knobs: Directions,
    batch_size: int = 16,
) -> pd.DataFrame:
    """A line a direction and value: direction, step (spreads from the centre), c, told and prior
    (share of items whose likeliest first token is the context's answer's, the prior answer's),
    p_told, p_prior (their mean probabilities). Step NaN: not steered."""
    import pandas as pd

    if prompter.form != "none":
        raise UserError("a sweep leaves the intent out of its prompts: use the format 'none'")
    steps: list[tuple[str, float, float, list[Edit]]] = []
    for name, u, values in zip(knobs.names, knobs.vectors, sweep_values(knobs), strict=True):
        steps.append((name, math.nan, math.nan, []))
        for k, c in zip(STEPS, values, strict=True):
            steps.append((name, k, c, [set_coordinate(knobs.site, u, c, "last")]))
    outcomes: list[list[Tensor]] = [[] for _ in steps]
    ids = [prompter.ids(Row(item, "context")) for item in items]
    answers = torch.tensor([prompter.first_tokens(item) for item in items]).to(subject.device)
    for indices, prompts in cached_batches(subject, ids, batch_size, "sweep the knob"):
        for (*_, edits), parts in zip(steps, outcomes, strict=True):
            parts.append(_outcome(prompts.run(edits).logits, answers[indices]))
    columns = ["direction", "step", "c", "told", "prior", "p_told", "p_prior"]
    means = [torch.cat(parts).mean(0).tolist() for parts in outcomes]
    rows = [(*step[:3], *mean) for step, mean in zip(steps, means, strict=True)]
    return pd.DataFrame(rows, columns=columns)


def _outcome(logits: Tensor, ids: Int[Tensor, "batch 2"]) -> Float[Tensor, "batch 4"]:
    """For two tokens of every row: whether each is the likeliest, and their probabilities."""
    likeliest = logits.argmax(-1, keepdim=True) == ids
    return torch.cat([likeliest.float(), logits.float().softmax(-1).gather(1, ids)], 1).cpu()


def at_best(knobs: Directions, curve: pd.DataFrame) -> Directions:
    """The knobs with context_c and prior_c: the values of c at which the context's and the prior
    answer are likeliest in a sweep."""
    steered = curve[curve["step"].notna()].set_index("c")
    best = steered.groupby("direction")[["p_told", "p_prior"]].idxmax()
    chosen = best.loc[knobs.names].to_numpy()
    return replace(knobs, index=knobs.index.assign(context_c=chosen[:, 0], prior_c=chosen[:, 1]))


def steered_answers(
    subject: Subject,
    prompter: Prompter,
    items: Sequence[Item],
    knobs: Directions,
    batch_size: int = 16,
) -> pd.DataFrame:
    """Answers to prompts without an intent: evaluate.answer_rows' columns, and direction. Every
    knob is held at its value for the context, context_c, then at that for prior knowledge."""
    import pandas as pd

    ids = [prompter.ids(Row(item, "context")) for item in items]
    tables = []
    chosen = knobs.index[["context_c", "prior_c"]].to_numpy(float).tolist()
    for indices, prompts in cached_batches(subject, ids, batch_size, "steer"):
        for name, u, values in zip(knobs.names, knobs.vectors, chosen, strict=True):
            for intent, c in zip(INTENTS[::-1], values, strict=True):
                edit = set_coordinate(knobs.site, u, c, "last")
                texts = answer_texts(subject, prompts, [edit])
                answers = graded([Row(items[i], intent) for i in indices], texts)
                tables.append(answers.assign(direction=name))
    return pd.concat(tables)
