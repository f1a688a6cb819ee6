"""Pictures: the photographs of scikit-image and scikit-learn by name, or any file."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import UserError
from ..plain_path import plain_path

if TYPE_CHECKING:
    from torch import Tensor

PHOTOGRAPHS = (
    *("astronaut", "brick", "camera", "cell", "cat", "clock", "coffee", "coins"),
    *("colorwheel", "grass", "gravel", "horse", "hubble_deep_field", "immunohistochemistry"),
    *("logo", "moon", "page", "retina", "rocket", "text", "china", "flower"),
)
"""All that come with the two packages and need no download; `chelsea` is the cat."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""What is read. Pillow knows forty more, for one of which it starts Ghostscript."""
LARGEST = 40_000_000
"""The most pixels that a file may have; a larger one is refused before it is decoded."""

_DAMAGED = (
    *(OSError, ValueError, SyntaxError, RuntimeError, EOFError, TypeError, LookupError),
    *(OverflowError, struct.error, Image.DecompressionBombError),
)
"""What Pillow raises where a file is not what its format says: it has no one class for that."""

Picture = UInt8[np.ndarray, "h w 3"]


def open_picture(name: str) -> Picture:
    """A photograph by name, or a file, in 8 bits of red, green and blue.

    Raises:
        UserError: no such file, a file that is no picture, or one that is too large.
    """
    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image

        return np.asarray(load_sample_image(f"{name}.jpg"), np.uint8)
    if name in (*PHOTOGRAPHS, "chelsea"):
        from skimage import data

        return np.asarray(Image.fromarray(getattr(data, name)()).convert("RGB"))
    return _read(plain_path(name))


def middle_square(picture: Picture, size: int) -> Picture:
    """Its middle square, scaled to size x size."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = Image.fromarray(picture[top : top + side, left : left + side])
    return np.asarray(middle.resize((size, size), Image.Resampling.BICUBIC))


def as_tensor(picture: Picture) -> Float[Tensor, "1 3 h w"]:
    """A picture as numbers in 0..1."""
    import torch

    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255


def _read(path: Path) -> Picture:
    if not path.is_file():
        raise UserError(
            f"no picture '{path}': give a file, or one of {', '.join(sorted(PHOTOGRAPHS))}"
        )
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > LARGEST:
                raise UserError(
                    f"{path.name} has {image.width} x {image.height} pixels, and {LARGEST:,} are "
                    "allowed: make it smaller"
                )
            return _eight_bits(path, image)
    except UnidentifiedImageError as error:
        raise UserError(
            f"{path.name} cannot be read as a picture: give one of {', '.join(FORMATS)}"
        ) from error
    except _DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path.name} cannot be read as a picture ({reason}): save it anew"
        ) from error


def _eight_bits(path: Path, image: Image.Image) -> Picture:
    """As every viewer shows it: turned as its EXIF data say, and on white where transparent."""
    if image.mode[0] in "IF":
        raise UserError(f"{path.name} has more than 8 bits per colour: convert it to 8 bits first")
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))
