"""A small image-to-image network with instance norms: an edge drawing -> a photograph.

It is an example of a network that must invent what its input lacks, colour and texture.
train_sketch.py trains it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SketchNet(nn.Module):
    """Down to a quarter of the size, residual blocks, up again; [n, 1, h, w] -> [n, 3, h, w]."""

    def __init__(self, width: int = 24, blocks: int = 3) -> None:
        super().__init__()
        self.down = nn.Sequential(
            *_layer(1, width, 7),
            *_layer(width, 2 * width, 3, 2),
            *_layer(2 * width, 4 * width, 3, 2),
        )
        self.blocks = nn.Sequential(*(_Block(4 * width) for _ in range(blocks)))
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2),
            *_layer(4 * width, 2 * width, 3),
            nn.Upsample(scale_factor=2),
            *_layer(2 * width, width, 3),
            nn.Conv2d(width, 3, 7, padding=3),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.up(self.blocks(self.down(x)))
        return out


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_layer(width, width, 3),
            nn.Conv2d(width, width, 3, padding=1),
            nn.InstanceNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


def _layer(before: int, after: int, kernel: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(before, after, kernel, stride, kernel // 2),
        nn.InstanceNorm2d(after, affine=True),
        nn.ReLU(),
    )


def sketch_of(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    """An edge drawing, white lines on black: Sobel's brightness gradient, its length in 0..1."""
    grey = F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]).to(x) / 4
    both = F.conv2d(grey, torch.stack([across, across.T])[:, None])
    lines: Tensor = (3 * both.norm(dim=1, keepdim=True)).clamp_max(1)
    return lines
