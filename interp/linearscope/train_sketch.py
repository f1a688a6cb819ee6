"""Training the example network of sketch.py: `interp linearscope sketch`.

It trains on square crops of photographs (scikit-image's and scikit-learn's, without `HELD_OUT`)
and minimises the mean absolute error.

Written to the run: `network.safetensors` (float32), `curve.parquet` (step int64, loss double: mean
absolute error of a batch, in 0..1), `held.parquet` (picture string, error double: of the middle
square of a held-out picture; grey double: of the best single colour).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import mean
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..model.devices import check_device
from ..progress import progress
from ..runs.checkpoint import Checkpoint, restore_training, training_state
from ..runs.writer import RunWriter, save_tensors
from .pictures import as_tensor, middle_square, open_picture

if TYPE_CHECKING:
    from torch import Tensor, nn

TRAIN = (
    *("astronaut", "coffee", "rocket", "china", "retina", "immunohistochemistry", "grass"),
    *("hubble_deep_field", "brick", "gravel", "camera", "coins", "moon"),
)
SIDES = (96, 128, 256)
"""The pictures' middle squares are scaled to these sides, in pixels, and then cropped."""
HELD_OUT = ("cat", "flower")


@dataclass(frozen=True)
class SketchConfig:
    """Train the example network that makes photographs from edge drawings."""

    STUDY: ClassVar[str] = "linearscope.sketch"
    VERSION: ClassVar[int] = 1

    steps: int = 3000
    """Steps of Adam."""
    batch: int = 8
    """Crops per step."""
    crop: int = 64
    """Side of a crop in pixels."""
    lr: float = 2e-3
    """Learning rate at the start; it falls to 0 along a cosine."""
    seed: int = 0
    """Seed of the weights and of the crops."""
    device: str = field(default="cpu", metadata={"key": False})
    """The device to train on, such as cpu or cuda."""

    def fingerprints(self) -> dict[str, str]:
        return {"pictures": ",".join(TRAIN)}

    def check(self) -> None:
        """Raise UserError for settings that cannot work."""
        check_device(self.device)
        least = min(SIDES)
        if not 16 <= self.crop <= least or self.crop % 4:
            raise UserError(f"--crop must be a multiple of 4 from 16 to {least}, not {self.crop}")
        if self.batch < 1 or self.steps < 1:
            raise UserError("--batch and --steps must be at least 1")

    def run(self, out: RunWriter) -> dict[str, Any]:
        import torch

        from .sketch import SketchNet

        torch.manual_seed(self.seed)
        net = SketchNet().to(self.device)
        losses = self._train(net, Checkpoint(out, "network"))
        with out.part("network.safetensors") as path:
            save_tensors(net.state_dict(), path)
        out.table("curve", ({"step": n, "loss": loss} for n, loss in enumerate(losses, 1)))
        held = out.table("held", [self._held_out(net, name) for name in HELD_OUT])
        metrics = {"loss of the last tenth": mean(losses[-self.steps // 10 :])}
        for name, error, grey in held.itertuples(index=False):
            metrics |= {f"{name}, error": error, f"{name}, one colour": grey}
        return metrics

    def _train(self, net: nn.Module, checkpoint: Checkpoint) -> list[float]:
        """Train, or continue, to the end; the loss of every step."""
        import torch
        import torch.nn.functional as F

        from .sketch import sketch_of

        pictures = [as_tensor(middle_square(open_picture(n), s)) for n in TRAIN for s in SIDES]
        optimiser = torch.optim.Adam(net.parameters(), self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        losses: list[float] = []
        if state := checkpoint.read():
            losses = state.note["losses"]
            restore_training(state.tensors, net.named_parameters(), optimiser)
            schedule.load_state_dict(state.note["schedule"])
            for group in optimiser.param_groups:
                group["lr"] = schedule.get_last_lr()[0]
        with progress("train", self.steps, "steps", len(losses)) as advance:
            for step in range(len(losses), self.steps):
                crops = self._crops(pictures, step).to(self.device)
                loss = F.l1_loss(net(sketch_of(crops)), crops)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
                losses.append(float(loss.detach()))
                advance(1, f"loss {losses[-1]:.3f}")
                if checkpoint.due():
                    note = {"losses": losses, "schedule": schedule.state_dict()}
                    checkpoint.write(training_state(net.named_parameters(), optimiser), note)
        return losses

    def _crops(self, pictures: list[Tensor], step: int) -> Tensor:
        import torch

        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        crops = []
        for _ in range(self.batch):
            which, top, left, mirrored = torch.randint(0, 1 << 30, (4,), generator=rng).tolist()
            picture = pictures[which % len(pictures)]
            room = picture.shape[-1] - self.crop + 1
            crop = picture[:, :, top % room :, left % room :][:, :, : self.crop, : self.crop]
            crops.append(crop.flip(-1) if mirrored % 2 else crop)
        return torch.cat(crops)

    def _held_out(self, net: nn.Module, name: str) -> dict[str, Any]:
        import torch

        from .sketch import sketch_of

        x = as_tensor(middle_square(open_picture(name), 128)).to(self.device)
        with torch.no_grad():
            error = (net(sketch_of(x)) - x).abs().mean()
        colour = x.flatten(2).median(-1).values[..., None, None]
        return {"picture": name, "error": float(error), "grey": float((x - colour).abs().mean())}
