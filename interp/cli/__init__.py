"""The `interp` command.

Contract: results go to standard output, everything else to standard error; `--json` prints exactly
one JSON object, `{"study": …, "run": …, "metrics": {…}, …}`, on the last line of standard output;
a user's mistake is one line on standard error and exit code 2. Heavy imports happen only inside
the commands that need them: `interp --help` and browsing stored runs import no torch.
"""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from types import FrameType

from tyro.extras import SubcommandApp

from ..errors import UserError
from .common import command
from .darkmatter import darkmatter
from .directions import directions
from .knob import knob
from .linearscope import linearscope
from .neurons import neurons
from .obsprop import obsprop
from .othello import othello
from .tools import bench, explorer, models

app = SubcommandApp()
app.command(neurons, name="neurons", help="Every MLP neuron of a model, through its LM head.")
app.command(
    directions, name="directions", help="Decode, score, compare, steer with what was found."
)
app.command(othello, name="othello", help="OthelloGPT: linear probes against SAEs.")
app.command(obsprop, name="obsprop", help="Feature vectors of a task from one pair of prompts.")
app.command(
    darkmatter, name="darkmatter", help="What SAEs leave unexplained, linear and nonlinear."
)
app.command(knob, name="knob", help="The direction between context and prior knowledge.")
app.command(
    linearscope, name="linearscope", help="The linear system that a network is for one input."
)
app.command(models, name="models", help="Models by name: list, add, describe.")
app.command(bench, name="bench", help="Benchmarks.")
command(app, "app")(explorer)


def _parse(arguments: Sequence[str] | None) -> Callable[[], None]:
    """The bound command. tyro's boxed complaint becomes one line."""
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            bound: Callable[[], None] = app.cli(
                prog="interp",
                description="A mechanistic interpretability workbench.",
                args=arguments,
            )
    except SystemExit as stop:
        if stop.code == 2:
            raise UserError(_first_sentence(complaint.getvalue())) from stop
        raise
    return bound


def _first_sentence(box: str) -> str:
    """The text of a box up to its first inner rule."""
    body: list[str] = []
    for line in box.splitlines():
        text = line.strip("│ ")
        if text and not set(text) <= set("─╭╮╰╯ ") and not text.startswith("╭"):
            body.append(text)
        elif body:
            break
    return " ".join(body) + " (see --help)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.getLogger("interp").addHandler(handler)
    logging.getLogger("interp").setLevel(logging.INFO)
    interrupts = _noted_interrupts()
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        _parse(arguments)()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if interrupts:
            return _interrupted()
        if not isinstance(error, UserError):
            raise
        print("interp:", re.sub(r"[\x00-\x1f\x7f]+", " ", str(error)), file=sys.stderr)
        return 2
    return 0


def _noted_interrupts() -> list[int]:
    """Fills when Ctrl-C is pressed: C code that calls Python makes another error of the exception
    (torch's constructors do: "could not determine the shape")."""
    noted: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.default_int_handler(number, frame)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handler)
    return noted


def _interrupted() -> int:
    print("interp: interrupted; the same command resumes", file=sys.stderr)
    return 130
