"""The settings that the studies of pictures share: a network, a picture, and its interpreter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ..errors import UserError
from ..plain_path import plain_path
from ..progress import waiting
from ..runs.writer import RunWriter, save_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from .interpreter import Interpreter
    from .networks import PictureNetwork
    from .pictures import Picture

LARGEST_SIDE = 512


def share(part: Tensor, rest: Tensor) -> Tensor:
    """|part| / (|part| + |rest|); NaN where both are 0."""
    return part.abs() / (part.abs() + rest.abs())


def write_maps(out: RunWriter, name: str, picture: Picture, **maps: Tensor) -> None:
    """Write the part `<name>.safetensors`: the maps, and the picture they belong to."""
    import torch

    with out.part(f"{name}.safetensors") as path:
        save_tensors({**maps, "picture": torch.from_numpy(picture.copy())}, path)


@dataclass(frozen=True)
class NetworkConfig:
    """A network of pictures, and how it is run."""

    VERSION: ClassVar[int] = 3

    model: str = "efficientnet-lite0"
    """efficientnet-lite0, waifu2x, sketch, or your own network as package.module:name."""
    size: int = 0
    """Side in pixels that the picture's middle square is scaled to; 0: the network's own, or 64."""
    weights: str = ""
    """A safetensors file of weights, for your own network or for sketch."""
    device: str = field(default="cpu", metadata={"key": False})
    """The device to compute on, such as cpu or cuda."""

    def pictures(self) -> tuple[str, ...]:
        """The names or files of all pictures that the study runs on."""
        raise NotImplementedError

    def fingerprints(self) -> dict[str, str]:
        from ..model.files import sha256
        from .networks import fingerprint

        paths = {name: plain_path(name) for name in self.pictures()}
        pictures = [sha256(path) if path.is_file() else name for name, path in paths.items()]
        return {"model": fingerprint(self.model, self.weights), "pictures": ",".join(pictures)}

    def check(self) -> None:
        """Raise UserError for settings that cannot work."""
        from ..model.devices import check_device

        check_device(self.device)
        if self.size and not 8 <= self.size <= LARGEST_SIDE:
            raise UserError(f"--size must be 0 or 8 to {LARGEST_SIDE}, not {self.size}")

    def network(self) -> PictureNetwork:
        from .networks import open_network

        return open_network(self.model, self.weights)

    def classifier(self) -> PictureNetwork:
        """The network, which has to give scores."""
        network = self.network()
        if network.kind != "classifier":
            raise UserError(f"{network.name} is no classifier: use svd or impulse")
        return network

    def system(self, network: PictureNetwork, image: str) -> tuple[Picture, Interpreter]:
        """A picture as it goes in, and the network's interpreter for it."""
        from .interpreter import interpret
        from .pictures import middle_square, open_picture

        if network.size and self.size not in (0, network.size):
            raise UserError(f"{network.name} takes {network.size} pixels a side: leave --size out")
        picture = middle_square(open_picture(image), network.size or self.size or 64)
        x0 = network.prepare(picture).to(self.device)
        module = network.module.to(self.device)
        try:
            with waiting("follow the network"):
                return picture, interpret(module, x0)
        except RuntimeError as error:
            side = x0.shape[-1]
            raise UserError(f"{network.name} fails on {side} x {side} pixels: {error}") from error


@dataclass(frozen=True)
class PictureConfig(NetworkConfig):
    """A network and one picture."""

    image: str = "chelsea"
    """A file, or the name of a photograph that comes with scikit-image or scikit-learn."""

    def pictures(self) -> tuple[str, ...]:
        return (self.image,)
