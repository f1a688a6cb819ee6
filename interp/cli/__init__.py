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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
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
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        with _interruptible():
            _parse(arguments)()
        sys.stdout.flush()
    except UserError as error:
        print("interp:", re.sub(r"[\x00-\x1f\x7f]+", " ", str(error)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interp: interrupted; the same command resumes", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends the block as a KeyboardInterrupt, whatever C code that was calling Python made of
    it (torch's constructors make a ValueError: "could not determine the shape")."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # which alone hears of it
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    except Exception as error:
        if noted:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
