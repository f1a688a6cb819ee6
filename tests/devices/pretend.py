"""A device that is none, for machines without a GPU: `fake:0` computes on the CPU what CUDA would
compute, so its numbers are the CPU's, and raises where CUDA raises.

- Operands on two devices, but for one number (a tensor of no dimensions) of the CPU's in a function
  of single elements; a place named by a tensor may be on the CPU where what it is a place in is on
  the device, and not the other way round.
- A generator of another device, and `.numpy()` of what is on the device.
- A device without its number, `cuda`, among `cuda:0`: with `--device cuda:1` it is another one.

Torch takes one such backend a process and keeps it, so it lives in processes of its own.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

import interp

NAME = "fake"
DEVICE = f"{NAME}:0"
aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default, aten._copy_from.default}
PLACES = {
    *(aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default),
    *(aten.index_put_.default, aten._index_put_impl_.default),
}
NUMBERS = {aten.where.self, aten.masked_fill.Tensor, aten.masked_fill_.Tensor}
"""Beside the functions of single elements, what takes a number of the CPU's."""
NO_NUMBERS = {aten.clamp.Tensor, aten.clamp_.Tensor, aten.clamp_min.Tensor, aten.clamp_max.Tensor}
WAITS = {
    *(aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default),
    *(aten.masked_select.default, aten.repeat_interleave.Tensor, aten._unique2.default),
    *(aten.bincount.default, aten.unique_dim.default, aten.unique_consecutive.default),
}
"""What makes the CPU wait for the device, since the result's size or value is wanted."""


PASSES = {aten.embedding.default, aten.convolution.default}
"""What a model does once a pass, or a layer of a network of pictures."""


class Moved(NamedTuple):
    """Something that crosses between the device and the CPU."""

    kind: str
    """to device, to CPU, wait"""
    place: str
    """File and line of ours."""


class OnDevice(Tensor):
    """A tensor on the device. Its numbers are in `held`, on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls, held.size(), held.stride(), held.storage_offset(),
            dtype=held.dtype, device=torch.device(DEVICE),
        )  # fmt: skip
        made.held = held.detach()
        return made

    def __repr__(self) -> str:
        return f"{self.held!r} on {self.device}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            made = OnDevice(self.held.clone())
            if isinstance(self, torch.nn.Parameter):
                made = torch.nn.Parameter(made, requires_grad=self.requires_grad)
            memo[id(self)] = made.requires_grad_(self.requires_grad)
        return memo[id(self)]

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @property
    def data(self) -> Tensor:
        return Tensor.data.__get__(self)

    @data.setter
    def data(self, new: OnDevice) -> None:
        Tensor.data.__set__(self, new)
        self.held = new.held

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return DEVICES.call(function, args, kwargs or {})


class Generator(torch.Generator):
    """One of the CPU's, which draws for the device if it is made for it."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        made = super().__new__(cls)
        made.of = torch.device(device).type
        return made

    def __init__(self, device: Any = "cpu") -> None:
        pass


class Drawing(TorchFunctionMode):
    """Refuses the generator of another device."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        if isinstance(drawn := named.get("generator"), Generator):
            own = next((x.device for x in args if isinstance(x, Tensor)), "cpu")
            wanted = torch.device(named.get("device") or own).type
            if drawn.of != wanted:
                raise RuntimeError(
                    f"expected a '{wanted}' device type for generator but found '{drawn.of}'"
                )
        return function(*args, **named)


class Devices:
    """Carries out what is asked of the device, and counts what crosses."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Count from nothing."""
        self.moved: Counter[Moved] = Counter()
        self.passes = 0

    def call(self, function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if torch._C._dispatch_has_kernel_for_dispatch_key(
            function.name(), "CompositeImplicitAutograd"
        ):
            return function.decompose(*args, **kwargs)
        flat, form = tree_flatten((args, kwargs))
        tensors = [x for x in flat if isinstance(x, Tensor)]
        check(function, args, tensors)
        target = self._target(function, kwargs, tensors)
        self._count(function, args, tensors, target)
        wrapped = {id(x.held): x for x in tensors if isinstance(x, OnDevice)}
        flat = [x.held if isinstance(x, OnDevice) else x for x in flat]
        flat = [torch.device("cpu") if isinstance(x, torch.device) else x for x in flat]
        bare, named = tree_unflatten(flat, form)
        out = function(*bare, **named)

        def back(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            if id(x) in wrapped:  # changed in place
                if (own := wrapped[id(x)]).shape != x.shape:
                    own.data = OnDevice(x)
                return own
            return OnDevice(x) if target else x

        return tree_map(back, out)

    def _target(self, function: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> bool:
        """Whether the results are on the device."""
        asked = kwargs.get("device")
        if asked is not None:
            if asked.type == NAME and asked.index is None:
                raise RuntimeError(f"{function} on '{NAME}': on {NAME}:1 that is another device")
            return bool(asked.type == NAME)
        if function in COPIES and function is not aten._to_copy.default:
            return isinstance(tensors[0], OnDevice)
        return any(isinstance(x, OnDevice) for x in tensors)

    def _count(self, function: Any, args: Any, tensors: list[Tensor], target: bool) -> None:
        self.passes += function in PASSES
        if function in COPIES:
            source = isinstance(tensors[-1], OnDevice)
            if source != target:
                self.moved[Moved("to device" if target else "to CPU", place())] += 1
        elif function in WAITS and any(isinstance(x, OnDevice) for x in tensors):
            self.moved[Moved("wait", place())] += 1
        elif function in PLACES:
            for at in (x for x in args[1] if isinstance(x, Tensor)):
                if not isinstance(at, OnDevice):
                    self.moved[Moved("to device", place())] += 1
                if at.dtype in (torch.bool, torch.uint8):
                    self.moved[Moved("wait", place())] += 1


def check(function: Any, args: Any, tensors: list[Tensor]) -> None:
    """Raise RuntimeError where CUDA would: operands are on two devices."""
    others = [x for x in tensors if not isinstance(x, OnDevice)]
    if not others or len(others) == len(tensors) or function in COPIES:
        return
    if function in PLACES:
        if not isinstance(args[0], OnDevice):
            raise RuntimeError(
                f"{function}: indices should be either on cpu or on the same device as the indexed "
                "tensor (cpu)"
            )
        others = [x for x in args[2:3] if not isinstance(x, OnDevice)]
    takes = function in NUMBERS or function in PLACES or torch.Tag.pointwise in function.tags
    most = 2 if function is aten.where.self else 1
    if function in NO_NUMBERS or not takes or len(others) > most or any(x.ndim for x in others):
        raise RuntimeError(f"{function}: expected all tensors to be on the same device: {place()}")
    written = [
        a.alias_info is not None and a.alias_info.is_write for a in function._schema.arguments
    ]
    if any(w and not isinstance(x, OnDevice) for w, x in zip(written, args, strict=False)):
        raise RuntimeError(f"{function}: a tensor of the CPU cannot take the device's numbers")


def place() -> str:
    """The innermost line of ours that is being run."""
    return next(_ours(), "elsewhere")


def _ours() -> Iterator[str]:
    root = Path(interp.__file__).parents[1]
    frame = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(root) and "tests" not in file.parts and ".venv" not in file.parts:
            yield f"{file.relative_to(root)}:{frame.f_lineno}"
        frame = frame.f_back


DEVICES = Devices()
KEPT: list[Any] = []
"""What torch has registered for as long as it is held."""


class Module(backend_registration._DummyBackendModule):
    """What torch asks a backend for, as `torch.cuda`."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class Opened:
    """A file of tensors that are read to the device."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __enter__(self) -> Opened:
        self._file.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._file.__exit__(*raised)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def get_tensor(self, name: str) -> Tensor:
        return self._file.get_tensor(name).to(DEVICE)


def opened(
    path: Any, framework: str, device: Any = "cpu", _own: Any = safetensors.safe_open, **more: Any
) -> Any:
    """safetensors', which knows its own devices alone."""
    there = torch.device(device).type == NAME
    file = _own(path, framework, "cpu" if there else device, **more)
    return Opened(file) if there else file


def install() -> None:
    """Make `fake:0` a device of this process, before anything else is imported."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    safetensors.safe_open = safetensors.torch.safe_open = opened
    every = torch.library.Library("_", "IMPL", "PrivateUse1")
    every.fallback(lambda function, *args, **kwargs: DEVICES.call(function, args, kwargs))
    own = torch.library.Library("aten", "IMPL", "PrivateUse1")  # `torch.tensor` asks for it alone
    own.impl("copy_", lambda *args: DEVICES.call(aten.copy_.default, args, {}))
    KEPT.extend((every, own))
    torch.Generator = Generator  # type: ignore[misc]
    KEPT.append(Drawing().__enter__())
