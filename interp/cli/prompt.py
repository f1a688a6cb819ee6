"""`interp prompt …`"""

from __future__ import annotations

from tyro.extras import SubcommandApp

from ..microscope.look import LookConfig
from ..runs.store import Run
from .common import print_rows, say, study_command

prompt = SubcommandApp()
MOST = 40
"""Tokens of a text that are printed, from its end."""


def _tokens(run: Run) -> None:
    """Every token, what it was given, and what the model says after it."""
    tokens = run.table("tokens")
    say("Each token as the model expected it, and what the model says after it:")
    print_rows(tokens.tail(MOST), "position token probability rank surprise entropy next")
    if len(tokens) > MOST:
        say(f"the first {len(tokens) - MOST} tokens: {run.path / 'tokens'}.parquet")


def _said(run: Run) -> None:
    """The parts, heads and neurons that say the target."""
    from ..microscope.figures import by_contribution, of_position

    at = int(run.manifest["position"])
    token = run.table("tokens")["token"].iloc[at]
    say(f"After {token!r} (position {at}), direct contributions to {run.metrics['explained']}:")
    parts = of_position(run.table("parts"), at)
    order = parts["contribution"].abs().sort_values(ascending=False, kind="stable").index
    print_rows(parts.loc[order[:12]], "kind layer contribution")
    heads = of_position(run.table("heads"), at)
    print_rows(heads.head(10), "name contribution source from_source")
    neurons = by_contribution(of_position(run.table("neurons"), at))
    print_rows(neurons.head(12), "name activation contribution raises lowers")


def _differs(run: Run) -> None:
    """What differs most in the other text."""
    if run.has("differences"):
        say("In the other text, the largest differences first:")
        print_rows(run.table("differences").head(15), "name here there difference")


study_command(prompt, LookConfig, _tokens, _said, _differs)
