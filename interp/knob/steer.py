"""Turning the knob: u.h = c at the last token of every decoding step, and what that does.

`sweep`: the intent left out of the prompts (format "none"), c over a range, how often the answer's
first token is the context's or the prior one. The range is the same for every direction: its own
centre +- k times its own spread (mean and standard deviation of u.h over both intents). `chosen`
takes the c at which the context's (the prior) answer is likeliest. `perplexity`: nats a token on
ordinary text while the coordinate is held at every position, each being the last one in its turn,
by how far into the text the token is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..model.edits import Edit, set_coordinate
from ..model.site import Site
from ..progress import progress
from .evaluate import answered, batched, graded
from .items import Item
from .prompts import INTENTS, Prompter, Row

if TYPE_CHECKING:
    import pandas as pd

    from ..model.subject import Subject

_ONE_SIDE = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
STEPS = (*(-k for k in _ONE_SIDE[::-1]), 0.0, *_ONE_SIDE)
"""How far the sweep turns a knob, in spreads from its centre."""
STRETCH = 16
"""Positions of a text whose losses are averaged."""


class Knob(NamedTuple):
    """A unit vector at a site, and what u.h is there under the two intents."""

    name: str
    site: Site
    vector: Float[Tensor, " d"]
    context: float
    """Mean of u.h where the context is to be followed."""
    prior: float
    spread: float
    """Standard deviation of u.h over both intents."""

    @property
    def centre(self) -> float:
        return (self.context + self.prior) / 2

    @property
    def values(self) -> list[float]:
        """The values of c that the sweep goes through."""
        return [self.centre + k * self.spread for k in STEPS]


@torch.no_grad()
def states(
    subject: Subject, prompter: Prompter, rows: Sequence[Row], site: Site, batch_size: int = 16
) -> Float[Tensor, "rows d"]:
    """The residual at the last token of every row's prompt."""
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    prompts = [prompter.ids(row) for row in rows]
    for places, last in batched(subject, prompts, batch_size, f"read {site}"):
        for place, h in zip(places, last.run(sites=[site]).sites[site], strict=True):
            found[place] = h
    return torch.stack(found)


def make_knob(name: str, site: Site, vector: Tensor, h: Tensor, rows: Sequence[Row]) -> Knob:
    """The knob along a vector, with its coordinates over `rows` (states h [rows, d])."""
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
    """Directions that need no interchange: mean difference, logistic probe, and a random one."""
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


@torch.no_grad()
def sweep(
    subject: Subject,
    prompter: Prompter,
    items: Sequence[Item],
    knobs: Sequence[Knob],
    batch_size: int = 16,
) -> pd.DataFrame:
    """A line a direction and value: direction, step (spreads from the centre), c, told and prior
    (share of items whose likeliest first token is that answer's), p_told, p_prior (mean
    probabilities). Step NaN: not turned."""
    import pandas as pd

    if prompter.form != "none":
        raise UserError("a sweep leaves the intent out of its prompts: use the format 'none'")
    lines: dict[tuple[str, float | None], list[Tensor]] = {}
    prompts = [prompter.ids(Row(item, "context")) for item in items]
    for places, last in batched(subject, prompts, batch_size, "turn the knob"):
        ids = torch.tensor(
            [[prompter.answer_ids(a)[0] for a in (items[i].told, items[i].prior)] for i in places]
        ).to(subject.device)
        for place, edits in _turns(knobs):
            lines.setdefault(place, []).append(_outcome(last.run(edits).logits, ids))
    by_name = {knob.name: knob for knob in knobs}
    rows = []
    for (name, k), found in lines.items():
        told, prior, p_told, p_prior = torch.cat(found).mean(0).tolist()
        c = None if k is None else by_name[name].centre + k * by_name[name].spread
        rows.append(
            {"direction": name, "step": k, "c": c, "told": told, "prior": prior}
            | {"p_told": p_told, "p_prior": p_prior}
        )
    return pd.DataFrame(rows).astype({"step": float, "c": float})


def _turns(knobs: Sequence[Knob]) -> Iterator[tuple[tuple[str, float | None], list[Edit]]]:
    for knob in knobs:
        yield (knob.name, None), []
        for k, c in zip(STEPS, knob.values, strict=True):
            yield (knob.name, k), [set_coordinate(knob.site, knob.vector, c, "last")]


def _outcome(logits: Tensor, ids: Tensor) -> Float[Tensor, "batch 4"]:
    likeliest = logits.argmax(-1, keepdim=True) == ids
    return torch.cat([likeliest.float(), logits.float().softmax(-1).gather(1, ids)], 1).cpu()


def chosen(curve: pd.DataFrame, direction: str) -> tuple[float, float]:
    """The c for the context and the c for prior knowledge: where each is likeliest."""
    turned = curve[(curve["direction"] == direction) & curve["step"].notna()]
    values = turned["c"].to_numpy()
    told, prior = (int(turned[name].to_numpy().argmax()) for name in ("p_told", "p_prior"))
    return float(values[told]), float(values[prior])


def steered(
    subject: Subject,
    prompter: Prompter,
    items: Sequence[Item],
    knobs: Sequence[Knob],
    values: Mapping[str, tuple[float, float]],
    batch_size: int = 16,
) -> pd.DataFrame:
    """Answers to prompts without an intent, as evaluate.answer_rows gives them, and `direction`:
    every knob held at its value for the context and at its value for prior knowledge in turn."""
    import pandas as pd

    prompts = [prompter.ids(Row(item, "context")) for item in items]
    rows: dict[str, list[Row]] = {knob.name: [] for knob in knobs}
    texts: dict[str, list[str]] = {knob.name: [] for knob in knobs}
    for places, last in batched(subject, prompts, batch_size, "steer"):
        for knob in knobs:
            for intent, c in zip(INTENTS[::-1], values[knob.name], strict=True):
                edit = set_coordinate(knob.site, knob.vector, c, "last")
                rows[knob.name] += [Row(items[i], intent) for i in places]
                texts[knob.name] += answered(subject, last, [edit])
    return pd.concat(graded(rows[name], texts[name]).assign(direction=name) for name in rows)


@torch.no_grad()
def perplexity(
    subject: Subject, knob: Knob, rows: Sequence[Sequence[int]], values: Sequence[float]
) -> list[dict[str, float]]:
    """A line a value and stretch of positions: c (NaN: not turned), position (the stretch's first
    one), tokens, nats (of a token there), with u.h held at c at every position."""
    found = []
    with progress("side effects", len(values) + 1, "values") as advance:
        for c in (float("nan"), *values):
            edits = [] if c != c else [set_coordinate(knob.site, knob.vector, c, "all")]
            with subject.edited(*edits):
                found += [{"c": c, **line} for line in _nats(subject, rows)]
            advance(1)
    return found


def _nats(subject: Subject, rows: Sequence[Sequence[int]]) -> list[dict[str, float]]:
    total: dict[int, list[float]] = {}
    for row in rows:
        ids = torch.tensor(row, device=subject.device)
        logprobs = subject.logits(ids)[0, :-1].float().log_softmax(-1)
        for place, x in enumerate(logprobs.gather(1, ids[1:, None])[:, 0].tolist()):
            total.setdefault(place // STRETCH * STRETCH, []).append(-x)
    return [
        {"position": place, "tokens": len(lost), "nats": sum(lost) / len(lost)}
        for place, lost in total.items()
    ]
