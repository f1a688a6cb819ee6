"""Answers that the app remembers for all windows, by what they depend on.

A key holds contents (`pool.content` of a model, a run's seal, a hash) and what was asked, never a
path or a name alone: what lies there may be another by tomorrow. Answers are shared, so nobody
changes one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import TypeVar

T = TypeVar("T")
MOST = 512

_kept: OrderedDict[Hashable, object] = OrderedDict()
_lock = Lock()


def remember(key: Hashable, answer: object) -> None:
    """Keep an answer; the one that was longest not asked for leaves."""
    with _lock:
        _kept[key] = answer
        _kept.move_to_end(key)
        while len(_kept) > MOST:
            _kept.popitem(last=False)


def known(key: Hashable) -> object | None:
    """The answer, if it is remembered."""
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
        return _kept.get(key)


def remembered(key: Hashable, make: Callable[[], T]) -> T:
    """The answer, made if it is not remembered. Two windows that ask at once both make it, and a
    model's lock sees to it that they do so one after the other."""
    found = known(key)
    if found is None:
        found = make()
        remember(key, found)
    return found  # type: ignore[return-value]
