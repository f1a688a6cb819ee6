"""Parts of a job handed over as their workers finish them (`workers_task` says what they are)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .workers_task import P, Task, Workers

HERE = Workers()
"""This process itself."""


def map_parts(
    task: Task[P],
    parts: Sequence[P],
    workers: Workers = HERE,
    died: Callable[[str], None] = lambda said: None,
    ordered: bool = False,
) -> Iterator[tuple[P, Any]]:
    """Each part with its result; a bounded number is under way at once.

    Args:
        died: told, in a line, of a worker that died.
        ordered: in the order of `parts`, for results that add up; else as they are finished.

    Raises:
        UserError: a part's own, or a part's workers died more than RETRIES times.
    """
    if workers.address:
        from .workers_ray import on_ray

        yield from on_ray(task, parts, workers, ordered)
    elif workers.number > 1 and len(parts) > 1:
        from .workers_here import in_processes

        yield from in_processes(task, parts, workers, died, ordered)
    elif parts:
        opened = task.open()
        for part in parts:
            yield part, task.make(opened, part)
