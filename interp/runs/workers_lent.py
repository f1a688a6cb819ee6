"""What all workers of a machine read and none changes: made once, and held once a machine.

The unembedding of a large model is gigabytes; a task that lends it (`Lending`) has it made by the
process that asks. Workers of this machine map one file of it, those of a cluster read the one copy
that Ray's object store has on each node.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from ..errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Lent = Mapping[str, np.ndarray]


@runtime_checkable
class Lending(Protocol):
    """A task whose workers open it with arrays that are lent to them."""

    def lend(self) -> Lent:
        """The arrays, made by the process that asks."""
        ...

    def open(self, lent: Lent | None = None) -> Any:
        """As `Task.open`; by itself it makes the arrays."""
        ...


@contextmanager
def lent_files(task: Any) -> Iterator[Path | None]:
    """A folder of the arrays of a task that lends some, for as long as its workers live."""
    if not isinstance(task, Lending):
        yield None
        return
    with TemporaryDirectory(prefix="interp-lent-") as folder:
        try:
            for name, array in task.lend().items():
                np.save(Path(folder) / f"{name}.npy", array, allow_pickle=False)
        except OSError as error:
            raise UserError(
                f"cannot write what the workers share to {folder}: {error.strerror}; set TMPDIR"
            ) from error
        yield Path(folder)


def opened_with(task: Any, folder: Path | None) -> Any:
    """A task, opened with what is in such a folder."""
    if folder is None:
        return task.open()
    # "c": what a worker would write stays its own
    return task.open(
        {
            path.stem: np.load(path, mmap_mode="c", allow_pickle=False)
            for path in folder.glob("*.npy")
        }
    )


def tensor(array: np.ndarray) -> Tensor:
    """A lent array as a tensor, without a copy."""
    import torch

    with warnings.catch_warnings():  # nobody writes to it
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)
