"""`interp circuits …`"""

from __future__ import annotations

from tyro.extras import SubcommandApp

from ..circuits.heads import HeadConfig
from ..circuits.patching import PatchConfig
from ..circuits.roles import HeadsConfig
from .circuits_heads import looks, moved, roles, says
from .common import study_command

circuits = SubcommandApp()

study_command(circuits, HeadConfig, looks, says)
study_command(circuits, PatchConfig, moved)
study_command(circuits, HeadsConfig, roles)
