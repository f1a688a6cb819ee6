"""Reading chains of convolutions from ncnn's two files: a text graph and its binary weights.

Graph: a magic number, the counts of layers and blobs, then a line per layer: type, name, how many
blobs go in and out, their names, and `key=value` (0 outputs, 1 kernel, 3 stride, 4 padding, 5 has
a bias, 6 weights, 9 activation: 2 is a leaky ReLU, slope in -23310). Weights, layer after layer: a
tag (0x01306B47: half precision, padded to 4 bytes; 0: single), the weights [out, in, kernel,
kernel], and the bias in single precision.
"""

from __future__ import annotations

from io import SEEK_CUR, BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..errors import UserError

_MAGIC, _HALF = "7767517", 0x01306B47


def read_ncnn(graph: Path, weights: Path) -> nn.Sequential:
    """The layers as a torch module, in float32.

    Raises:
        UserError: a file is cut short, or has a layer that is no convolution.
    """
    lines = graph.read_text().split("\n")
    if lines[0].strip() != _MAGIC:
        raise UserError(f"{graph} is no ncnn graph: its first line is not {_MAGIC}")
    file, layers, channels = BytesIO(weights.read_bytes()), nn.Sequential(), 0
    for line in filter(str.strip, lines[2:]):
        kind, name, _, _, _, *rest = line.split()
        values = dict(pair.split("=", 1) for pair in rest if "=" in pair)
        if kind == "Input":
            channels = int(values["2"])
            continue
        if kind not in ("Convolution", "Deconvolution"):
            raise UserError(f"{graph} has a layer of kind {kind}: only convolutions can be read")
        outputs, kernel = int(values["0"]), int(values["1"])
        padding, stride = int(values.get("4", 0)), int(values.get("3", 1))
        conv = (nn.Conv2d if kind == "Convolution" else nn.ConvTranspose2d)(
            channels, outputs, kernel, stride, padding
        )
        flat = _weights(file, outputs * channels * kernel**2, weights)
        bias = _numbers(file, "<f4", outputs, weights)
        shaped = flat.reshape(outputs, channels, kernel, kernel)
        if kind == "Deconvolution":
            shaped = shaped.transpose(1, 0, 2, 3)
        conv.weight.data = torch.from_numpy(shaped.astype(np.float32).copy())
        conv.bias.data = torch.from_numpy(bias.astype(np.float32).copy())  # type: ignore[union-attr]
        layers.add_module(name, conv)
        if values.get("9") == "2":
            slope = float(values["-23310"].split(",")[1])
            layers.add_module(f"{name}_relu", nn.LeakyReLU(slope))
        channels = outputs
    if surplus := len(file.read()):
        raise UserError(f"{weights} has {surplus} bytes more than its graph needs")
    return layers.eval()


def _weights(file: BytesIO, size: int, path: Path) -> np.ndarray:
    (tag,) = _numbers(file, "<u4", 1, path)
    if tag not in (0, _HALF):
        raise UserError(f"{path} has weights of an unknown kind ({tag:#x})")
    flat = _numbers(file, "<f2" if tag else "<f4", size, path)
    file.seek(-file.tell() % 4, SEEK_CUR)
    return flat


def _numbers(file: BytesIO, dtype: str, count: int, path: Path) -> np.ndarray:
    bytes_ = file.read(count * np.dtype(dtype).itemsize)
    if len(bytes_) < count * np.dtype(dtype).itemsize:
        raise UserError(f"{path} is cut short: it ends after {file.tell()} bytes")
    return np.frombuffer(bytes_, dtype)
