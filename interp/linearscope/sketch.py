"""A small image-to-image network with instance norms: an edge drawing -> a photograph.

Trained on square crops of photographs (scikit-image's and scikit-learn's, `HELD` left out) by the
mean absolute error, as an example of a network that must invent what its input lacks: colour and
texture. `interp linearscope train-sketch` makes it again.

Written to the run: `network.safetensors` (float32), `curve.parquet` (step int64, loss double: mean
absolute error of a batch, in 0..1), `held.parquet` (picture string, error double: of its middle
square; grey double: of the best single colour).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import UserError
from ..progress import progress
from ..store import RunWriter, save_tensors
from .pictures import open_picture, squared

TRAIN = (
    *("astronaut", "coffee", "rocket", "china", "retina", "immunohistochemistry", "grass"),
    *("hubble_deep_field", "brick", "gravel", "camera", "coins", "moon"),
)
SIDES = (96, 128, 256)
"""Sides at which the pictures' middle squares are cropped from, so that scales vary."""
HELD = ("cat", "flower")


class SketchNet(nn.Module):
    """Down to a quarter of the size, residual blocks, up again; [n, 1, h, w] -> [n, 3, h, w]."""

    def __init__(self, width: int = 24, blocks: int = 3) -> None:
        super().__init__()
        self.down = nn.Sequential(
            *_layer(1, width, 7),
            *_layer(width, 2 * width, 3, 2),
            *_layer(2 * width, 4 * width, 3, 2),
        )
        self.blocks = nn.ModuleList(_Block(4 * width) for _ in range(blocks))
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2),
            *_layer(4 * width, 2 * width, 3),
            nn.Upsample(scale_factor=2),
            *_layer(2 * width, width, 3),
            nn.Conv2d(width, 3, 7, padding=3),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.up(x)
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
    """The size of the brightness gradient (Sobel's), 0..1: white lines on black."""
    grey = F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]).to(x) / 4
    both = F.conv2d(grey, torch.stack([across, across.T])[:, None])
    lines: Tensor = (3 * both.norm(dim=1, keepdim=True)).clamp_max(1)
    return lines


@dataclass(frozen=True)
class SketchConfig:
    """Train the example network that makes photographs of edge drawings."""

    STUDY: ClassVar[str] = "linearscope.sketch"
    VERSION: ClassVar[int] = 1

    steps: int = 3000
    """Steps of Adam."""
    batch: int = 8
    """Crops a step."""
    crop: int = 64
    """Side of a crop."""
    lr: float = 2e-3
    """Rate at the start; it falls to 0 as a cosine."""
    seed: int = 0
    """Of the weights and the crops."""
    device: str = field(default="cpu", metadata={"key": False})
    """Where to train."""

    def fingerprints(self) -> dict[str, str]:
        return {"pictures": ",".join(TRAIN)}

    def check(self) -> None:
        """Raise UserError for settings that cannot work."""
        if self.crop < 16 or self.crop % 4 or self.batch < 1 or self.steps < 1:
            raise UserError("crops must be a multiple of 4 from 16 up; batch and steps at least 1")

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd

        torch.manual_seed(self.seed)
        net = SketchNet().to(self.device)
        pictures = [_tensor(squared(open_picture(n), side)) for n in TRAIN for side in SIDES]
        best = torch.optim.Adam(net.parameters(), self.lr)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(best, self.steps)
        losses = []
        with progress("train", self.steps, "steps") as advance:
            for step in range(self.steps):
                crops = self._crops(pictures, step).to(self.device)
                loss = F.l1_loss(net(sketch_of(crops)), crops)
                best.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                best.step()
                falling.step()
                losses.append(float(loss.detach()))
                advance(1, f"loss {losses[-1]:.3f}")
        with out.part("network.safetensors") as path:
            save_tensors({k: v.cpu() for k, v in net.state_dict().items()}, path)
        with out.part("curve.parquet") as path:
            pd.DataFrame({"step": range(1, self.steps + 1), "loss": losses}).to_parquet(path)
        held = [self._held(net, name) for name in HELD]
        with out.part("held.parquet") as path:
            pd.DataFrame(held).to_parquet(path)
        found = {"loss of the last tenth": float(torch.tensor(losses[-self.steps // 10 :]).mean())}
        for line in held:
            found |= {f"{line['picture']}, error": line["error"],
                      f"{line['picture']}, one colour": line["grey"]}  # fmt: skip
        return found

    def _crops(self, pictures: list[Tensor], step: int) -> Tensor:
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        crops = []
        for _ in range(self.batch):
            which, top, left, turned = torch.randint(0, 1 << 30, (4,), generator=rng).tolist()
            picture = pictures[which % len(pictures)]
            room = picture.shape[-1] - self.crop + 1
            part = picture[:, :, top % room :, left % room :][:, :, : self.crop, : self.crop]
            crops.append(part.flip(-1) if turned % 2 else part)
        return torch.cat(crops)

    @torch.no_grad()
    def _held(self, net: nn.Module, name: str) -> dict[str, Any]:
        x = _tensor(squared(open_picture(name), 128)).to(self.device)
        error = F.l1_loss(net(sketch_of(x)), x)
        colour = x.flatten(2).median(-1).values[..., None, None]
        return {"picture": name, "error": float(error), "grey": float((x - colour).abs().mean())}


def _tensor(picture: Any) -> Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
