"""What other packages add, by entry points. One that raises or does not fit is left out with a line
that says why; the workbench goes on without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

from .progress import log

_RAISED = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError),
    *(OSError, RuntimeError, SyntaxError, TypeError, ValueError),
)
"""What a stranger's module may raise as it is imported or looked at."""


def outside(group: str, what: str, unfit: Callable[[str, Any], str]) -> Iterator[tuple[str, Any]]:
    """The entries of a group that fit, each with its entry point's name.

    Args:
        what: what an entry is, for the line.
        unfit: why an entry of a name cannot be taken in; "" if it can.
    """
    for point in metadata.entry_points(group=group):
        package = point.dist.name if point.dist else point.value
        try:
            entry = point.load()
            reason = unfit(point.name, entry)
        except _RAISED as error:
            reason = f"{type(error).__name__}: {error}"
        if reason:
            log.warning("the %s '%s' of %s is left out: %s", what, point.name, package, reason)
        else:
            yield point.name, entry
