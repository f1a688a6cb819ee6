"""`interp directions …`: what an analysis found, decoded, scored, compared, steered with.

DIRECTIONS is a folder that `Directions.save` wrote, neurons of one layer and kind, such as
29.down.808,29.down.1499, latents of an SAE: all, sae:SOURCE, or some, sae:SOURCE:12,15, or tokens
at a layer through a lens, 'lens:jacobian:12: are, is'. `interp directions list` shows the folders
in the stored runs, and `interp directions import` makes one of your own vector.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.extras import SubcommandApp

from ..directions.bring import ImportConfig
from ..directions.tokens import TokenDirectionsConfig
from ..errors import UserError
from ..model.prompting import Bos
from ..progress import log
from ..runs.store import Run, Store
from .common import Json, Limit, Runs, command, positive, print_frame, say, study_command

if TYPE_CHECKING:
    from ..directions import Directions

directions = SubcommandApp()
Source = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(
        help="A folder of directions, neurons (29.down.808,29.down.1499), latents "
        "(sae:SOURCE, sae:SOURCE:12,15) or tokens at a layer ('lens:jacobian:12: are, is').",
        metavar="DIRECTIONS",
    ),
]
Model = Annotated[
    str | None,
    tyro.conf.arg(help="Catalog name, hub id, folder or .gguf; by default the directions' own."),
]


AskedBos = Annotated[
    Bos,
    tyro.conf.arg(
        help="A BOS token before each text: auto (as the latents' SAE says, else as the tokenizer "
        "has it), always, never."
    ),
]


def _bos(directions: Directions, asked: Bos) -> Bos:
    """What is asked for, or else what an SAE says of the texts that it was trained on."""
    return directions.reading.bos if asked == "auto" else asked


def _use(run: Run) -> None:
    say(f"Use them: interp directions decode {run.path / 'directions'}")


study_command(directions, ImportConfig, _use)
study_command(directions, TokenDirectionsConfig, _use)


@command(directions, "list")
def list_directions(runs: Runs = None, json: Json = False) -> None:
    """The sets of directions in stored runs."""
    import pandas as pd

    from ..directions import Directions, stored_directions

    rows = []
    for folder in stored_directions(Store(runs)):
        try:
            opened = Directions.load(folder)
        except UserError as error:
            log.warning("%s", error)
            continue
        made, first = opened.provenance, ", ".join(opened.names[:3])
        shown = f"{first} …" if len(opened) > 3 else first
        about = (len(opened), shown, opened.read_as, made.analysis, made.model, str(folder))
        rows.append((str(opened.site), *about))
    if not rows and not json:
        raise UserError(f"no directions in {Store(runs).root}: run an analysis first")
    columns = ["site", "directions", "names", "reading", "analysis", "model", "folder"]
    print_frame("directions.list", pd.DataFrame(rows, columns=columns), json)


@command(directions, "decode")
def decode(
    source: Source, model: Model = None, limit: Limit = 10, lens: str = "raw", json: Json = False
) -> None:
    """The top and bottom tokens of each direction through the LM head.

    Args:
        lens: raw; final: first multiply by the final norm's gain, without the mean that it takes
            away; tuned, jacobian, a run's folder or key, or a file: first carry each from its layer
            to the last one.
    """
    from ..directions.sources import open_directions
    from ..model.weights import open_weights

    opened = open_directions(source, model)
    weights = open_weights(model or opened.model)
    table = opened.decode(weights, positive(limit), lens)
    print_frame("directions.decode", table, json, "name top bottom top_z bottom_z")


@command(directions, "score")
def score(
    source: Source,
    model: Model = None,
    corpus: Path | None = None,
    tokens: int = 4096,
    length: int = 128,
    limit: Limit = 5,
    bos: AskedBos = "auto",
    special: bool = False,
    json: Json = False,
) -> None:
    """Where in a corpus each direction's score is highest, with the context. The score is the one
    of the analysis that found it: its norm, its constant, its encoder.

    Args:
        corpus: A text, .jsonl or .parquet file, a folder, or rows of ids (.safetensors), as a model
            without a tokenizer needs. By default Python's own text.
        tokens: How many tokens to read.
        length: How many tokens a row of text has.
        special: BOS, other special tokens and the first token of each row count too.
    """
    from ..directions.inspect import top_examples
    from ..directions.sources import open_directions
    from ..model.subject import open_subject
    from ..text.corpus import id_rows, read_corpus, token_rows

    opened = open_directions(source, model)
    ids = corpus is not None and corpus.suffix == ".safetensors"
    texts = (
        iter([]) if ids else read_corpus(corpus)
    )  # a mistake should not cost the model's loading
    subject = open_subject(model or opened.model, bos=_bos(opened, bos))
    opened.note_model(subject.weights)
    if corpus is not None and ids:
        kept = itertools.islice(id_rows(corpus), max(tokens // length, 1))
        rows = [row[:length] for row in kept]
    else:
        rows = list(token_rows(texts, subject.prompting, length, tokens))
    table = top_examples(subject, rows, opened, positive(limit), special)
    columns = "name mean std score z before token after"
    print_frame("directions.score", table, json, columns)


@command(directions, "compare")
def compare(
    source: Source, other: Source, model: Model = None, limit: Limit = 20, json: Json = False
) -> None:
    """Cosine of every pair of two sets, the closest first; and their coupling, where both are read
    as products with the same activation."""
    import pandas as pd
    import torch

    from ..directions.sources import open_directions

    ours = open_directions(source, model)
    theirs = open_directions(other, model or ours.provenance.model or None)
    ours.note_other(theirs)
    cosine = ours.cosine(theirs)
    try:
        coupling = ours.coupling(theirs)
    except UserError as error:
        log.warning("%s", error)
        coupling = torch.full_like(cosine, math.nan)
    order = cosine.abs().flatten().argsort(descending=True, stable=True)[: positive(limit)]
    i, j = order // len(theirs), order % len(theirs)
    pairs = {"name": [ours.names[n] for n in i], "other": [theirs.names[n] for n in j]}
    values = {"cosine": cosine[i, j].tolist(), "coupling": coupling[i, j].tolist()}
    print_frame("directions.compare", pd.DataFrame(pairs | values), json)


@command(directions, "steer")
def steer(
    source: Source,
    prompt: str,
    row: int = 0,
    scale: tuple[float, ...] = (-40.0, -20.0, -10.0, 10.0, 20.0, 40.0),
    chat: bool = True,
    tokens: int = 24,
    model: Model = None,
    bos: AskedBos = "auto",
    json: Json = False,
) -> None:
    """The next token and the text while multiples of a direction are added. Its score is that at
    the last token; a neuron that writes is read before its vector is added, so its score stays.

    Args:
        prompt: The user's message, or the text to continue.
        row: The direction's number in the set, from 0.
        scale: Multiples of the vector to add, at all positions.
        chat: Use the model's chat template.
        tokens: Length of the texts.
    """
    from ..directions.inspect import steered
    from ..directions.sources import open_directions
    from ..model.catalog import resolve
    from ..model.subject import open_subject
    from ..model.vocabulary import check_chat_template

    if not prompt.strip():
        raise UserError("the prompt is empty: give --prompt some text")
    opened = open_directions(source, model)
    if chat:  # before the model: a mistake should not cost its loading
        name = model or opened.model
        check_chat_template(resolve(name), name, "--no-chat")
    subject = open_subject(model or opened.model, bos=_bos(opened, bos))
    opened.note_model(subject.weights)
    batch = subject.chat([{"role": "user", "content": prompt}]) if chat else subject.tokens(prompt)
    table = steered(subject, batch, opened, row, scale, positive(tokens, "--tokens"))
    print_frame("directions.steer", table, json)
