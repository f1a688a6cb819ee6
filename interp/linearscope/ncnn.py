"""Reading chains of convolutions from ncnn's two files: a text graph and its binary weights.

Graph: a magic number, the counts of layers and blobs, then a line per layer: type, name, how many
blobs go in and out, their names, and its parameters as `id=value`; a list is `id=1,2` or, in older
files, `-23300 - id=length,1,2`. Weights, layer after layer: a tag (0x01306B47: half precision,
padded to 4 bytes; 0: single), the weights [out, in, kernel, kernel], and the bias in single
precision.

The parameters and what they default to are those of ncnn's `docs/developer-guide/operators.md`.
Each is followed, or has to have the value with which it does nothing; an id that is not there is
refused, since it may mean anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import SEEK_CUR, BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ..errors import UserError

_MAGIC, _HALF = "7767517", 0x01306B47
_LIST = -23300
_FOLLOWED = (
    *("num_output", "kernel_w", "dilation_w", "stride_w", "pad_left", "bias_term"),
    *("weight_data_size", None, None, "activation_type", "activation_params"),
    *("kernel_h", "dilation_h", "stride_h", "pad_top", "pad_right", "pad_bottom"),
)
_IDS = {name: at for at, name in enumerate(_FOLLOWED) if name}
"""The ids of what is followed, the same for both kinds of layer."""
_NEUTRAL = {17, 30, 31}
"""How it is computed (impl_type, shape hints, feature mask): nothing about the result."""
_ZERO = {
    "Input": {},
    "Convolution": {8: "int8_scale_term", 18: "pad_value", 19: "dynamic_weight"},
    "Deconvolution": {
        **{18: "output_pad_right", 19: "output_pad_bottom", 20: "output_w", 21: "output_h"},
        28: "dynamic_weight",
    },
}
"""What is not followed, and has to be 0."""
_SHAPE = {0: "w", 1: "h", 2: "c", 11: "d"}
"""Of an Input; it may be left out."""


class _Layer(NamedTuple):
    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    values: dict[int, list[float]]

    def whole(self, parameter: str, default: float = 0) -> int:
        """A whole number among its parameters.

        Raises:
            UserError: it is a fraction or a list.
        """
        value = self.values.get(_IDS[parameter], [float(default)])
        if len(value) != 1 or not value[0].is_integer():
            raise UserError(f"{self.name} needs one whole number for {_IDS[parameter]}={parameter}")
        return int(value[0])

    def pair(self, horizontal: str, vertical: str, default: int) -> tuple[int, int]:
        """(vertical, horizontal), which are the same by default."""
        across = self.whole(horizontal, default)
        return self.whole(vertical, across), across


def read_ncnn(graph: Path, weights: Path) -> nn.Sequential:
    """The layers as a torch module, in float32.

    Raises:
        UserError: a file is cut short, the layers are no chain, or one is no convolution or has a
            parameter that is not followed.
    """
    file, module, last = BytesIO(weights.read_bytes()), nn.Sequential(), ""
    channels: int | None = None
    for layer in _layers(graph):
        if len(layer.outputs) != 1 or layer.inputs != ([last] if last else []):
            raise UserError(f"{graph}: {layer.name} does not go on from the layer before it: only "
                            "chains can be read")  # fmt: skip
        last = layer.outputs[0]
        if layer.kind == "Input":
            channels = int(layer.values.get(2, [0])[0]) or None
            continue
        conv = _convolution(layer, channels, graph)
        _fill(conv, file, weights)
        name = layer.name.replace(".", "_")  # torch's names of modules have no dots
        if hasattr(module, name):
            raise UserError(f"{graph}: the name {layer.name} is taken: give the layer another")
        module.add_module(name, conv)
        if activation := _activation(layer, graph):
            module.add_module(f"{name}_relu", activation)
        channels = conv.out_channels
    if surplus := len(file.read()):
        raise UserError(f"{weights} has {surplus} bytes more than its graph needs")
    return module.eval()


def _layers(graph: Path) -> Iterator[_Layer]:
    magic, *lines = graph.read_text(errors="replace").split("\n")
    if magic.strip() != _MAGIC:
        raise UserError(f"{graph} is no ncnn graph: its first line is not {_MAGIC}")
    counts, *lines = [line for line in lines if line.strip()] or [""]
    if counts.split()[:1] != [str(len(lines))]:
        raise UserError(f"{graph} is cut short: it has {len(lines)} layers, and says '{counts}'")
    for line in lines:
        try:
            kind, name, inside, outside, *rest = line.split()
            blobs, start = rest[: int(inside) + int(outside)], int(inside)
            pairs = [pair.split("=", 1) for pair in rest[len(blobs) :]]
            values = dict(_value(key, value) for key, value in pairs)
        except ValueError as error:
            raise UserError(f"{graph} has a line that cannot be read: {line.strip()}") from error
        layer = _Layer(kind, name, blobs[:start], blobs[start:], values)
        _check_parameters(layer, graph)
        yield layer


def _value(key: str, value: str) -> tuple[int, list[float]]:
    number, parts = int(key), [float(part) for part in value.removesuffix(",").split(",")]
    return (_LIST - number, parts[1:]) if number <= _LIST else (number, parts)


def _check_parameters(layer: _Layer, graph: Path) -> None:
    """Raise UserError for a layer with anything that is not followed."""
    if layer.kind not in _ZERO:
        raise UserError(f"{graph} has a layer of kind {layer.kind}: only convolutions can be read")
    known = _SHAPE if layer.kind == "Input" else _IDS.values()
    for number, value in layer.values.items():
        if number in known or number in _NEUTRAL:
            continue
        parameter = _ZERO[layer.kind].get(number, "unknown")
        if parameter == "unknown" or any(value):
            text = ",".join(f"{part:g}" for part in value)
            raise UserError(f"{graph}: {layer.name} has {number}={text} ({parameter}), which is "
                            "not followed")  # fmt: skip


def _convolution(
    layer: _Layer, channels: int | None, graph: Path
) -> nn.Conv2d | nn.ConvTranspose2d:
    """The layer without its numbers; its weights tell the channels that an Input leaves out."""
    outputs, kernel = layer.whole("num_output"), layer.pair("kernel_w", "kernel_h", 0)
    stride, dilation = (
        layer.pair(f"{which}_w", f"{which}_h", 1) for which in ("stride", "dilation")
    )
    padding = layer.pair("pad_left", "pad_top", 0)
    opposite = layer.whole("pad_bottom", padding[0]), layer.whole("pad_right", padding[1])
    if min(outputs, *kernel, *stride, *dilation) < 1:
        raise UserError(f"{graph}: {layer.name} has no outputs, kernel, stride or dilation")
    if min(padding) < 0 or padding != opposite:
        raise UserError(f"{graph}: {layer.name} has padding (4, 14, 15, 16) that depends on the "
                        "size, or differs between opposite sides: not followed")  # fmt: skip
    size, each = layer.whole("weight_data_size"), outputs * kernel[0] * kernel[1]
    channels = size // each if channels is None else channels
    if size != each * channels or not size:
        shape = f"{outputs} x {channels} x {kernel[0]} x {kernel[1]}"
        raise UserError(f"{graph}: {layer.name} has {size} weights (6), not {shape}")
    kind = nn.Conv2d if layer.kind == "Convolution" else nn.ConvTranspose2d
    bias = bool(layer.whole("bias_term"))
    return kind(channels, outputs, kernel, stride, padding, dilation=dilation, bias=bias)


def _activation(layer: _Layer, graph: Path) -> nn.Module | None:
    kind, settings = layer.whole("activation_type"), layer.values.get(_IDS["activation_params"], [])
    match kind, settings:
        case 0, _:
            return None
        case 1, _:
            return nn.ReLU()
        case 2, [slope]:
            return nn.LeakyReLU(slope)
        case 3, [low, high]:
            return nn.Hardtanh(low, high)
        case 4, _:
            return nn.Sigmoid()
        case 5, _:
            return nn.Mish()
    text = ",".join(f"{part:g}" for part in settings)
    raise UserError(f"{graph}: {layer.name} has the activation 9={kind} with 10={text}: only 0 to "
                    "5 are followed")  # fmt: skip


def _fill(conv: nn.Conv2d | nn.ConvTranspose2d, file: BytesIO, path: Path) -> None:
    """Read a layer's numbers."""
    kernel, turned = conv.kernel_size, isinstance(conv, nn.ConvTranspose2d)
    (tag,) = _numbers(file, "<u4", 1, path)
    if tag not in (0, _HALF):
        raise UserError(f"{path} has weights of an unknown kind ({tag:#x})")
    flat = _numbers(file, "<f2" if tag else "<f4", conv.weight.numel(), path)
    file.seek(-file.tell() % 4, SEEK_CUR)
    shaped = flat.reshape(conv.out_channels, conv.in_channels, *kernel)
    shaped = shaped.transpose(1, 0, 2, 3) if turned else shaped
    conv.weight.data = torch.from_numpy(shaped.astype(np.float32).copy())
    if conv.bias is not None:
        bias = _numbers(file, "<f4", conv.out_channels, path)
        conv.bias.data = torch.from_numpy(bias.astype(np.float32).copy())


def _numbers(file: BytesIO, dtype: str, count: int, path: Path) -> np.ndarray:
    bytes_ = file.read(count * np.dtype(dtype).itemsize)
    if len(bytes_) < count * np.dtype(dtype).itemsize:
        raise UserError(f"{path} is cut short: it ends after {file.tell()} bytes")
    return np.frombuffer(bytes_, dtype)
