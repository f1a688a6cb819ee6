"""Parts on a Ray cluster (`workers_task` says what for). What a dead worker or node had, Ray makes
again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import UserError
from .workers_lent import Lending
from .workers_task import RETRIES, P, Task, Workers

AHEAD = 2
"""Parts under way or waiting, for each worker that the cluster has room for."""
_opened: dict[Any, Any] = {}
"""Of a worker: what its task has opened."""


def on_ray(
    task: Task[P], parts: Sequence[P], workers: Workers, ordered: bool
) -> Iterator[tuple[P, Any]]:
    """`workers.map_parts` on a Ray cluster."""
    ray, own = _joined(workers.address)
    wanted: dict[str, Any] = {"num_cpus": 1, "max_retries": RETRIES}
    if workers.gpus:
        wanted["num_gpus"] = workers.gpus
    if workers.memory:
        wanted["memory"] = workers.memory
    made, left = ray.remote(**wanted)(_made), deque(parts)
    under_way: dict[Any, P] = {}
    try:
        lent = {n: ray.put(a) for n, a in task.lend().items()} if isinstance(task, Lending) else {}
        while left or under_way:
            while left and len(under_way) < AHEAD * _room(ray, workers):
                under_way[made.remote(task, lent, left[0])] = left[0]
                left.popleft()
            awaited = [next(iter(under_way))] if ordered else list(under_way)
            done, _ = ray.wait(awaited, num_returns=1)
            yield under_way[done[0]], _result(ray, done[0], under_way[done[0]])
            del under_way[done[0]]
    finally:
        for reference in under_way:
            ray.cancel(reference, force=True)
        if own:
            ray.shutdown()


def _joined(address: str) -> tuple[Any, bool]:
    """Ray, and whether this process joined the cluster for this job."""
    try:
        import ray
    except ImportError:
        raise UserError(
            "--workers ray needs Ray: pip install 'interp-workbench[cluster]'"
        ) from None
    if ray.is_initialized():
        return ray, False
    try:
        ray.init(address=address, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"no Ray cluster at '{address}' ({str(error).splitlines()[0]}): `ray start --head` "
            "begins one on this machine"
        ) from None
    return ray, True


def _room(ray: Any, workers: Workers) -> int:
    """How many workers the cluster has room for now: nodes come and go."""
    there = ray.cluster_resources()
    rooms = [there.get("CPU", 1)]
    if workers.gpus:
        rooms.append(there.get("GPU", 0) / workers.gpus)
    if workers.memory:
        rooms.append(there.get("memory", 0) / workers.memory)
    return max(int(min(rooms)), 1)


def _result(ray: Any, reference: Any, part: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
        raise UserError(
            f"the workers of part {part} died {RETRIES + 1} times: {str(error).splitlines()[0]}"
        ) from None


def _made(task: Task[Any], lent: dict[str, Any], part: Any) -> Any:
    if task not in _opened:
        _opened.clear()
        try:
            _opened[task] = _open(task, lent)
        except UserError as error:
            raise UserError(f"{_node()}: {error}") from None
    return task.make(_opened[task], part)


def _open(task: Task[Any], lent: dict[str, Any]) -> Any:
    import ray

    if not isinstance(task, Lending):
        return task.open()
    arrays = ray.get(list(lent.values()))  # views of the node's one copy
    return task.open(dict(zip(lent, arrays, strict=True)))


def _node() -> str:
    import socket

    return f"node {socket.gethostname()}"
