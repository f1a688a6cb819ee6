"""What the app's server holds in memory of models: one pool for all windows, with a limit.

Everything in it is named by its content (the weights' hash, what goes before a text, an adapter's
hash; an SAE's hash), never by a name or a path, which may mean something else by now. Whoever
borrows a thing has it alone: an edit applies to whatever runs, and some SAEs remember their last
input. Others wait in the order of asking. What is idle leaves, the least recently used first, when
something else needs its room; what is borrowed never does.

A page takes its model first, then what it needs beside it in the order of their keys. So nobody
waits for somebody who waits for him: who has a thing already goes before those who have none, and
is told at once where there is no room, instead of waiting for it.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from interp.apps.common import plain
from interp.errors import UserError
from interp.model.allowed import MEMORY
from interp.plain_path import found
from interp.runs.store import Run, Store
from interp.runs.study import ModelStudy, Study, plan, run_or_load

if TYPE_CHECKING:
    from interp.model.prompting import Bos
    from interp.model.subject import Subject
    from interp.model.weights import Weights
    from interp.obsprop.model_weights import StackedWeights
    from interp.saes import Sae

GIB = 2**30
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

    def clear(self) -> None:
        """Let all go that is idle."""
        with self._changed:
            self._make_room(self._limit())

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


def machine_memory() -> int:
    """Bytes that this process can have: the machine's, or fewer where it is held to them."""
    every = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if Path(file).exists() and (text := Path(file).read_text().strip()).isdecimal():
            every.append(int(text))
    return min(every)


def _said(size: int) -> str:
    return f"{size / GIB:.2g} GiB" if size >= 0.1 * GIB else f"{size / 2**20:.2g} MiB"


@contextmanager
def _in_the_window(name: str) -> Iterator[Callable[[], None]]:
    """A spinner that says what is waited for. Whatever the window does meanwhile ends the wait: a
    script that is not wanted any more is stopped when it next writes something."""
    with st.spinner(f"Another window has {plain(name)}; waiting for a turn …", show_time=True):
        note = st.empty()

        def look() -> None:
            note.empty()

        yield look


POOL = Pool(limit)
"""The server's own."""
MODEL, RUN, SAE, OTHER = "0 model", "1 run", "2 sae", "3 other"
"""Kinds, in the order in which they are taken."""


@contextmanager
def borrowed(model: str, bos: Bos = "auto", adapter: str = "") -> Iterator[Subject]:
    """A model for this window alone, without edits, until the block is left.

    Args:
        model: a catalog name, hub id, folder or .gguf file.
        bos: a BOS token before each text, as `open_subject` takes it.
        adapter: the folder of a LoRA adapter to merge into it, or "shipped".
    """
    weights, key = _identity(model, bos, adapter)

    def make() -> Subject:
        from interp.knob.adapter import open_tuned

        with st.spinner(f"opening {plain(model)} …", show_time=True):
            # eager: so that heads' patterns can be read
            return open_tuned(model, adapter or "none", bos=bos, attention="eager")

    with POOL.lent(key, model, 4 * weights.numbers, make, _in_the_window) as subject:
        subject.edits = ()
        try:
            yield subject
        finally:
            subject.edits = ()


def content(model: str, bos: Bos = "auto", adapter: str = "") -> Key:
    """What a model is, to remember an answer by: another wherever it would say something else."""
    return _identity(model, bos, adapter)[1]


def _identity(model: str, bos: Bos, adapter: str) -> tuple[Weights, Key]:
    from interp.knob.adapter import adapter_print
    from interp.model.prompting import start_of
    from interp.model.weights import open_weights

    weights = open_weights(model)
    prints = weights.fingerprints()
    start = start_of(weights.folder, prints["tokenizer"], bos)
    own = adapter_print(adapter or "none")
    return weights, (MODEL, *prints.values(), " ".join(map(str, start)), own)


def run(study: Study) -> Run:
    """`run_or_load` on a page. A study opens its model itself, so until it is done there is room
    for that copy as for any other: idle ones leave, or it waits."""
    made = Store().folder(study.STUDY, plan(study)["key"]) / "manifest.json"
    if made.exists() or not isinstance(study, ModelStudy):
        return run_or_load(study)
    own = (RUN, study.model, str(time.monotonic_ns()))
    size = 4 * study.stored_weights.numbers
    with POOL.lent(own, study.model, size, object, _in_the_window, keep=False):
        return run_or_load(study)


@contextmanager
def surveyed_sae(survey: Run) -> Iterator[Sae]:
    """The SAE of a survey, after the model that it is used with."""
    from interp.latents.prompt import survey_config
    from interp.latents.prompt import surveyed_sae as opened

    config = survey_config(survey)
    key = (SAE, str(survey.manifest["fingerprints"]["saes"]), config.site)
    with _lent_sae(key, config.source, lambda: opened(survey)) as sae:
        yield sae


@contextmanager
def saes(places: Collection[str]) -> Iterator[dict[str, Sae]]:
    """SAEs by what opens them, after the model that they are used with."""
    from interp.directions.sets import sae_place
    from interp.saes.open import open_sae, saes_fingerprint

    with ExitStack() as stack:
        opened: dict[Key, Sae] = {}
        paths = {place: sae_place(place, Store()) for place in places}
        keys = {place: (SAE, saes_fingerprint(path), "") for place, path in paths.items()}
        for key, place in sorted((key, place) for place, key in keys.items()):
            if key not in opened:  # one SAE may lie in two places
                lent = _lent_sae(key, paths[place], partial(open_sae, paths[place]))
                opened[key] = stack.enter_context(lent)
        yield {place: opened[key] for place, key in keys.items()}


def _lent_sae(key: Key, source: str, make: Callable[[], Sae]) -> AbstractContextManager[Sae]:
    def opened() -> Sae:
        with st.spinner("opening the SAE …", show_time=True):
            return make()

    return POOL.lent(key, source, _files(source), opened, _in_the_window)


@contextmanager
def stacked_weights(model: str) -> Iterator[StackedWeights]:
    """The heads' weights of a model, read from its files: no text goes through them."""
    from interp.obsprop.model_weights import StackedWeights

    weights, key = _identity(model, "auto", "")

    def make() -> StackedWeights:
        with st.spinner("reading the heads' weights …"):
            return StackedWeights(weights)

    size = 4 * weights.spec.n_layers * weights.spec.d_model * weights.spec.d_head
    size *= weights.spec.n_heads + weights.spec.n_kv_heads
    key = (OTHER, "heads", *key)
    with POOL.lent(key, f"the heads of {model}", size, make, _in_the_window) as stacked:
        yield stacked


@contextmanager
def kept(key: Key, name: str, make: Callable[[], Any]) -> Iterator[Any]:
    """Anything else that a page keeps, by its content."""
    with POOL.lent((OTHER, *key), name, 0, make, _in_the_window) as value:
        yield value


def _files(source: str) -> int:
    """Bytes of the tensors in a folder; 0 for what is none."""
    folder = found(source)
    each = folder.rglob("*.safetensors") if folder and folder.is_dir() else ()
    return sum(file.stat().st_size for file in each)
