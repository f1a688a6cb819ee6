"""`interp knob …`"""

from __future__ import annotations

from tyro.extras import SubcommandApp

from ..knob.data import DataConfig
from ..knob.finetune import FinetuneConfig
from ..knob.learn import LearnConfig
from ..knob.run import RunConfig
from ..knob.search import SearchConfig
from ..knob.steer_prompt import SteerConfig
from .common import study_command, with_table

knob = SubcommandApp()

_SCORES = "part pair_acc pair_acc_low pair_acc_high accuracy pairs"
_items = with_table("data/items", "relation subject told prior part", most=5)
_learned = with_table("steer/scores", f"model direction {_SCORES}")
_tuned = with_table("scores/scores", f"setting {_SCORES}")

study_command(knob, "data", DataConfig, _items)
study_command(knob, "finetune", FinetuneConfig, _tuned)
study_command(knob, "search", SearchConfig)
study_command(knob, "learn", LearnConfig, _learned)
study_command(knob, "steer", SteerConfig)
study_command(knob, "run", RunConfig, _learned, _tuned)
