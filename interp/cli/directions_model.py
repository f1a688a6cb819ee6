"""`interp directions text`, `nearest`, `split`: one direction against a text, the model's
neurons and an SAE.

They stand in the group of `interp directions`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..runs.store import Store
from .common import Json, Limit, Runs, command, positive, print_frame, say
from .directions import AskedBos, Model, Source, bos_of, directions

Kind = Literal["up", "gate", "down"]


@command(directions, "text")
def text(
    source: Source,
    text: str,
    row: int = 0,
    model: Model = None,
    bos: AskedBos = "auto",
    runs: Runs = None,
    json: Json = False,
) -> None:
    """A direction's score at every token of a text.

    Args:
        text: The text, as it is.
        row: The direction's number in the set, from 0.
    """
    from ..directions.inspect import scores_on_text
    from ..directions.sources import open_directions
    from ..model.subject import open_subject

    opened = open_directions(source, model, Store(runs))
    subject = open_subject(model or opened.model, bos=bos_of(opened, bos))
    table = scores_on_text(subject, opened, text, row)
    print_frame("directions.text", table, json, "position token score")


@command(directions, "nearest")
def nearest(
    source: Source,
    model: Model = None,
    kind: tuple[Kind, ...] = (),
    limit: Limit = 10,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """The neurons of the model that are nearest to each direction, by the cosine in the residual
    stream, over all layers; a neuron is not listed beside itself. `interp saes nearest` compares
    with the latents of an SAE.

    Args:
        kind: Only these of up, gate and down.
    """
    from ..directions.nearest import nearest_neurons, neurons_there
    from ..directions.sources import open_directions
    from ..latents.nearest import chance_level
    from ..model.weights import open_weights

    opened = open_directions(source, model, Store(runs))
    weights = open_weights(model or opened.model)
    table = nearest_neurons(opened, weights, positive(limit), kind)
    there = neurons_there(weights, kind)
    level = chance_level(weights.spec.d_model, there)
    print_frame("directions.nearest", table, json, "name neuron cosine", chance=level)
    if not json:
        say(
            f"Of {there:,} random directions in {weights.spec.d_model:,} dimensions, the largest "
            f"|cosine| is above {level:.3f} once in 20 times."
        )


@command(directions, "split")
def split(
    source: Source,
    sae: str,
    model: Model = None,
    corpus: Path | None = None,
    tokens: int = 8192,
    length: int = 128,
    anyway: bool = False,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """How much of the variance of a direction's score lies in an SAE's reconstruction, in the
    linear part of its error and in the nonlinear rest.

    Args:
        sae: A folder or file of an SAE, run:KEY/FOLDER, or release:sae_id.
        corpus: A text, .jsonl or .parquet file or a folder. By default Python's own text.
        tokens: How many tokens to read: half to fit the linear part, half to measure.
        length: How many tokens a row of text has, at most the model's context.
        anyway: Take an SAE that names another model.
    """
    from ..directions.sets import sae_place
    from ..directions.sources import open_directions
    from ..directions.splitting import split_on_text
    from ..model.subject import open_subject
    from ..saes import open_sae

    opened = open_directions(source, model, Store(runs))
    split_by = open_sae(sae_place(sae, Store(runs)), site=str(opened.site))
    subject = open_subject(model or opened.model, bos=split_by.bos)
    where = str(corpus) if corpus else ""
    table = split_on_text(
        subject, opened, split_by, where, positive(tokens, "--tokens"), length, anyway
    )
    columns = "name reconstruction linear nonlinear nonlinear_spread"
    print_frame("directions.split", table, json, columns)
