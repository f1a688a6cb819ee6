"""Networks from picture to picture: how much of an output comes from the input, and from where.

Columns of A are impulse responses (what one input number changes in the output). Rows are receptive
filters (what an output number is made of). Singular vectors are the patterns that pass best. These
numbers tell copying from invention, after the paper's section on image-to-image networks:

    share of r       |r|^2 / (|r|^2 + |A x0|^2): near 1, the output is a template that x0 chose
    displacement     root mean squared distance, in input pixels, from an output pixel to where its
                     row's mass (squared, over all channels) lies: small for a copy
    centre           distance, in input pixels, from the output pixel to the mean of that mass
                     (both are undefined where a row is all zeros)
    energy of k      sum of the k largest squared singular values over |A|_F^2
    effective rank   |A|_F^2 / s_1^2 (the stable rank)

Written by `svd`: `values.parquet` (rank int64, value, residual double, energy double: of all values
up to this rank), `vectors.safetensors` (left [k, ...], right [k, c, h, w], picture uint8
[h, w, 3]).
By `impulse`: `places.parquet` (a row per output pixel: place, y, x int64, displacement, centre
double, from_y, from_x double: the mean of its row's mass in the input; output, linear, r double: of
its green channel) and `responses.safetensors` (rows [places, c, h, w], columns [places, 3, h', w']:
of the input pixel there, picture, output [3, h', w'], r [3, h', w']).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..errors import UserError
from ..runs.writer import RunWriter
from .picture_configs import PictureConfig, share, write_maps

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from .interpreter import Interpreter
    from .networks import PictureNetwork

GREEN = 1
"""The output channel whose rows are taken, and the input channel whose columns are."""


@dataclass(frozen=True)
class SvdConfig(PictureConfig):
    """Compute the largest singular triplets of a network's linear system for a picture."""

    STUDY: ClassVar[str] = "linearscope.svd"
    VERSION: ClassVar[int] = 4

    k: int = 16
    """How many triplets, largest first."""
    probes: int = 32
    """How many random vectors the total energy is estimated from."""
    seed: int = 0
    """Seed of the start vector and of the probes."""

    def check(self) -> None:
        super().check()
        if self.k < 1 or self.probes < 2:
            raise UserError("--k must be at least 1 and --probes at least 2")

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd

        from .svd import energy, singular_triplets

        picture, system = self.system(self.network(), self.image)
        triplets = singular_triplets(system, self.k, self.seed)
        total, error = energy(system, self.probes, self.seed)
        squares = triplets.values.square()
        table = {
            "rank": range(1, self.k + 1),
            "value": triplets.values.tolist(),
            "residual": triplets.residuals.tolist(),
            "energy": (squares.cumsum(0) / total).tolist(),
        }
        out.table("values", pd.DataFrame(table))
        write_maps(out, "vectors", picture, left=triplets.left, right=triplets.right)
        return {
            "largest singular value": float(triplets.values[0]),
            "largest residual": float(triplets.residuals.nan_to_num().max()),
            f"energy of {self.k}": float(squares.sum() / total),
            "effective rank": total / float(squares[0]),
            "standard error of the energy": error / total,
            "share of r": share_of_r(system),
            "products": triplets.products,
        }


@dataclass(frozen=True)
class ImpulseConfig(PictureConfig):
    """Compute impulse responses and receptive filters at some pixels of a network's output."""

    STUDY: ClassVar[str] = "linearscope.impulse"
    VERSION: ClassVar[int] = 4

    model: str = "waifu2x"
    """waifu2x, sketch, or your own network as package.module:name."""
    at: tuple[str, ...] = ()
    """Output pixels as y,x, such as 20,32; by default nine, in a square."""

    def check(self) -> None:
        super().check()
        for text in self.at:
            _parse_pixel(text)

    def run(self, out: RunWriter) -> dict[str, Any]:
        import torch

        network = self.network()
        picture, system = self.system(network, self.image)
        if system.y.ndim != 4 or system.y.shape[1] != 3:
            raise UserError(f"{network.name} makes no picture: use explain")
        network = aligned(network, system)
        pixels = self._pixels(system)
        at = np.array(pixels).T
        nearest = input_coordinate(network, at).round().astype(int)
        outputs = np.ravel_multi_index((GREEN, *at), system.y.shape[1:])
        # an input of one channel has no green one, and the nearest pixel may lie beyond the edge
        inputs = np.ravel_multi_index((GREEN, *nearest), system.x0.shape[1:], mode="clip")
        rows = system.rows(torch.from_numpy(outputs))
        columns = system.columns(torch.from_numpy(inputs))
        table = out.table("places", place_table(network, system, pixels, rows))
        maps = {"rows": rows, "columns": columns, "output": system.y[0], "r": system.r[0]}
        write_maps(out, "responses", picture, **maps)
        return {
            "places": len(pixels),
            "places with a row": int(table["displacement"].notna().sum()),
            "share of r": share_of_r(system),
            "displacement, median": float(table["displacement"].median()),
            "displacement, largest": float(table["displacement"].max()),
            "centre, median": float(table["centre"].median()),
        }

    def _pixels(self, system: Interpreter) -> list[tuple[int, int]]:
        height, width = system.y.shape[2:]
        if not self.at:
            quarters = (1, 2, 3)
            return [(height * i // 4, width * j // 4) for i in quarters for j in quarters]
        pixels = [_parse_pixel(text) for text in self.at]
        for y, x in pixels:
            if not (0 <= y < height and 0 <= x < width):
                raise UserError(f"no pixel {y},{x} in an output of {height} x {width}")
        return pixels


def _parse_pixel(text: str) -> tuple[int, int]:
    numbers = text.split(",")
    if len(numbers) != 2 or not all(number.strip().isdigit() for number in numbers):
        raise UserError(f"'{text}' is no pixel: write y,x such as 20,32")
    return int(numbers[0]), int(numbers[1])


def share_of_r(system: Interpreter) -> float:
    """|r|^2 / (|r|^2 + |A x0|^2)."""
    parts = system.r, system.matvec(system.x0)
    r, linear = (t.double().square().sum() for t in parts)
    return float(share(r, linear))


def aligned(network: PictureNetwork, system: Interpreter) -> PictureNetwork:
    """The network with the `border` and `factor` by which its output lies on its input: its own, or
    what follows from the two sizes (a whole multiple, or the same border off each side).

    Raises:
        UserError: neither follows from the sizes.
    """
    inside, outside = (tuple(t.shape[2:]) for t in (system.x0, system.y))
    multiple, cropped = (outside[0] // inside[0], 0), (1, (inside[0] - outside[0]) // 2)
    for factor, border in ((network.factor, network.border), multiple, cropped):
        if outside == tuple(factor * (size - 2 * border) for size in inside):
            return replace(network, factor=factor, border=border)
    raise UserError(
        f"an output of {outside[0]} x {outside[1]} cannot be laid on an input of {inside[0]} x "
        f"{inside[1]}: pad or crop in the network until its size is a multiple"
    )


def input_coordinate(network: PictureNetwork, y: np.ndarray) -> np.ndarray:
    """The input coordinates, y or x, of the centres of output pixels."""
    return (y + 0.5) / network.factor - 0.5 + network.border


def place_table(
    network: PictureNetwork, system: Interpreter, pixels: list[tuple[int, int]], rows: Tensor
) -> pd.DataFrame:
    """`places.parquet`."""
    import pandas as pd

    y, x = np.array(pixels).T
    mass = rows.double().square().sum(1).cpu().numpy()
    with np.errstate(invalid="ignore"):  # a row of zeros has no mass
        mass /= mass.sum((1, 2), keepdims=True)
    squares, centres, means = [], [], {}
    for name, pixel, share_along in (("y", y, mass.sum(2)), ("x", x, mass.sum(1))):
        at, along = input_coordinate(network, pixel), np.arange(share_along.shape[1])
        mean = share_along @ along
        squares.append((share_along * (along - at[:, None]) ** 2).sum(1))
        centres.append((mean - at) ** 2)
        means[f"from_{name}"] = mean
    parts = system.y, system.matvec(system.x0), system.r
    output, linear, r = (t[0, GREEN].cpu().double().numpy()[y, x] for t in parts)
    distances = {"displacement": np.sqrt(sum(squares)), "centre": np.sqrt(sum(centres))}
    values = {"output": output, "linear": linear, "r": r}
    return pd.DataFrame({"place": range(len(y)), "y": y, "x": x, **distances, **means, **values})
