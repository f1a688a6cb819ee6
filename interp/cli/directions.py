"""`interp directions …`: what an analysis found, decoded, scored, compared, steered with.

DIRECTIONS is a set in a stored run, run:KEY/SET or some of it, run:KEY/SET:3,5; what a collection
keeps, kept:NAME or kept:NAME:ENTRY; a folder that `Directions.save` wrote; neurons of one layer and
kind, such as 29.down.808,29.down.1499; latents of an SAE: all, sae:SOURCE, or some,
sae:SOURCE:12,15; or tokens at a layer through a lens, 'lens:jacobian:12: are, is'. `interp
directions list` shows the sets in the stored runs, and `interp directions import` makes one of your
own vector.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.extras import SubcommandApp

from ..directions.bring import ImportConfig
from ..directions.tokens import TokenDirectionsConfig
from ..errors import UserError
from ..model.prompting import Bos
from ..progress import log
from ..runs.command import shell_line, store_words
from ..runs.store import Run, Store
from .common import (
    ALONE,
    Json,
    Limit,
    Parted,
    Runs,
    command,
    positive,
    print_frame,
    say,
    study_command,
)

if TYPE_CHECKING:
    from ..directions import Directions

directions = SubcommandApp()
Source = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(
        help="A stored set (run:KEY/SET:3), a collection's (kept:NAME:ENTRY), a folder, "
        "neurons (29.down.808,29.down.1499), latents (sae:SOURCE, sae:SOURCE:12,15) or tokens at "
        "a layer ('lens:jacobian:12: are, is').",
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


def bos_of(directions: Directions, asked: Bos) -> Bos:
    """What is asked for, or else what an SAE says of the texts that it was trained on."""
    return directions.reading.bos if asked == "auto" else asked


def _use(run: Run) -> None:
    from ..directions.sets import set_text

    name = set_text(run, "directions")
    say(shell_line(["interp", "directions", "decode", name, *store_words(run.path.parents[1])]))


study_command(directions, ImportConfig, _use)
study_command(directions, TokenDirectionsConfig, _use)


@command(directions, "list")
def list_directions(runs: Runs = None, json: Json = False) -> None:
    """The sets of directions in stored runs."""
    import pandas as pd

    from ..directions import Directions, stored_directions
    from ..directions.sets import text_of_folder

    rows, store = [], Store(runs)
    for folder in stored_directions(store):
        try:
            opened = Directions.load(folder)
        except UserError as error:
            log.warning("%s", error)
            continue
        made, first = opened.provenance, ", ".join(opened.names[:3])
        shown = f"{first} …" if len(opened) > 3 else first
        about = (len(opened), shown, opened.read_as, made.analysis, made.model)
        rows.append((str(opened.site), *about, text_of_folder(folder, store), str(folder)))
    if not rows and not json:
        raise UserError(f"no directions in {store.root}: run an analysis first")
    columns = ["site", "directions", "names", "reading", "analysis", "model", "source", "folder"]
    shown = "site directions names reading analysis model source"
    print_frame("directions.list", pd.DataFrame(rows, columns=columns), json, shown)


@command(directions, "decode")
def decode(
    source: Source,
    model: Model = None,
    limit: Limit = 10,
    lens: str = "raw",
    runs: Runs = None,
    json: Json = False,
) -> None:
    """The top and bottom tokens of each direction through the LM head.

    Args:
        lens: raw; final: first multiply by the final norm's gain, without the mean that it takes
            away; tuned, jacobian, a run's folder or key, or a file: first carry each from its layer
            to the last one.
    """
    from ..directions.sources import open_directions
    from ..model.weights import open_weights

    opened = open_directions(source, model, Store(runs))
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
    parted: Parted = ALONE,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Where in a corpus each direction's score is highest, with the context. The score is the one
    of the analysis that found it: its norm, its constant, its encoder.

    Args:
        corpus: A text, .jsonl or .parquet file, a folder, or rows of ids (.safetensors), as a model
            without a tokenizer needs. By default Python's own text.
        tokens: How many tokens to read.
        length: How many tokens a row of text has, at most the model's context.
        special: BOS, other special tokens and the first token of each row count too.
    """
    from ..directions.inspect import top_examples
    from ..directions.scoring import Others
    from ..directions.sources import open_directions
    from ..model.subject import open_subject
    from ..text.corpus import id_rows, read_corpus, token_rows

    spread, store = parted.spread, Store(runs)
    opened = open_directions(source, model, store)
    ids = corpus is not None and corpus.suffix == ".safetensors"
    texts = (
        iter([]) if ids else read_corpus(corpus)
    )  # a mistake should not cost the model's loading
    subject = open_subject(model or opened.model, bos=bos_of(opened, bos))
    length = subject.at_most(length)
    if corpus is not None and ids:
        kept = itertools.islice(id_rows(corpus), max(tokens // length, 1))
        rows = [row[:length] for row in kept]
    else:
        rows = list(token_rows(texts, subject.prompting, length, tokens))
    others = Others(spread, source, model or opened.model, store.root) if spread.beside else None
    table = top_examples(subject, rows, opened, positive(limit), special, others)
    columns = "name mean std score z before token after"
    print_frame("directions.score", table, json, columns)


@command(directions, "compare")
def compare(
    source: Source,
    other: Source,
    model: Model = None,
    limit: Limit = 20,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Cosine of every pair of two sets, the closest first; their coupling, where both are read as
    products with the same activation; and, where one is behind the MLP's norm (mlp_in), the cosine
    before it, in the stream."""
    from ..directions.compare import pairs
    from ..directions.sources import open_directions
    from ..model.weights import open_weights

    ours = open_directions(source, model, Store(runs))
    theirs = open_directions(other, model or ours.provenance.model or None, Store(runs))
    behind = "mlp_in" in (ours.site.kind, theirs.site.kind) and ours.site != theirs.site
    weights = open_weights(model or ours.model) if behind else None
    print_frame("directions.compare", pairs(ours, theirs, positive(limit), weights), json)


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
    runs: Runs = None,
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
    opened = open_directions(source, model, Store(runs))
    if chat:  # before the model: a mistake should not cost its loading
        name = model or opened.model
        check_chat_template(resolve(name), name, "--no-chat")
    subject = open_subject(model or opened.model, bos=bos_of(opened, bos))
    batch = subject.chat([{"role": "user", "content": prompt}]) if chat else subject.tokens(prompt)
    table = steered(subject, batch, opened, row, scale, positive(tokens, "--tokens"))
    print_frame("directions.steer", table, json)
