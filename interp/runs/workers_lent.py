"""What all workers of a machine read and none changes: made once, and held once a machine.

The unembedding of a large model is gigabytes; a task that lends it (`Lending`) has it made by the
process that asks. Workers of this machine map one file of it, those of a cluster read the one copy
that Ray's object store has on each node.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from filelock import FileLock, Timeout

from ..errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Lent = Mapping[str, np.ndarray]
PREFIX = "interp-lent-"


@runtime_checkable
class Lending(Protocol):
    """A task whose workers open it with arrays that are lent to them."""

    def lend(self) -> Lent:
        """The arrays, made by the process that asks."""
        ...

    def open(self, lent: Lent | None = None) -> Any:
        """As `Task.open`; by itself it makes the arrays."""
        ...


class LentFiles:
    """The arrays that a task lends as files, for as long as its workers live."""

    def __init__(self, task: Lending) -> None:
        _remove_left()
        self._folder = TemporaryDirectory(prefix=PREFIX)
        self.path = self._folder.name
        self._lock = FileLock(Path(self.path) / "lock")
        try:
            self._lock.acquire()
            for name, array in task.lend().items():
                np.save(Path(self.path) / f"{name}.npy", array, allow_pickle=False)
        except OSError as error:
            self.remove()
            raise UserError(
                f"cannot write what the workers share to {self.path}: {error.strerror or error}; "
                "set TMPDIR to a folder with room for it"
            ) from error

    def remove(self) -> None:
        self._lock.release()
        self._folder.cleanup()


def _remove_left() -> None:
    """Remove what killed processes left: nobody holds its lock."""
    for left in Path(gettempdir()).glob(f"{PREFIX}*"):
        with suppress(Timeout, OSError), FileLock(left / "lock", blocking=False):
            shutil.rmtree(left, ignore_errors=True)


def opened_with(task: Any, folder: str | None) -> Any:
    """A task, opened with what is in such a folder."""
    if folder is None:
        return task.open()
    # "c": what a worker would write stays its own
    files = Path(folder).glob("*.npy")
    return task.open({file.stem: np.load(file, "c", allow_pickle=False) for file in files})


def tensor(array: np.ndarray) -> Tensor:
    """A lent array as a tensor, without a copy."""
    import torch

    with warnings.catch_warnings():  # nobody writes to it
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)
