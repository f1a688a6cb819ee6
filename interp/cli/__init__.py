"""The `interp` command.

Contract: results go to standard output, everything else to standard error; `--json` prints exactly
one JSON object, `{"study": …, "run": …, "metrics": {…}, …}`, on the last line of standard output;
a user's mistake is one line on standard error and exit code 2. Heavy imports happen only inside
the commands that need them: `interp --help` and browsing stored runs import no torch.
"""

from __future__ import annotations

import gc
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from types import FrameType
from typing import Any, TextIO

from tyro.extras import SubcommandApp

from ..analyses import VERBS, Analysis, analyses, load
from ..errors import UserError, readable


def parse(arguments: Sequence[str]) -> Callable[[], None]:
    """The command that arguments name, its options bound and checked; nothing is run.

    Only the group that the first argument names is imported. tyro's boxed complaint becomes one
    line.
    """
    first = next(iter(arguments), "")
    known = list(analyses() | VERBS)
    if first and not first.startswith("-") and first not in known:
        raise UserError(f"no command '{first}': the commands are {', '.join(known)}")
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            bound: Callable[[], None] = _app(first).cli(
                prog="interp",
                description="A mechanistic interpretability workbench.",
                args=arguments,
            )
    except SystemExit as stop:
        if stop.code == 2:
            raise UserError(_first_sentence(complaint.getvalue())) from stop
        raise
    except RecursionError as error:  # tyro lists the words it does not know in each other
        raise UserError(
            f"{len(arguments)} words are more than this command takes (see --help)"
        ) from error
    return bound


def _app(chosen: str) -> SubcommandApp:
    """All commands: the chosen one as it is, of the others only names and sentences."""
    app = SubcommandApp()
    for name, entry in (analyses() | VERBS).items():
        commands: Any = _group(entry) if name == chosen else (lambda: None)
        app.command(commands, name=name, help=entry.sentence)
    return app


def _group(entry: Analysis) -> Any:
    """The commands of an analysis: its own group, or a command for each study."""
    if entry.commands:
        return load(entry.commands)
    from .common import study_command  # with all of the model and the runs

    made = SubcommandApp()
    for config in entry.configs():
        study_command(made, config)
    return made


def _first_sentence(box: str) -> str:
    """The text of a box between its upper edge and its first inner rule; where standard output is
    ASCII, the upper edge is a rule below the title."""
    body: list[str] = []
    inside = False
    for line in box.splitlines():
        text = line.strip("│ ")
        if text and not set(text) <= set("─╰╯ -") and not text.startswith("╭"):
            body += [text] if inside else []
        elif body:
            break
        else:
            inside = inside or bool(text)
    return " ".join(body) + " (see --help)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    # a thread that waits sleeps: by default torch's spin, which on a busy machine costs more
    # processor time than the work; read when torch is first imported
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with _logged():
        code, line = outcome(sys.argv[1:] if arguments is None else list(map(str, arguments)))
    if line:
        with suppress(OSError):
            print("interp:", readable(line), file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if _is_broken(stream):  # Python would complain as it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code


def outcome(arguments: Sequence[str]) -> tuple[int, str]:
    """Run the command: the exit code, and a line about what went wrong."""
    try:
        with _interruptible():
            _run(arguments)
        sys.stdout.flush()
    except UserError as error:
        return 2, str(error)
    except KeyboardInterrupt as stop:
        kept = getattr(stop, "__notes__", [])[:1]  # of the innermost run, which was under way
        return 130, "; ".join(["interrupted", *kept])
    except BrokenPipeError:  # the reader of a pipe has seen enough
        return 0, ""
    return 0, ""


def _run(arguments: Sequence[str]) -> None:
    try:
        bound = parse(arguments)
        gc.enable()  # `launch` imports without
        bound()
    except SystemExit as stop:
        if stop.code:  # else the help is printed
            raise


def _is_broken(stream: TextIO) -> bool:
    """Whether what is left to write cannot be written: on a full disk, or where it is closed."""
    try:
        stream.flush()
    except (OSError, UserError):
        return True
    return False


@contextmanager
def _logged() -> Iterator[None]:
    """What the workbench logs goes to standard error, once however often `main` is called."""
    log, handler = logging.getLogger("interp"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends the block as a KeyboardInterrupt, whatever C code that was calling Python made of
    it (torch's constructors make a ValueError: "could not determine the shape")."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # which alone hears of it
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        if noted and callable(before):  # the first was swallowed, or its clearing up takes long
            before(number, frame)
        noted.append(number)
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    except Exception as error:
        if noted:
            stop = KeyboardInterrupt()
            for note in getattr(error, "__notes__", []):
                stop.add_note(note)
            raise stop from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
