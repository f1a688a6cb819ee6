"""A child of this process, with all that it has imported; a new Python takes seconds to."""

import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

SECONDS = 120
"""A child that hangs is ended after so many."""


def ended(function: Callable[..., Any], *given: Any) -> int:
    """How a child that calls a function ends: 0, 1 if it raises, -9 if it is killed.

    Torch has one thread here and there, as threads do not outlive a fork, and the last digits of
    some products follow their number.
    """
    import torch

    assert torch.get_num_threads() == 1, "take the fixture one_thread"
    child = os.fork()
    if not child:
        _call(function, given)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(function: Callable[..., Any], *given: Any) -> None:
    """A child calls a function, which kills it."""
    assert ended(function, *given) == -signal.SIGKILL


def _call(function: Callable[..., Any], given: tuple[Any, ...]) -> None:
    """Never returns."""
    code = 1
    try:
        signal.alarm(SECONDS)
        function(*given)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:  # noqa: BLE001 - whatever comes is told
        traceback.print_exc()
    finally:
        os._exit(code)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
