"""`interp steer`: what a model says under several edits at once."""

from __future__ import annotations

from typing import Annotated

import tyro

from ..errors import UserError
from ..model.catalog import DEFAULT_MODEL
from ..model.prompting import Bos
from .common import Json, bound, positive, print_frame

Edits = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    tyro.conf.arg(help="Such as 'hold 29.down.808=40'; quote each.", metavar="EDIT …"),
]


def _steer(
    edits: Edits,
    prompt: tuple[str, ...],
    model: str = DEFAULT_MODEL,
    chat: bool = True,
    tokens: int = 24,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    bos: Bos = "auto",
    json: Json = False,
) -> None:
    """What a model says as it is and under several edits at once, which act in the order given:
    'hold NEURON=VALUE', 'add SOURCE=TIMES', 'project-out SOURCE', 'steer-latent sae:PLACE:N=VALUE',
    'clamp-latent sae:PLACE:N=VALUE', 'ablate-latent sae:PLACE:N', 'splice sae:PLACE',
    'splice+error sae:PLACE'. SOURCE is one direction: a neuron, a latent, a token at a layer, or
    FOLDER:ROW.

    Args:
        prompt: The user's messages, one after another; each side goes on from its own answers. With
            --no-chat one text to continue.
        model: Catalog name, hub id, folder or .gguf.
        chat: Use the model's chat template.
        tokens: Length of the texts.
        temperature: 0 takes the likeliest token; else tokens are drawn, by the same seed on both
            sides.
        top_p: Draw from the fewest tokens that together have this probability.
        seed: Of the draws.
        bos: A BOS token before the texts: auto (as an SAE's says, else as the tokenizer has it),
            always, never.
    """
    from ..directions.acts import edits_of, feeding, parse_act
    from ..directions.steering import compared
    from ..model.batch import Sampling
    from ..model.catalog import resolve
    from ..model.subject import open_subject
    from ..model.vocabulary import check_chat_template

    how = Sampling(temperature, top_p, seed)
    how.check()
    positive(tokens, "--tokens")
    acts = [parse_act(text) for text in edits]
    if not acts:
        raise UserError("there is no edit: give at least one, such as 'hold 29.down.808=40'")
    if not all(text.strip() for text in prompt):
        raise UserError("the prompt is empty: give --prompt some text")
    if chat:  # before the model: a mistake should not cost its loading
        check_chat_template(resolve(model), model, "--no-chat")
    subject = open_subject(model, bos=feeding(acts) if bos == "auto" else bos)
    rows = compared(subject, edits_of(acts, subject, model), prompt, chat, tokens, how)
    columns = "turn side next probability kl text" if len(prompt) > 1 else None
    print_frame("steer", rows, json, columns or "side next probability kl text")


steer = bound(_steer)
