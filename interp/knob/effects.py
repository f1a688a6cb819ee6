"""What turning the knob costs, where it goes with PairAcc, and what the direction is.

Written to the run of `interp knob learn`:
`effects/perplexity-<model>.parquet`    model (tuned or untuned), and steer.perplexity's columns
`effects/configurations-<model>.parquet`    model, shots, format, separation: |mean(u.h | context) -
    mean(u.h | prior)| over held-out items' prompts, and evaluate.scores' columns
`decode/tokens.parquet`    the knob and its baselines through the LM head (Directions.decode, the
    final norm's gain first)
`decode/neurons.parquet`   direction, neuron, cosine: the neurons of the layers around whose down
    projections write most along each, or against it
`decode/split.parquet`     with an SAE: Directions.split on last tokens of held-out prompts, the map
    fitted on those of the training items; latent, latent_cosine: the nearest decoder row
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..runs.store import RunWriter
from .data import some
from .evaluate import answer_rows, demonstrations, scores
from .items import Splits
from .learn import TEXT, LearnSettings
from .prompts import Format, Prompter, rows_of

if TYPE_CHECKING:
    import pandas as pd

    from ..directions import Directions
    from ..model.subject import Subject
    from .steer import Knob

SHOTS = (0, 4, 10)
FORMATS: tuple[Format, ...] = ("instruction", "float")
NEAREST = 8
"""Neurons kept for a direction."""


def price(config: LearnSettings, subject: Subject, knob: Knob, tuned: bool, out: RunWriter) -> None:
    """`effects/perplexity-….parquet`: nats a token of ordinary text over c."""
    import pandas as pd

    from ..text.corpus import read_corpus, token_rows
    from .steer import perplexity

    model = "tuned" if tuned else "untuned"
    if out.has(f"effects/perplexity-{model}.parquet"):
        return

    def encode(text: str) -> list[int]:
        return list(subject.tokenizer.encode(text, add_special_tokens=False))

    text = list(token_rows(read_corpus(None), encode, TEXT, None, config.text_tokens))
    lines = perplexity(subject, knob, text, knob.values[::2])
    with out.part(f"effects/perplexity-{model}.parquet") as path:
        pd.DataFrame(lines).assign(model=model).to_parquet(path)


def configurations(
    config: LearnSettings, subject: Subject, splits: Splits, knob: Knob, tuned: bool, out: RunWriter
) -> None:
    """`effects/configurations-….parquet`: separation beside PairAcc, by demonstrations and
    format."""
    import pandas as pd

    from .steer import states

    model = "tuned" if tuned else "untuned"
    if out.has(f"effects/configurations-{model}.parquet"):
        return
    rows = rows_of(some(splits.subjects or splits.relations, config.separate_items, config.seed))
    found = []
    for count in SHOTS:
        if count > len({item.key for item in splits.train}):
            continue
        shots = demonstrations(splits.train, count, config.seed) if count else []
        for form in FORMATS:
            prompter = Prompter(subject.tokenizer, form, shots, config.template)
            h = states(subject, prompter, rows, knob.site, config.batch_size)
            along = h.double().cpu() @ knob.vector.double()
            separation = abs(float(along[1::2].mean() - along[::2].mean()))
            found.append(
                {"model": model, "shots": count, "format": form, "separation": separation}
                | scores(answer_rows(subject, prompter, rows, config.batch_size))
            )
    with out.part(f"effects/configurations-{model}.parquet") as path:
        pd.DataFrame(found).to_parquet(path)


def decode(config: LearnSettings, subject: Subject, splits: Splits, out: RunWriter) -> None:
    """`decode/`: tokens, neurons and, with an SAE, what it sees of the knob."""
    from ..directions import Directions
    from ..model.weights import open_weights

    knob = Directions.load(out.path / "knob")
    if not out.has("decode/tokens.parquet"):
        with out.part("decode/tokens.parquet") as path:
            knob.decode(open_weights(config.model), norm="final").to_parquet(path)
    if not out.has("decode/neurons.parquet"):
        with out.part("decode/neurons.parquet") as path:
            nearest_neurons(knob, config.model).to_parquet(path)
    if config.sae and not out.has("decode/split.parquet"):
        with out.part("decode/split.parquet") as path:
            split_knob(config, subject, splits, knob).to_parquet(path)


def nearest_neurons(knob: Directions, model: str) -> pd.DataFrame:
    """A line a direction and neuron, the largest |cosine| first: of the knob's layer, the one
    before and the one after."""
    import pandas as pd

    from ..directions import Directions
    from ..model.weights import open_weights

    weights, layer = open_weights(model), knob.site.layer or 0
    layers = range(max(layer - 1, 0), min(layer + 2, weights.spec.n_layers))
    names = [f"{i}.down.{n}" for i in layers for n in range(weights.spec.d_mlp)]
    vectors = torch.cat([weights.neurons("down", i).float() for i in layers])
    neurons = Directions(knob.site, vectors, pd.DataFrame({"name": names}))
    lines = []
    for name, row in zip(knob.index["direction"], knob.cosine(neurons), strict=True):
        for place in row.abs().argsort(descending=True)[:NEAREST].tolist():
            lines.append({"direction": name, "neuron": names[place], "cosine": float(row[place])})
    return pd.DataFrame(lines)


def split_knob(
    config: LearnSettings, subject: Subject, splits: Splits, knob: Directions
) -> pd.DataFrame:
    """How much of u.h at held-out prompts' last tokens an SAE reconstructs.

    Raises:
        UserError: an SAE of another site or width.
    """
    from pathlib import Path

    from interp.saes.sae import SaeSplit, load_sae, pretrained_sae

    from ..directions import Directions
    from .steer import states

    release, _, sae_id = config.sae.partition(":")
    sae = pretrained_sae(release, sae_id) if sae_id else load_sae(Path(config.sae).expanduser())
    prompter = Prompter(subject.tokenizer, template=config.template)
    fitted, fresh = (
        states(subject, prompter, rows_of(items), knob.site, config.batch_size)
        for items in (splits.train, splits.validation + splits.subjects)
    )
    table = knob.split(SaeSplit.of(sae, fitted, ridge=1e-3), fresh)
    latents = Directions(knob.site, sae.W_dec, knob.index.iloc[:0].reindex(range(sae.d_sae)))
    cosine = knob.cosine(latents)
    nearest = cosine.abs().argmax(1)
    table["latent"] = nearest.tolist()
    table["latent_cosine"] = cosine.gather(1, nearest[:, None])[:, 0].tolist()
    return table
