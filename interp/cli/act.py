"""`interp saes steer | ablate | clamp | splice`: what a model says under edits by latents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..errors import UserError
from ..model.prompting import Bos
from .common import Command, Flag, Json, positive, print_frame

if TYPE_CHECKING:
    from ..latents.act import Acting
    from ..model.edits import Edit

Source = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(help="A folder or file of an SAE, or release:sae_id.", metavar="SOURCE"),
]
Latents = Annotated[
    tuple[int, ...],
    tyro.conf.Positional,
    tyro.conf.arg(help="The latent's number, or several.", metavar="N …"),
]
Prompt = Annotated[str, tyro.conf.arg(help="The user's message, or the text to continue.")]
Chat = Annotated[bool, tyro.conf.arg(help="Use the model's chat template.")]
Tokens = Annotated[int, tyro.conf.arg(help="Length of the texts.")]
Model = Annotated[str | None, tyro.conf.arg(help="The model; by default what the SAE names.")]
AskedBos = Annotated[
    Bos,
    tyro.conf.arg(
        help="A BOS token before the prompt: auto (as the SAE says of its texts), always, never."
    ),
]
Anyway = Annotated[Flag, tyro.conf.arg(help="Take an SAE that names another model.")]


def steer(
    source: Source,
    latents: Latents,
    prompt: Prompt,
    by: tuple[float, ...] = (5.0, 10.0, 20.0, 40.0),
    chat: Chat = True,
    tokens: Tokens = 24,
    model: Model = None,
    bos: AskedBos = "auto",
    anyway: Anyway = False,
    json: Json = False,
) -> None:
    """What the model says while what a latent writes is added, at all positions but specials.

    Args:
        by: How much to add, in units of the latent's own activation.
    """
    from ..saes.edits import steer_latent

    def edits(acting: Acting) -> dict[str, Edit]:
        special = acting.subject.prompting
        return {f"{v:g}": steer_latent(acting.sae, latents, v, special) for v in by}

    _finite("--by", by)
    asked = (source, latents, prompt, chat, model, bos, anyway)
    _act("steer", asked, edits, tokens, json)


def clamp(
    source: Source,
    latents: Latents,
    prompt: Prompt,
    to: tuple[float, ...] = (0.0, 5.0, 10.0, 20.0, 40.0),
    chat: Chat = True,
    tokens: Tokens = 24,
    model: Model = None,
    bos: AskedBos = "auto",
    anyway: Anyway = False,
    json: Json = False,
) -> None:
    """What the model says while a latent is held at a value, the rest of the stream kept.

    Args:
        to: The activations to hold it at.
    """
    from ..saes.edits import clamp_latent

    def edits(acting: Acting) -> dict[str, Edit]:
        special = acting.subject.prompting
        return {f"{v:g}": clamp_latent(acting.sae, latents, v, special) for v in to}

    _finite("--to", to)
    asked = (source, latents, prompt, chat, model, bos, anyway)
    _act("clamp", asked, edits, tokens, json)


def ablate(
    source: Source,
    latents: Latents,
    prompt: Prompt,
    chat: Chat = True,
    tokens: Tokens = 24,
    model: Model = None,
    bos: AskedBos = "auto",
    anyway: Anyway = False,
    json: Json = False,
) -> None:
    """What the model says without what a latent contributes, the rest of the stream kept."""
    from ..saes.edits import ablate_latent

    def edits(acting: Acting) -> dict[str, Edit]:
        return {"ablated": ablate_latent(acting.sae, latents, acting.subject.prompting)}

    asked = (source, latents, prompt, chat, model, bos, anyway)
    _act("ablate", asked, edits, tokens, json)


def splice(
    source: Source,
    prompt: Prompt,
    held: tuple[tuple[int, float], ...] = (),
    chat: Chat = True,
    tokens: Tokens = 24,
    model: Model = None,
    bos: AskedBos = "auto",
    anyway: Anyway = False,
    json: Json = False,
) -> None:
    """What the model says with the SAE's reconstruction in place of the stream: with its error
    added back, and without.

    Args:
        held: Latents and the values they are set to before decoding: 12 40 15 0.
    """
    from ..saes.edits import splice as spliced

    def edits(acting: Acting) -> dict[str, Edit]:
        names = {"with the error": True, "without the error": False}
        special = acting.subject.prompting
        return {n: spliced(acting.sae, special, error, dict(held)) for n, error in names.items()}

    if len(dict(held)) < len(held):
        raise UserError("--held names a latent twice: give each one value")
    _finite("--held", [0.0, *dict(held).values()])
    asked = (source, tuple(dict(held)), prompt, chat, model, bos, anyway)
    _act("splice", asked, edits, tokens, json)


ACTS: dict[str, Command] = {"steer": steer, "ablate": ablate, "clamp": clamp, "splice": splice}
"""By the names of their commands."""


def _finite(option: str, values: Sequence[float]) -> None:
    if not values or not all(map(math.isfinite, values)):
        raise UserError(f"{option} needs at least one value, all of them finite")


def _act(
    name: str,
    asked: tuple[Any, ...],
    edits: Callable[[Acting], dict[str, Edit]],
    tokens: int,
    json: bool,
) -> None:
    """Open what was asked for, act, and print what the model says."""
    from ..latents.act import acted, open_acting

    positive(tokens, "--tokens")
    acting, latents = open_acting(*asked), asked[1]
    rows = acted(acting, edits(acting), tokens, latents[0] if len(latents) == 1 else None)
    if rows["activation"].isna().all():
        rows = rows.drop(columns="activation")
    print_frame(f"saes.{name}", rows, json)
