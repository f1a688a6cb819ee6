"""`interp circuits …`"""

from __future__ import annotations

from tyro.extras import SubcommandApp

from ..circuits.steering import SteerConfig
from ..circuits.truth import TruthConfig
from .circuits_truth import steer, truth
from .common import study_command

circuits = SubcommandApp()

study_command(circuits, TruthConfig, truth)
study_command(circuits, SteerConfig, steer)
