"""Parts of a job handed over as their workers finish them (`workers_task` says what they are).

One rule for processes and clusters: a crew makes parts and says whose worker died, and what becomes
of those is decided here.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ..errors import UserError
from ..progress import Advance, log
from .workers_task import RETRIES, Crew, InSteps, P, Task, WorkerDied, Workers

HERE = Workers()
"""This process itself."""
AHEAD = 2
"""Parts under way or ready to begin, for each worker that there is room for."""
UNHEARD = Advance()


def map_parts(
    task: Task[P],
    parts: Sequence[P],
    workers: Workers = HERE,
    advance: Advance = UNHEARD,
    ordered: bool = False,
) -> Iterator[tuple[P, Any]]:
    """Each part with its result; a bounded number is under way at once.

    Args:
        advance: the progress of the work; it hears of the workers before each part is handed over.
        ordered: in the order of `parts`, for results that add up; else as they are finished.

    Raises:
        UserError: a part's own, or a part's workers died more than RETRIES times.
    """
    if workers.address or (workers.number > 1 and len(parts) > 1):
        yield from _by(_crew(task, workers), parts, advance, ordered)
    elif parts:
        yield from _here(task, parts)


def _here(task: Task[P], parts: Sequence[P]) -> Iterator[tuple[P, Any]]:
    """In this process, one after the other, or one begun while the one before it is finished."""
    opened = task.open()
    if not isinstance(task, InSteps):
        for part in parts:
            yield part, task.make(opened, part)
        return
    with ThreadPoolExecutor(1) as beside:
        last: list[tuple[P, Future[Any]]] = []
        for part in parts:
            try:
                begun = task.begin(opened, part)
            except (UserError, KeyboardInterrupt):
                yield from ((one, made.result()) for one, made in last)  # it is no part of that
                raise
            now = part, beside.submit(task.finish, opened, begun)
            yield from ((one, made.result()) for one, made in last)
            last = [now]
        yield from ((one, made.result()) for one, made in last)


def _crew(task: Task[P], workers: Workers) -> Crew[P]:
    if workers.address:
        from .workers_ray import OnRay

        return OnRay(task, workers)
    from .workers_here import Processes

    return Processes(task, workers)


def _by(
    crew: Crew[P], parts: Sequence[P], advance: Advance, ordered: bool
) -> Iterator[tuple[P, Any]]:
    left, died = deque(range(len(parts))), Counter[int]()
    under_way: dict[int, Any] = {}
    try:
        while left or under_way:
            while left and len(under_way) < AHEAD * crew.room():
                at = left.popleft()
                under_way[at] = crew.begin(parts[at])
            numbers = {begun: at for at, begun in under_way.items()}
            at = numbers[crew.first(list(numbers)[:1] if ordered else list(numbers))]
            try:
                result = crew.result(under_way[at])
            except WorkerDied as death:
                died[at] += 1
                _check_may_go_on(parts[at], died[at], death)
                under_way[at] = crew.begin(parts[at])  # at its old place in the order
            else:
                del under_way[at]
            advance.made_by(min(crew.alive(), len(parts)), died.total())
            if at not in under_way:
                yield parts[at], result
    finally:
        crew.end(list(under_way.values()))


def _check_may_go_on(part: Any, times: int, death: WorkerDied) -> None:
    """Say that a part is made again, or raise UserError where that was often enough."""
    if times > RETRIES:
        raise UserError(
            f"the workers of part {part} died {times} times, at last: {death}; if memory is short, "
            "give fewer --workers, or a --memory-per-worker on a cluster"
        ) from None
    log.warning("%s: part %s is made again", death, part)
