"""`interp saes …`: sparse autoencoders, opened from whatever layout they are in.

SOURCE is a folder or file of an SAE, or release:sae_id of a published one; docs/saes.md lists the
layouts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.extras import SubcommandApp

from ..errors import UserError
from ..latents.measure import MeasureConfig
from ..runs.store import Run
from ..saes.activations import ActivationsConfig
from ..saes.training import SaeTrainConfig
from .common import (
    Json,
    Limit,
    answered,
    command,
    positive,
    print_frame,
    print_rows,
    print_table,
    say,
    study_command,
    with_table,
)

saes = SubcommandApp()
Source = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(help="A folder or file of an SAE, or release:sae_id.", metavar="SOURCE"),
]
Site = Annotated[
    str, tyro.conf.arg(help="The site it reads, 14.resid_post, for an SAE that does not say it.")
]
Model = Annotated[
    str, tyro.conf.arg(help="Whose activations it reads; asked of an SAE that does not say it.")
]


@command(saes, "show")
def show(source: Source, model: Model = "", site: Site = "", json: Json = False) -> None:
    """What an SAE says of itself: kind, width, site, model, its inputs, its active latents."""
    from ..saes import open_sae
    from ..saes.about import about

    facts = about(open_sae(source, site=site, model=model))
    if not answered(json, "saes.show", facts):
        print_table(["about", source], [[name, str(value)] for name, value in facts.items()])


@command(saes, "nearest")
def nearest(
    direction: tyro.conf.Positional[
        Annotated[
            str,
            tyro.conf.arg(
                help="A folder of directions, neurons (29.down.808) or latents (sae:SOURCE:12).",
                metavar="DIRECTION",
            ),
        ]
    ],
    saes: str,
    by: Literal["both", "decoder", "encoder"] = "both",
    model: str | None = None,
    site: Site = "",
    limit: Limit = 10,
    json: Json = False,
) -> None:
    """Which latents are like a direction, by what they write and by what they read.

    Args:
        saes: A folder or file of an SAE, or release:sae_id.
        by: Rank by the cosine with the row a latent writes (decoder), or with what it reads
            (encoder).
        model: Catalog name, hub id, folder or .gguf; by default the directions' own.
    """
    from ..directions.sources import open_directions
    from ..latents import nearest as questions
    from ..model.weights import open_weights
    from ..saes import open_sae

    opened = open_directions(direction, model)
    sae = open_sae(saes, site=site)
    if named := model or opened.provenance.model:
        sae.check_model(named, saes)
    side = None if by == "both" else by
    weights = open_weights(model) if model else None
    table = questions.nearest(opened, sae, positive(limit), side, weights)
    width = opened.vectors.shape[1]
    level = questions.chance_level(width, sae.d_sae)
    print_frame("saes.nearest", table, json, chance=level)
    if not json:
        say(
            f"Of {sae.d_sae:,} random directions in {width:,} dimensions, the largest |cosine| is "
            f"above {level:.3f} once in 20 times; p is how often it is above a row's own."
        )


@command(saes, "convert")
def convert(
    source: Source,
    out: tyro.conf.Positional[Path],
    model: Model = "",
    site: Site = "",
    json: Json = False,
) -> None:
    """Write an SAE as sae-lens does, with the model and site that it may lack.

    Args:
        out: The new folder.
    """
    from ..saes import open_sae
    from ..saes.about import about

    if out.exists():
        raise UserError(f"{out} is there already: give another folder")
    sae = open_sae(source, site=site, model=model)
    sae.save(out)
    if not answered(json, "saes.convert", about(sae), folder=str(out)):
        say(out)


study_command(saes, SaeTrainConfig, with_table("saes", "name d_sae sparsity tokens l0 fvu alive"))
study_command(saes, ActivationsConfig)


def _measured(run: Run) -> None:
    """What SAEBench's tests found, a row for each SAE."""
    from ..latents.measured import summary

    print_rows(summary(run))


study_command(saes, MeasureConfig, _measured)
