"""`interp saes …`"""

from __future__ import annotations

from tyro.extras import SubcommandApp

from ..latents.measure import MeasureConfig
from .common import study_command

saes = SubcommandApp()

study_command(saes, MeasureConfig)
