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

_SCORES = "part pair_acc pair_acc_low pair_acc_high unit accuracy pairs"
_items = with_table("data/items", "relation subject told prior part", most=5)
_learned = with_table("steer/scores", f"model direction {_SCORES}")
_tuned = with_table("scores/scores", f"setting {_SCORES}")

study_command(knob, DataConfig, _items)
study_command(knob, FinetuneConfig, _tuned)
study_command(knob, SearchConfig)
study_command(knob, LearnConfig, _learned)
study_command(knob, SteerConfig)
study_command(knob, RunConfig, _learned, _tuned)
