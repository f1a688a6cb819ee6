"""`interp saes …`"""

from __future__ import annotations

from tyro.extras import SubcommandApp

from ..saes.activations import ActivationsConfig
from ..saes.training import TrainConfig
from .common import study_command, with_table

saes = SubcommandApp()

study_command(saes, TrainConfig, with_table("saes", "name d_sae sparsity tokens l0 fvu alive"))
study_command(saes, ActivationsConfig)
