"""What steering costs, how separation goes with PairAcc, and what the knob's direction is.

Tables in the run of `interp knob learn`; <model> is tuned or untuned:
`effects/perplexity-<model>`    model, and text_nats' columns
`effects/configurations-<model>`    model, shots, format, separation: |mean(u.h | context) -
    mean(u.h | prior)| over held-out items' prompts, and evaluate.scores' columns
`decode/tokens`    the knob and its baselines through the LM head (Directions.decode, norm "final")
`decode/neurons`   direction, neuron, cosine: for each direction, neurons of the layers around, the
    largest |cosine| of what they add with it
`decode/split`     with an SAE: Directions.split at last tokens of held-out prompts (its linear map
    is fitted on the training items' prompts, with RIDGE); latent, latent_cosine: the nearest
    decoder row
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..model.edits import set_coordinate
from ..progress import progress
from .data import sample
from .evaluate import answer_rows, scores
from .items import Splits
from .prompts import Format, rows_of
from .settings import TEXT_ROW, LearnSettings
from .steer import last_token_states, sweep_values

if TYPE_CHECKING:
    import pandas as pd

    from ..directions import Directions
    from ..model.subject import Subject
    from ..model.weights import Weights
    from ..saes.open import Saes
    from .stages import Work

SHOTS = (0, 4, 10)
FORMATS: tuple[Format, ...] = ("instruction", "float")
NAMED = {"name": "direction"}
"""What a direction is called in the knob's tables."""
NEAREST = 8
"""Neurons to keep for a direction."""
RIDGE = 1e-6
"""Of the map to the SAE's error, in mean variances of x: it decides where prompts are fewer than
numbers, and takes nothing from an error that is linear."""
STRETCH = 16
"""Positions of a text whose losses are averaged."""


def text_cost(work: Work, knob: Directions, model: str) -> None:
    """`effects/perplexity-<model>`: nats a token of ordinary text over c."""
    import pandas as pd

    from ..text.corpus import read_corpus, token_rows

    subject, tokens = work.subject, work.config.text_tokens

    def measured() -> pd.DataFrame:
        text = token_rows(read_corpus(None), subject.prompting, TEXT_ROW, tokens)
        lines = text_nats(subject, knob, list(text), sweep_values(knob)[0][::2])
        return pd.DataFrame(lines).assign(model=model)

    work.out.table_once(f"effects/perplexity-{model}", measured)


@torch.no_grad()
def text_nats(
    subject: Subject, knob: Directions, rows: Sequence[Sequence[int]], values: Sequence[float]
) -> list[dict[str, float]]:
    """The loss on text while u.h is held at c at every position, each the last one in its turn.

    A line a value and stretch of positions: c (NaN: not steered), position (the first one of the
    stretch), tokens (their number there), nats (their mean loss).
    """
    lines = []
    with progress("side effects", len(values) + 1, "values") as advance:
        for c in (float("nan"), *values):
            edits = [] if c != c else [set_coordinate(knob.site, knob.vectors[0], c, "all")]
            with subject.edited(*edits):
                lines += [{"c": c, **line} for line in _nats_by_stretch(subject, rows)]
            advance(1)
    return lines


def _nats_by_stretch(subject: Subject, rows: Sequence[Sequence[int]]) -> list[dict[str, float]]:
    losses: dict[int, list[float]] = {}
    for row in rows:
        ids = torch.tensor(row, device=subject.device)
        logprobs = subject.logits(ids)[0, :-1].float().log_softmax(-1)
        start = len(subject.prompting.start)  # what follows a BOS is no loss on text
        nats = logprobs.gather(1, ids[1:, None])[start:, 0].tolist()
        for position, x in enumerate(nats):
            losses.setdefault(position // STRETCH * STRETCH, []).append(-x)
    return [
        {"position": start, "tokens": len(nats), "nats": sum(nats) / len(nats)}
        for start, nats in losses.items()
    ]


def configurations(work: Work, knob: Directions, model: str) -> None:
    """`effects/configurations-<model>`: separation and PairAcc, by demonstrations and format."""
    config, subject, splits = work.config, work.subject, work.splits

    name = f"effects/configurations-{model}"
    held = splits.subjects or splits.relations
    rows = rows_of(sample(held, config.separate_items, config.seed))
    facts = len({item.key for item in splits.train})
    asked = [(shots, form) for shots in SHOTS if shots <= facts for form in FORMATS]

    def of(some: Sequence[tuple[int, Format]]) -> Iterator[Mapping[str, Any]]:
        for shots, form in some:
            prompter = config.prompter(subject, form, splits.train, shots)
            h = last_token_states(subject, prompter, rows, knob.site, config.batch_size)
            along = h.double().cpu() @ knob.vectors[0].double()
            separation = abs(float(along[1::2].mean() - along[::2].mean()))
            about = {"model": model, "shots": shots, "format": form, "separation": separation}
            yield about | scores(answer_rows(subject, prompter, rows, config.batch_size))

    def measured() -> pd.DataFrame:
        return work.out.in_pieces(name, asked, of, 1, "configurations", "configurations")

    work.out.table_once(name, measured)


def decode(work: Work, knob: Directions) -> None:
    """`decode/`: tokens, neurons and, with an SAE, how it splits the knob and its baselines."""
    config, out = work.config, work.out
    weights = config.stored_weights
    out.table_once(
        "decode/tokens", lambda: knob.decode(weights, lens="final").rename(columns=NAMED)
    )
    out.table_once("decode/neurons", lambda: nearest_neurons(knob, weights))
    if config.sae:
        out.table_once("decode/split", lambda: split_knob(config, work.subject, work.splits, knob))


def nearest_neurons(knob: Directions, weights: Weights) -> pd.DataFrame:
    """A line a direction and neuron, the largest |cosine| first, from the knob's layer, the one
    before and the one after."""
    import pandas as pd

    from ..directions import Directions

    layer = knob.site.layer or 0
    near = range(max(layer - 1, 0), min(layer + 2, weights.spec.n_layers))
    lines = []
    for at, bank in ((i, bank) for i in near for bank in weights.banks(i)):
        names = [f"{at}.{bank.prefix}down.{n}" for n in range(bank.size)]
        vectors = weights.in_stream("down", at, bank.expert)
        neurons = Directions(knob.site, vectors, pd.DataFrame({"name": names}))
        for place, row in enumerate(knob.cosine(neurons)):
            for n in row.abs().argsort(descending=True)[:NEAREST].tolist():
                lines.append({"place": place, "neuron": names[n], "cosine": float(row[n])})
    found = pd.DataFrame(lines).sort_values("cosine", key=abs, ascending=False, kind="stable")
    nearest = found.groupby("place").head(NEAREST).sort_values("place", kind="stable")
    nearest.insert(0, "direction", [knob.names[i] for i in nearest.pop("place")])
    return nearest.reset_index(drop=True)


def knob_saes(config: LearnSettings, site: str) -> Saes:
    """The SAEs to split the knob by.

    Raises:
        UserError: as `open_saes`.
    """
    from ..saes import open_saes

    return open_saes(config.sae, site, model=config.model, anyway=config.anyway)


def split_knob(
    config: LearnSettings, subject: Subject, splits: Splits, knob: Directions
) -> pd.DataFrame:
    """How much of u.h at held-out prompts' last tokens an SAE reconstructs.

    Raises:
        UserError: SAEs of another site, width or model.
    """
    import pandas as pd

    from ..directions import Directions
    from ..saes import SaeSplit

    sae = knob_saes(config, str(knob.site)).chosen("")
    prompter = config.prompter(subject)
    fitted, fresh = (
        last_token_states(subject, prompter, rows_of(items), knob.site, config.batch_size)
        for items in (splits.train, splits.validation + splits.subjects)
    )
    table = knob.split(SaeSplit.of(sae, fitted, RIDGE), fresh, config.anyway)
    latents = Directions(knob.site, sae.W_dec, pd.DataFrame({"name": range(sae.d_sae)}))
    cosine = knob.cosine(latents)
    nearest = cosine.abs().argmax(1)
    table["latent"] = nearest.tolist()
    table["latent_cosine"] = cosine.gather(1, nearest[:, None])[:, 0].tolist()
    return table.rename(columns=NAMED)
