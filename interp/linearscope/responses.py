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

from ..errors import UserError
from ..runs.writer import RunWriter, save_tensors
from .picture_configs import PictureConfig, share

if TYPE_CHECKING:
    from torch import Tensor

    from .interpreter import Interpreter
    from .networks import PictureNetwork

GREEN = 1
"""The output channel whose rows are taken."""


@dataclass(frozen=True)
class SvdConfig(PictureConfig):
    """Compute the largest singular triplets of a network's linear system for a picture."""

    STUDY: ClassVar[str] = "linearscope.svd"

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
        import torch

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
        with out.part("values.parquet") as path:
            pd.DataFrame(table).to_parquet(path)
        with out.part("vectors.safetensors") as path:
            vectors = {"left": triplets.left.cpu(), "right": triplets.right.cpu()}
            save_tensors({**vectors, "picture": torch.from_numpy(picture.copy())}, path)
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

    model: str = "waifu2x"
    """waifu2x, sketch, or your own network as package.module:name."""
    at: tuple[str, ...] = ()
    """Output pixels as y,x, such as 20,32; by default nine, in a square."""

    def check(self) -> None:
        super().check()
        for text in self.at:
            _parse_pixel(text)

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd
        import torch

        network = self.network()
        picture, system = self.system(network, self.image)
        if system.y.ndim != 4 or system.y.shape[1] != 3:
            raise UserError(f"{network.name} makes no picture: use explain")
        network = aligned(network, system)
        pixels = self._pixels(system)
        rows, columns = rows_and_columns(network, system, pixels)
        table = pd.DataFrame(place_rows(network, system, pixels, rows))
        with out.part("places.parquet") as path:
            table.to_parquet(path)
        with out.part("responses.safetensors") as path:
            tensors = {"rows": rows, "columns": columns, "output": system.y[0], "r": system.r[0]}
            kept = {name: tensor.cpu() for name, tensor in tensors.items()}
            save_tensors({**kept, "picture": torch.from_numpy(picture.copy())}, path)
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
    r, linear = (float(t.double().square().sum()) for t in (system.r, system.y - system.r))
    return share(r, linear)


def aligned(network: PictureNetwork, system: Interpreter) -> PictureNetwork:
    """The network with the `border` and `factor` by which its output lies on its input: its own, or
    what follows from the two sizes (a whole multiple, or the same border off each side).

    Raises:
        UserError: neither follows from the sizes.
    """
    inside, outside = (tuple(t.shape[2:]) for t in (system.x0, system.y))
    pairs = list(zip(inside, outside, strict=True))
    if all(network.factor * (i - 2 * network.border) == o for i, o in pairs):
        return network
    factors, borders = {divmod(o, i) for i, o in pairs}, {divmod(i - o, 2) for i, o in pairs}
    if len(factors) == 1 and (factor := factors.pop())[1] == 0:
        return replace(network, factor=factor[0], border=0)
    if len(borders) == 1 and (border := borders.pop())[1] == 0:
        return replace(network, factor=1, border=border[0])
    raise UserError(
        f"an output of {outside[0]} x {outside[1]} cannot be laid on an input of {inside[0]} x "
        f"{inside[1]}: pad or crop in the network until its size is a multiple"
    )


def input_coordinate(network: PictureNetwork, y: float) -> float:
    """The input coordinate, y or x, of the centre of an output pixel."""
    return (y + 0.5) / network.factor - 0.5 + network.border


def rows_and_columns(
    network: PictureNetwork, system: Interpreter, pixels: list[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """The rows of the green channel at some output pixels, and the columns of the input pixels
    there (of the green channel, or the only one)."""
    import torch

    _, channels, height, width = system.y.shape
    rows = system.rows(torch.tensor([(GREEN * height + y) * width + x for y, x in pixels]))
    _, channels, high, wide = system.x0.shape
    green = min(GREEN, channels - 1)
    inputs = [
        (green * high + _nearest(network, y, high)) * wide + _nearest(network, x, wide)
        for y, x in pixels
    ]
    return rows, system.columns(torch.tensor(inputs))


def _nearest(network: PictureNetwork, y: int, size: int) -> int:
    return min(max(round(input_coordinate(network, y)), 0), size - 1)


def place_rows(
    network: PictureNetwork, system: Interpreter, pixels: list[tuple[int, int]], rows: Tensor
) -> list[dict[str, Any]]:
    """The rows of `places.parquet`."""
    import torch

    mass = rows.double().square().sum(1).cpu()
    down = torch.arange(mass.shape[1], dtype=torch.float64)[:, None]
    across = torch.arange(mass.shape[2], dtype=torch.float64)[None]
    table_rows = []
    for n, (y, x) in enumerate(pixels):
        share = mass[n] / mass[n].sum()
        at_y, at_x = input_coordinate(network, y), input_coordinate(network, x)
        far = ((down - at_y) ** 2 + (across - at_x) ** 2) * share
        from_y, from_x = float((share * down).sum()), float((share * across).sum())
        output, r = float(system.y[0, GREEN, y, x]), float(system.r[0, GREEN, y, x])
        table_rows.append(
            {
                "place": n,
                "y": y,
                "x": x,
                "displacement": float(far.sum().sqrt()),
                "centre": ((from_y - at_y) ** 2 + (from_x - at_x) ** 2) ** 0.5,
                "from_y": from_y,
                "from_x": from_x,
                "output": output,
                "linear": output - r,
                "r": r,
            }
        )
    return table_rows
