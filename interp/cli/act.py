"""`interp saes steer | ablate | clamp | splice | effects`: acting by an SAE's latents.

They stand in the group of `interp saes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from ..errors import UserError
from ..latents.effects import LatentEffectsConfig
from ..model.prompting import Bos
from ..plain_numbers import exact
from . import latents as _latents  # noqa: F401  its commands stand in the same group
from .common import Flag, Json, command, positive, print_frame, study_command, with_table
from .saes import Source, saes

if TYPE_CHECKING:
    from ..latents.act import Acting
    from ..model.edits import Edit

Latents = Annotated[
    tuple[int, ...],
    tyro.conf.Positional,
    tyro.conf.arg(help="The latent's number, or several.", metavar="N …"),
]


@dataclass(frozen=True)
class Asked:
    """What all of them are asked."""

    prompt: str
    """The user's message, or the text to continue."""
    chat: bool = True
    """Use the model's chat template."""
    tokens: int = 24
    """Length of the texts."""
    model: str = ""
    """The model; by default what the SAE names."""
    site: str = ""
    """The site it reads, 14.resid_post, for an SAE that does not say it."""
    bos: Bos = "auto"
    """A BOS token before the prompt: auto (as the SAE says of its texts), always, never."""
    anyway: Flag = False
    """Take an SAE that names another model."""


Options = tyro.conf.OmitArgPrefixes[Asked]


@command(saes, "steer")
def steer(
    source: Source,
    latents: Latents,
    asked: Options,
    by: tuple[float, ...] = (5.0, 10.0, 20.0, 40.0),
    json: Json = False,
) -> None:
    """What the model says while what a latent writes is added, at all positions but specials.

    Args:
        by: How much to add, in units of the latent's own activation.
    """
    from ..saes.edits import steer_latent

    def edits(acting: Acting) -> dict[str, Edit]:
        special = acting.subject.prompting
        return {exact(v): steer_latent(acting.sae, latents, v, special) for v in by}

    _finite("--by", by)
    _act("steer", source, latents, asked, edits, json)


@command(saes, "clamp")
def clamp(
    source: Source,
    latents: Latents,
    asked: Options,
    to: tuple[float, ...] = (0.0, 5.0, 10.0, 20.0, 40.0),
    json: Json = False,
) -> None:
    """What the model says while a latent is held at a value, the rest of the stream kept.

    Args:
        to: The activations to hold it at.
    """
    from ..saes.edits import clamp_latent

    def edits(acting: Acting) -> dict[str, Edit]:
        special = acting.subject.prompting
        return {exact(v): clamp_latent(acting.sae, latents, v, special) for v in to}

    _finite("--to", to)
    _act("clamp", source, latents, asked, edits, json)


@command(saes, "ablate")
def ablate(source: Source, latents: Latents, asked: Options, json: Json = False) -> None:
    """What the model says without what a latent contributes, the rest of the stream kept."""
    from ..saes.edits import ablate_latent

    def edits(acting: Acting) -> dict[str, Edit]:
        return {"ablated": ablate_latent(acting.sae, latents, acting.subject.prompting)}

    _act("ablate", source, latents, asked, edits, json)


@command(saes, "splice")
def splice(
    source: Source,
    asked: Options,
    held: tuple[tuple[int, float], ...] = (),
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
    _act("splice", source, tuple(dict(held)), asked, edits, json)


def _finite(option: str, values: Sequence[float]) -> None:
    if not values or not all(map(math.isfinite, values)):
        raise UserError(f"{option} needs at least one value, all of them finite")


def _act(
    name: str,
    source: str,
    latents: Sequence[int],
    asked: Asked,
    edits: Callable[[Acting], dict[str, Edit]],
    json: bool,
) -> None:
    """Open what was asked for, act, and print what the model says."""
    from ..latents.act import acted, open_acting

    positive(asked.tokens, "--tokens")
    who = {"model": asked.model, "site": asked.site, "bos": asked.bos, "anyway": asked.anyway}
    acting = open_acting(source, latents, asked.prompt, asked.chat, **who)  # type: ignore[arg-type]
    one = latents[0] if len(latents) == 1 else None
    rows = acted(acting, edits(acting), asked.tokens, one)
    if one is None:
        rows = rows.drop(columns="encoded")
    print_frame(f"saes.{name}", rows, json)


study_command(
    saes,
    LatentEffectsConfig,
    with_table("effects/latents", "latent words gain activation control_mean control_max beats"),
    with_table("effects/means"),
)
