"""Where a model runs: one device, or split over all that there are.

`split` fills the GPUs with a model's layers in their order, then memory, and leaves the rest in its
files: each pass reads a layer from there when its turn comes, and lets it go (accelerate's device
map, on safetensors files as they are, without a copy). `split:8G` puts at most 8 GiB of weights on
each GPU and in memory, the largest layer that is read from elsewhere counted in; `split:0` leaves
all of them in the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UserError
from ..plain_numbers import bytes_said
from ..progress import log

if TYPE_CHECKING:
    from torch import Tensor, device

SHARE = 0.8
"""Of the free bytes of a device, for weights: the rest is for activations."""


class Split(NamedTuple):
    """A model over several devices."""

    most: int | None
    """Bytes of weights on each; by default SHARE of what is free."""

    @classmethod
    def of(cls, device: str) -> Split | None:
        """What `--device` says; None for one device.

        Raises:
            UserError: a limit that is no size.
        """
        name, colon, limit = device.partition(":")
        if name != "split":
            return None
        most = bytes_said(limit) if colon else None
        if colon and most is None:
            raise UserError(
                f"--device split:SIZE takes a size, as in split:24G, not '{limit[:40]}'"
            )
        return cls(most)

    @property
    def options(self) -> dict[str, Any]:
        """For `from_pretrained`."""
        from accelerate.utils import get_max_memory

        free = get_max_memory()  # by GPU's number or name, and of "cpu"
        if "cpu" in free:
            free["cpu"] = min(free["cpu"], machine_memory())
        most = {
            at: int(SHARE * size) if self.most is None else self.most for at, size in free.items()
        }
        return {"device_map": "auto", "max_memory": most}


def check_device(device: str) -> None:
    """Raise UserError for a device that cannot be used here; `split` is none, but a place for
    models that `open_subject` opens."""
    import torch

    if Split.of(device):
        raise UserError(
            f"'{device}' is for models of text that are run: give {' or '.join(_devices())}"
        )
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        here, kind = _devices(), device.partition(":")[0]
        known = any(own.startswith(kind) for own in here)  # of others torch says what is no help
        reason = f" ({str(error).splitlines()[0][:120]})" if known else ""
        raise UserError(
            f"device '{device[:40]}' cannot be used here{reason}: this machine has "
            f"{', '.join(here)}"
        ) from error


def _devices() -> list[str]:
    """Those of this machine."""
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    number = torch.accelerator.device_count() if found else 0
    return ["cpu", *(f"{found.type}:{at}" for at in range(number) if found)]


def first_device(device: str) -> str:
    """The device itself, and of `split` the first GPU, or the CPU without one: for what is computed
    beside a model."""
    if Split.of(device) is None:
        return device
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if found is None else found.type


def home_of(model: Any) -> device:
    """Where a loaded model takes its inputs: the first GPU that holds a part of it, or the CPU."""
    import torch

    places = getattr(model, "hf_device_map", {"": model.device})
    return torch.device(next((at for at in places.values() if at not in ("cpu", "disk")), "cpu"))


def is_split(model: Any) -> bool:
    """Whether its parts are brought together as it runs."""
    return any(hasattr(module, "_hf_hook") for module in model.modules())


def is_elsewhere(model: Any) -> bool:
    """Whether there are weights that are brought to a device for each pass, from memory or from the
    files."""
    return any(weight.is_meta for weight in model.parameters())


def log_places(model: Any) -> None:
    """Say where the parts of a split model are."""
    places, sizes = getattr(model, "hf_device_map", {}), dict[str, int]()
    for name, weight in model.named_parameters():
        while name and name not in places:
            name = name.rpartition(".")[0]
        if name in places:
            at = str(places[name])
            sizes[at] = sizes.get(at, 0) + weight.numel() * weight.element_size()
    if is_split(model):
        said = {"disk": "left in the files, to be read in each pass", "cpu": "in memory"}
        parts = [
            f"{size / 1e9:.2g} GB {said.get(at, f'on device {at}')}" for at, size in sizes.items()
        ]
        log.info("the model is split: %s", ", ".join(parts))


class HeldTensors(Mapping[str, "Tensor"]):
    """A model's tensors by name; one that is left in the files is read when it is asked for."""

    def __init__(self, model: Any) -> None:
        self._model, self._there = model, dict[str, Any](model.state_dict())

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._there[name]
        if not tensor.is_meta:
            return tensor
        module, _, own = name.rpartition(".")
        hook = self._model.get_submodule(module)._hf_hook
        held: Tensor = hook.weights_map[own]
        return held

    def __iter__(self) -> Iterator[str]:
        return iter(self._there)

    def __len__(self) -> int:
        return len(self._there)


@contextmanager
def without_copies(folder: Path) -> Iterator[None]:
    """Refuse a model whose files do not hold the tensors that it runs with: what is left in them
    would have to be written anew."""
    try:
        yield
    except ValueError as error:
        if "offload_folder" not in str(error):
            raise
        raise UserError(
            f"the experts in {folder} are joined as they are loaded, so they cannot stay in the "
            "files: give the model GPUs and memory that hold all of it, or a larger limit"
        ) from error


def machine_memory() -> int:
    """Bytes that this process can have: the machine's, or fewer where it is held to them."""
    every = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        if Path(file).exists() and (text := Path(file).read_text().strip()).isdecimal():
            every.append(int(text))
    return min(every)
