"""Steering with the knob: hold u.h = c at the last token of every decoding step.

`sweep` leaves the intent out of the prompts (format "none") and steps c through a range: how often
is the answer's first token the context's or the prior one? The range follows the same rule for
every direction: its own centre +- k times its own spread (mean and standard deviation of u.h over
both intents). `best_values` takes the c at which the context's, and the one at which the prior
answer is likeliest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
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
    def centre(self) -> float:
        return (self.context + self.prior) / 2

    @property
    def values(self) -> list[float]:
        """The sweep's values of c."""
        return [self.centre + k * self.spread for k in STEPS]


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

    index = pd.DataFrame(
        {
            "direction": knob.name,
            "layer": knob.site.layer,
            "context": knob.context,
            "prior": knob.prior,
            "spread": knob.spread,
            "context_c": values[knob.name][0],
            "prior_c": values[knob.name][1],
        }
        for knob in knobs
    )
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
    outcomes: dict[tuple[str, float, float], list[Tensor]] = {}
    ids = [prompter.ids(Row(item, "context")) for item in items]
    answers = torch.tensor([prompter.first_tokens(item) for item in items]).to(subject.device)
    for indices, prompts in cached_batches(subject, ids, batch_size, "sweep the knob"):
        for step, edits in _sweep_steps(knobs):
            logits = prompts.run(edits).logits
            outcomes.setdefault(step, []).append(_outcome(logits, answers[indices]))
    columns = ["direction", "step", "c", "told", "prior", "p_told", "p_prior"]
    rows = [(*step, *torch.cat(parts).mean(0).tolist()) for step, parts in outcomes.items()]
    return pd.DataFrame(rows, columns=columns)


def _sweep_steps(knobs: Sequence[Knob]) -> Iterator[tuple[tuple[str, float, float], list[Edit]]]:
    """(direction, step, c) and the edits of every step of a sweep."""
    for knob in knobs:
        yield (knob.name, math.nan, math.nan), []
        for k, c in zip(STEPS, knob.values, strict=True):
            yield (knob.name, k, c), [set_coordinate(knob.site, knob.vector, c, "last")]


def _outcome(logits: Tensor, ids: Int[Tensor, "batch 2"]) -> Float[Tensor, "batch 4"]:
    """For two tokens of every row: whether each is the likeliest, and their probabilities."""
    likeliest = logits.argmax(-1, keepdim=True) == ids
    return torch.cat([likeliest.float(), logits.float().softmax(-1).gather(1, ids)], 1).cpu()


def best_values(curve: pd.DataFrame, direction: str) -> tuple[float, float]:
    """The values of c at which the context's and the prior answer are likeliest."""
    rows = curve[(curve["direction"] == direction) & curve["step"].notna()]
    values = rows["c"].to_numpy()
    context, prior = (int(rows[name].to_numpy().argmax()) for name in ("p_told", "p_prior"))
    return float(values[context]), float(values[prior])


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
    rows: dict[str, list[Row]] = {knob.name: [] for knob in knobs}
    texts: dict[str, list[str]] = {knob.name: [] for knob in knobs}
    for indices, prompts in cached_batches(subject, ids, batch_size, "steer"):
        for knob in knobs:
            for intent, c in zip(INTENTS[::-1], values[knob.name], strict=True):
                edit = set_coordinate(knob.site, knob.vector, c, "last")
                rows[knob.name] += [Row(items[i], intent) for i in indices]
                texts[knob.name] += answer_texts(subject, prompts, [edit])
    return pd.concat(graded(rows[name], texts[name]).assign(direction=name) for name in rows)
