"""Steering with the knob: hold u.h = c at the last token of every decoding step.

`sweep` leaves the intent out of the prompts (format "none") and steps c through a range: how often
is the answer's first token the context's or the prior one? The range follows the same rule for
every direction: its own centre +- k times its own spread (mean and standard deviation of u.h over
both intents). `best_values` takes the c at which the context's, and the one at which the prior
answer is likeliest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

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


class Knob(NamedTuple):
    """A unit vector u at a site, and the values of u.h there under the two intents."""

    name: str
    site: Site
    vector: Float[Tensor, " d"]
    context: float
    """Mean of u.h under the intent "context"."""
    prior: float
    """Mean of u.h under the intent "prior"."""
    spread: float
    """Standard deviation of u.h over both intents."""

    @property
    def values(self) -> list[float]:
        """The sweep's values of c."""
        return [(self.context + self.prior) / 2 + k * self.spread for k in STEPS]

    def held(self, c: float) -> Edit:
        """Hold u.h = c at the last token."""
        return set_coordinate(self.site, self.vector, c, "last")


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


def knob_along(name: str, site: Site, vector: Tensor, h: Tensor, rows: Sequence[Row]) -> Knob:
    """The knob along a vector, with its values of u.h over `rows` (states h [rows, d])."""
    unit = vector.double().cpu() / torch.linalg.vector_norm(vector.double().cpu())
    along = h.double().cpu() @ unit
    follows = torch.tensor([row.intent == INTENTS[1] for row in rows])
    return Knob(
        name, site, unit.float(), float(along[follows].mean()), float(along[~follows].mean()),
        float(along.std()),
    )  # fmt: skip


def baselines(
    site: Site, h: Float[Tensor, "rows d"], rows: Sequence[Row], seed: int
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


def knobs_to_directions(
    knobs: Sequence[Knob], values: Mapping[str, tuple[float, float]], about: dict[str, Any]
) -> Directions:
    """The knobs as Directions; `values` has the chosen (context, prior) values of c by name."""
    import pandas as pd

    from ..directions import Directions

    columns = ["direction", "layer", "context", "prior", "spread", "context_c", "prior_c"]
    rows = [(k.name, k.site.layer, k.context, k.prior, k.spread, *values[k.name]) for k in knobs]
    index = pd.DataFrame(rows, columns=columns)
    return Directions(knobs[0].site, torch.stack([k.vector for k in knobs]), index, about)


def knobs_from_directions(directions: Directions) -> list[Knob]:
    """The knobs that `knobs_to_directions` was given."""
    index = directions.index
    numbers = index[["context", "prior", "spread"]].astype(float).itertuples(index=False)
    rows = zip(map(str, index["direction"]), directions.vectors, numbers, strict=True)
    return [Knob(name, directions.site, vector, *values) for name, vector, values in rows]


@torch.no_grad()
def sweep(
    subject: Subject,
    prompter: Prompter,
    items: Sequence[Item],
    knobs: Sequence[Knob],
    batch_size: int = 16,
) -> pd.DataFrame:
    """A line a direction and value: direction, step (spreads from the centre), c, told and prior
    (share of items whose likeliest first token is the context's answer's, the prior answer's),
    p_told, p_prior (their mean probabilities). Step NaN: not steered."""
    import pandas as pd

    if prompter.form != "none":
        raise UserError("a sweep leaves the intent out of its prompts: use the format 'none'")
    steps = [
        (knob, *step)
        for knob in knobs
        for step in ((math.nan, math.nan), *zip(STEPS, knob.values, strict=True))
    ]
    outcomes: list[list[Tensor]] = [[] for _ in steps]
    ids = [prompter.ids(Row(item, "context")) for item in items]
    answers = torch.tensor([prompter.first_tokens(item) for item in items]).to(subject.device)
    for indices, prompts in cached_batches(subject, ids, batch_size, "sweep the knob"):
        for (knob, _, c), parts in zip(steps, outcomes, strict=True):
            logits = prompts.run([] if math.isnan(c) else [knob.held(c)]).logits
            parts.append(_outcome(logits, answers[indices]))
    columns = ["direction", "step", "c", "told", "prior", "p_told", "p_prior"]
    means = [torch.cat(parts).mean(0).tolist() for parts in outcomes]
    rows = [(knob.name, k, c, *x) for (knob, k, c), x in zip(steps, means, strict=True)]
    return pd.DataFrame(rows, columns=columns)


def _outcome(logits: Tensor, ids: Int[Tensor, "batch 2"]) -> Float[Tensor, "batch 4"]:
    """For two tokens of every row: whether each is the likeliest, and their probabilities."""
    likeliest = logits.argmax(-1, keepdim=True) == ids
    return torch.cat([likeliest.float(), logits.float().softmax(-1).gather(1, ids)], 1).cpu()


def best_values(curve: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """The values of c at which the context's and the prior answer are likeliest, by direction."""
    steered = curve[curve["step"].notna()].set_index("c")
    best = steered.groupby("direction")[["p_told", "p_prior"]].idxmax()
    return {str(name): (told, prior) for name, told, prior in best.itertuples()}


def steered_answers(
    subject: Subject,
    prompter: Prompter,
    items: Sequence[Item],
    knobs: Sequence[Knob],
    values: Mapping[str, tuple[float, float]],
    batch_size: int = 16,
) -> pd.DataFrame:
    """Answers to prompts without an intent: evaluate.answer_rows' columns, and direction. Every
    knob is held at its value for the context, then at its value for prior knowledge."""
    import pandas as pd

    ids = [prompter.ids(Row(item, "context")) for item in items]
    tables = []
    for indices, prompts in cached_batches(subject, ids, batch_size, "steer"):
        for knob in knobs:
            for intent, c in zip(INTENTS[::-1], values[knob.name], strict=True):
                texts = answer_texts(subject, prompts, [knob.held(c)])
                answers = graded([Row(items[i], intent) for i in indices], texts)
                tables.append(answers.assign(direction=knob.name))
    return pd.concat(tables)
