"""`interp saes …`: sparse autoencoders, opened from whatever layout they are in.

SOURCE is a folder or file of an SAE, or release:sae_id of a published one; docs/saes.md lists the
layouts.
"""

from __future__ import annotations

from typing import Annotated

import tyro
from tyro.extras import SubcommandApp

from ..saes.activations import ActivationsConfig
from ..saes.training import SaeTrainConfig
from .common import Json, answered, command, print_table, study_command, with_table

saes = SubcommandApp()
Source = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(help="A folder or file of an SAE, or release:sae_id.", metavar="SOURCE"),
]


@command(saes, "show")
def show(source: Source, json: Json = False) -> None:
    """What an SAE says of itself: kind, width, site, model, its inputs, its active latents."""
    from ..saes import open_sae
    from ..saes.about import about

    facts = about(open_sae(source))
    if not answered(json, "saes.show", facts):
        print_table(["about", source], [[name, str(value)] for name, value in facts.items()])


study_command(saes, SaeTrainConfig, with_table("saes", "name d_sae sparsity tokens l0 fvu alive"))
study_command(saes, ActivationsConfig)
