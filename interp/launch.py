"""Entry of the `interp` command and of its helper processes.

Before anything heavy is imported, Ctrl-C is answered with a line, the standard streams are open,
and no Python that this one starts takes modules from the current folder.
"""

import gc
import io
import os
import signal
import sys
import threading


def main() -> int:
    """The `interp` command; returns its exit code."""
    signal.signal(signal.SIGINT, _stop)
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    _open_streams()
    gc.disable()  # of what is imported nothing is garbage; the command's own work has it again
    from .cli import main as run

    return run()


def helper() -> None:
    """Run the module that the second argument names with those after it, as `python -m` would. The
    first one is the end of a pipe whose other end closes when the process that started this one
    has ended.

    Ctrl-C reaches the process that started this one, too: that one says so.
    """
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    import runpy

    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with(pipe: int) -> None:
    """Wait until the process at the other end has ended, and end too."""
    os.read(pipe, 1)
    os._exit(1)


def _stop(*_: object) -> None:
    """While modules are imported and when all is done: nothing is under way that could be lost, and
    an exception might be swallowed."""
    try:
        os.write(2, b"interp: interrupted\n")
    finally:
        os._exit(130)


def _open_streams() -> None:
    """Let a standard stream that is closed (`>&-`) lead nowhere.

    Else the next file that is opened gets its number, and what is meant for the stream goes into
    that file. Standard output cannot be written then, so that a command says what is lost.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # it gets the lowest number free
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(1, "w", closefd=False)),
        encoding=sys.stdout.encoding if sys.stdout else None,
        errors="backslashreplace",
        line_buffering=os.isatty(1),
    )


class _Output(io.FileIO):
    """Standard output. What it cannot take, on a full disk or where it is closed, is a mistake; a
    reader of a pipe that has seen enough is none."""

    def write(self, content: bytes) -> int:  # type: ignore[override]
        try:
            return super().write(content)
        except BrokenPipeError:
            raise
        except OSError as error:
            from .errors import UserError

            raise UserError(f"cannot write to standard output: {error.strerror}") from error


if __name__ == "__main__":
    helper()
