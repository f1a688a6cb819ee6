"""Parts on a Ray cluster (`workers_task` says what for)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Generic
from urllib.parse import urlsplit

from ..errors import UserError
from ..plain_numbers import size_said
from ..progress import log
from .workers_lent import Lending
from .workers_task import P, Task, WorkerDied, Workers

_LOST = {
    "NodeDiedError": "a node was lost",
    "ObjectLostError": "a node was lost with a result",
    "OutOfMemoryError": "a worker's node was short of memory",
    "WorkerCrashedError": "a worker died",
}
"""What Ray raises where a part may be made again, and how that is said."""
_LOCAL = "`ray start --head` begins one on this machine, RAY_ADDRESS names another"
_REMOTE = (
    "give the address of its head and its client port, usually 10001, and install "
    "'interp-workbench[cluster]' on both sides"
)
_TOKEN = (
    "it may ask for a token, as `ray start` has it do where ~/.ray/auth_token is: set "
    "RAY_AUTH_MODE=token, and have the same file here"
)
ANSWERS = 10.0
"""Seconds in which the head of a cluster takes a connection."""
_opened: dict[Any, Any] = {}
"""Of a worker: what its task has opened."""


class OnRay(Generic[P]):
    """A crew on a Ray cluster (`workers_task.Crew`)."""

    def __init__(self, task: Task[P], workers: Workers) -> None:
        self._ray, self._own = _joined(workers.address)
        self._task, self._workers = task, workers
        wanted = {"num_cpus": 1, "num_gpus": workers.gpus, "memory": workers.memory or None}
        self._made = self._ray.remote(max_retries=0, **wanted)(_made)  # Ray's own are not told of
        if not self._held():
            log.warning(
                "no node of the cluster has room for a worker (%s): waiting for one that has; "
                "Ctrl-C, and ask for less",
                _said(workers),
            )
        arrays = task.lend() if isinstance(task, Lending) else {}
        self._lent = {name: self._ray.put(array) for name, array in arrays.items()}

    def room(self) -> int:
        """Nodes come and go; Ray notices in some ten seconds that one is gone."""
        return max(self._held(), 1)

    def _held(self) -> int:
        nodes = self._ray.nodes()
        return sum(held(node["Resources"], self._workers) for node in nodes if node["Alive"])

    alive = room

    def begin(self, part: P) -> Any:
        return self._made.remote(self._task, self._lent, part)

    def first(self, begun: Sequence[Any]) -> Any:
        return self._ray.wait(list(begun), num_returns=1)[0][0]

    def result(self, begun: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(begun)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError as error:
            kinds = [name for name in _LOST if isinstance(error, getattr(errors, name))]
            if not kinds:
                raise UserError(
                    f"the Ray cluster was lost ({type(error).__name__}): start it and give the "
                    "same command, which goes on with what is finished"
                ) from None
            raise WorkerDied(_LOST[kinds[0]]) from None

    def end(self, begun: Sequence[Any]) -> None:
        for reference in begun:
            self._ray.cancel(reference, force=True)
        if self._own:
            self._ray.shutdown()


def held(node: Mapping[str, float], workers: Workers) -> int:
    """How many workers a node has room for, by its resources as Ray names them."""
    wanted = {"CPU": 1, "GPU": workers.gpus, "memory": workers.memory}
    return int(min(node.get(name, 0) // each for name, each in wanted.items() if each))


def _said(workers: Workers) -> str:
    """What a worker takes."""
    gpus = f", {workers.gpus:g} GPUs" * bool(workers.gpus)
    memory = f", {size_said(workers.memory)} of memory" * bool(workers.memory)
    return f"1 core{gpus}{memory}"


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
    named = os.environ.get("RAY_ADDRESS") or address if address == "auto" else address
    try:
        _answers(named)
        ray.init(address=address, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        reason, hint = str(error).splitlines()[0], _LOCAL if address == "auto" else _REMOTE
        if "Failed to connect" in reason and "RAY_AUTH_MODE" not in os.environ:
            hint = _TOKEN
        raise UserError(f"cannot join the Ray cluster '{named}' ({reason}): {hint}") from None
    return ray, True


def _answers(address: str) -> None:
    """See that somebody listens at an address that names a host and a port: Ray itself tries for
    minutes. Raises OSError where nobody does."""
    named = urlsplit(address if "://" in address else f"ray://{address}")
    if not named.hostname or not named.port:
        return
    try:
        socket.create_connection((named.hostname, named.port), ANSWERS).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"{named.hostname}:{named.port} does not answer: {reason}") from None


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
    """This machine, and what the cluster calls it: its address, or a name that it was given."""
    import socket

    import ray

    own = ray.get_runtime_context().get_node_id()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    called = next(node["NodeName"] for node in nodes if node["NodeID"] == own)
    return f"node {socket.gethostname()} ({called})"
