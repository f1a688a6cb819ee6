"""A pool of things that are lent to one thread at a time, with a limit to their bytes.

A page takes its model first, then what it needs beside it in the order of their keys. So nobody
waits for somebody who waits for him: who has a thing already goes before those who have none, and
is told at once where there is no room, instead of waiting for it.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from interp.errors import UserError
from interp.model.allowed import MEMORY
from interp.model.devices import machine_memory

GIB = 2**30
MODEL, RUN, SAE, OTHER = "0 model", "1 run", "2 sae", "3 other"
"""Kinds, in the order in which they are taken."""
_LOOK = 0.2
"""Seconds between two looks of who waits at whether his window still wants it."""

Key = tuple[str, ...]
Waiting = Callable[[str], AbstractContextManager[Callable[[], None]]]
"""(what is waited for) -> a context in which the function it gives is called now and then; it may
raise, and then the place in the line is given up."""


@dataclass(eq=False)
class _Ticket:
    """A place in a line."""

    nested: bool
    """Whether who asks has another thing already."""
    has: bool = False


@dataclass(eq=False)
class _Thing:
    """Something in the pool, or to be opened."""

    name: str
    size: int
    """Bytes: of what is in memory, before that as its files say."""
    line: list[_Ticket] = field(default_factory=list)
    """Who asks for it; the first has it, or will."""
    counts: bool = False
    """Whether it takes room: it is open, or being opened."""
    value: Any = None
    used: int = 0
    """When it was last given back."""


class Pool:
    """Things by their content, each lent to one thread at a time, with a limit to their bytes."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._things: dict[Key, _Thing] = {}
        self._clock = count(1)
        self._mine = threading.local()

    @contextmanager
    def lent(
        self,
        key: Key,
        name: str,
        size: int,
        make: Callable[[], Any],
        waiting: Waiting,
        keep: bool = True,
    ) -> Iterator[Any]:
        """A thing for this thread alone; opened by `make` if it is not there.

        Args:
            key: what it is, by content; beginning with its kind.
            name: what people call it.
            size: its bytes, as its files say.
            keep: whether it stays until its room is needed.

        Raises:
            UserError: it does not fit the limit, or not beside what this thread has.
            RuntimeError: a page that takes things out of order.
        """
        held: list[Key] = self._mine.__dict__.setdefault("keys", [])
        if held and (key <= held[-1] or key[0] == MODEL):
            raise RuntimeError(f"{key} is borrowed after {held[-1]}: the model first, then by key")
        thing, ticket = self._in_line(key, name, size, bool(held))
        held.append(key)
        try:
            self._wait(thing, ticket, waiting)
            if thing.value is None:
                self._open(thing, make)
            yield thing.value
        finally:
            held.remove(key)
            self._leave(key, thing, ticket, keep)

    def __len__(self) -> int:
        return sum(thing.value is not None for thing in self._things.values())

    @property
    def bytes(self) -> int:
        """Of all that is open, or being opened."""
        with self._changed:
            return self._used()

    def _in_line(self, key: Key, name: str, size: int, nested: bool) -> tuple[_Thing, _Ticket]:
        ticket = _Ticket(nested)
        with self._changed:
            thing = self._things.setdefault(key, _Thing(name, size))
            before = [i for i, other in enumerate(thing.line) if other.has or other.nested]
            at = (before[-1] + 1 if before else 0) if nested else len(thing.line)
            thing.line.insert(at, ticket)
        return thing, ticket

    def _wait(self, thing: _Thing, ticket: _Ticket, waiting: Waiting) -> None:
        """Until it is this one's turn, and there is room."""
        with self._changed:
            if self._ready(thing, ticket):
                return
        with waiting(thing.name) as look:
            while True:
                look()
                with self._changed:
                    if self._ready(thing, ticket) or (
                        self._changed.wait(_LOOK) and self._ready(thing, ticket)
                    ):
                        return

    def _ready(self, thing: _Thing, ticket: _Ticket) -> bool:
        """Whether it is this one's now."""
        if thing.line[0] is ticket and (thing.counts or self._fits(thing, ticket)):
            ticket.has = True
        return ticket.has

    def _fits(self, thing: _Thing, ticket: _Ticket) -> bool:
        """Whether there is room to open it; then it counts from now on."""
        limit = self._limit()
        if thing.size > limit:
            raise UserError(
                f"{thing.name} takes {_said(thing.size)}, and the app keeps at most "
                f"{_said(limit)} in memory: start it with a larger --memory"
            )
        thing.counts = self._make_room(thing.size)
        if not thing.counts and ticket.nested:
            raise UserError(
                f"{thing.name} takes {_said(thing.size)}, and other windows use what the app may "
                f"keep in memory ({_said(limit)}): try again, or start it with a larger --memory"
            )
        return thing.counts

    def _make_room(self, size: int) -> bool:
        """Whether so many bytes are free, when what is idle has left as far as it must."""
        idle = [k for k, t in self._things.items() if t.value is not None and not t.line]
        idle.sort(key=lambda key: self._things[key].used)
        left = False
        while self._used() + size > self._limit() and idle:
            del self._things[idle.pop(0)]
            left = True
        if left:
            gc.collect()  # modules hang on each other in circles
        return self._used() + size <= self._limit()

    def _used(self) -> int:
        return sum(thing.size for thing in self._things.values() if thing.counts)

    def _open(self, thing: _Thing, make: Callable[[], Any]) -> None:
        value = make()
        with self._changed:
            thing.value, thing.size = value, bytes_of(value) or thing.size
            self._make_room(0)

    def _leave(self, key: Key, thing: _Thing, ticket: _Ticket, keep: bool) -> None:
        with self._changed:
            thing.line.remove(ticket)
            if ticket.has:
                thing.used = next(self._clock)
                thing.value = thing.value if keep else None
                thing.counts = thing.value is not None  # else it could not be opened
            if thing.counts and ticket.has:
                thing.size = bytes_of(thing.value) or thing.size  # it may have read more
                self._make_room(0)
            if thing.value is None and not thing.line:
                self._things.pop(key, None)
            self._changed.notify_all()


def bytes_of(value: Any) -> int:
    """Of the tensors in a model, an SAE or anything with tensors in its fields; each once."""
    import torch

    seen: dict[int, int] = {}
    looked: set[int] = set()

    def look(part: Any) -> None:
        if id(part) in looked:
            return
        looked.add(id(part))
        if isinstance(part, torch.Tensor):
            storage = part.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
        elif isinstance(part, torch.nn.Module):
            for tensor in (*part.parameters(), *part.buffers()):
                look(tensor)
        elif isinstance(part, dict):
            for each in part.values():
                look(each)
        elif isinstance(part, list | tuple):
            for each in part:
                look(each)
        elif type(part).__module__.startswith("interp.") and hasattr(part, "__dict__"):
            look(vars(part))

    look(value)
    return sum(seen.values())


def limit() -> int:
    """The limit in bytes: what MEMORY says, else half of what the machine has.

    Raises:
        UserError: MEMORY is no number.
    """
    said = os.environ.get(MEMORY, "")
    if not said:
        return machine_memory() // 2
    try:
        gib = float(said)
    except ValueError:
        gib = 0.0
    if not 0 < gib < 2**20:
        raise UserError(f"{MEMORY} is '{said}': give the GiB that the app may keep, such as 8")
    return int(gib * GIB)


def _said(size: int) -> str:
    return f"{size / GIB:.2g} GiB" if size >= 0.1 * GIB else f"{size / 2**20:.2g} MiB"
