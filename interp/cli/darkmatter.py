"""`interp darkmatter …`"""

from __future__ import annotations

from tyro.extras import SubcommandApp

from ..darkmatter.error_saes import ErrorSaesConfig
from ..darkmatter.ladder import LadderConfig
from ..darkmatter.measure import DarkMatterConfig, PursuitConfig
from ..darkmatter.synthetic import SyntheticConfig
from ..runs.store import Run
from .common import answered, print_rows, say, study_command

darkmatter = SubcommandApp()


def _parts(run: Run, json: bool) -> None:
    """The run's folder, a row for each SAE, the seconds by stage, and what to be wary of."""
    from ..darkmatter.enough import cautions
    from ..darkmatter.results import summary

    table, wary = summary(run), cautions(run)
    saes = table.to_dict("records")
    if answered(json, run.study, run.metrics, run.path, saes=saes, cautions=wary):
        return
    say(run.path)
    print_rows(table[[name for name in table.columns if "corrected" not in name]])
    seconds = run.manifest["seconds"]
    say("seconds: " + ", ".join(f"{name} {value:g}" for name, value in seconds.items()))
    for line in wary:
        say(f"caution: {line}")


study_command(darkmatter, DarkMatterConfig, report=_parts)
study_command(darkmatter, PursuitConfig, report=_parts)
study_command(darkmatter, SyntheticConfig, report=_parts)
study_command(darkmatter, ErrorSaesConfig)
study_command(darkmatter, LadderConfig)
