"""Networks from picture to picture: what of an output is the input's, and from where.

Columns of A are impulse responses (what one input number lights up), rows receptive filters (what
an output number is made of), singular vectors the patterns that pass best. To tell copying from
making things up, after the paper's section on image-to-image networks, with numbers for it:

    share of r       |r|^2 / (|r|^2 + |A x0|^2): near 1, the output is a template that x0 chose
    displacement     root mean squared distance, in input pixels, from an output pixel to where its
                     row's mass (squared, over all channels) lies; a copy has a small one
    centre           distance from the output pixel to the mean place of that mass
                     (both are undefined where a row is all zeros)
    energy of k      sum of the k largest squared singular values over |A|_F^2
    effective rank   |A|_F^2 / s_1^2 (the stable rank)

Written by `svd`: `values.parquet` (rank int64, value, residual, energy double: of the values up to
it), `vectors.safetensors` (left [k, ...], right [k, c, h, w], picture uint8 [h, w, 3]).
By `impulse`: `places.parquet` (place int64, y, x int64 of the output, displacement, centre, from_y,
from_x: mean place in the input; output, linear, r: of the green channel, double) and
`responses.safetensors` (rows [places, c, h, w], columns [places, 3, h', w']: of the input pixel
that lies there, picture, output [3, h', w'], r [3, h', w']).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..runs.store import RunWriter, save_tensors
from .pictured import PictureConfig, share

if TYPE_CHECKING:
    from torch import Tensor

    from .interpreter import Interpreter
    from .networks import Network

GREEN = 1
"""The channel of the output whose rows are taken."""


@dataclass(frozen=True)
class SvdConfig(PictureConfig):
    """The singular triplets of the system that a network is for a picture."""

    STUDY: ClassVar[str] = "linearscope.svd"

    k: int = 16
    """How many triplets."""
    probes: int = 32
    """Random vectors that the whole energy is estimated with."""
    seed: int = 0
    """Of the start and the probes."""

    def check(self) -> None:
        super().check()
        if self.k < 1 or self.probes < 2:
            raise UserError("ask for at least one triplet and two probes")

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd
        import torch

        from .svd import energy, singular_triplets

        picture, system = self.system(self.network(), self.image)
        found = singular_triplets(system, self.k, self.seed)
        whole, error = energy(system, self.probes, self.seed)
        squares = found.values.square()
        table = {
            "rank": range(1, self.k + 1),
            "value": found.values.tolist(),
            "residual": found.residuals.tolist(),
            "energy": (squares.cumsum(0) / whole).tolist(),
        }
        with out.part("values.parquet") as path:
            pd.DataFrame(table).to_parquet(path)
        with out.part("vectors.safetensors") as path:
            vectors = {"left": found.left.cpu(), "right": found.right.cpu()}
            save_tensors({**vectors, "picture": torch.from_numpy(picture.copy())}, path)
        return {
            "largest singular value": float(found.values[0]),
            "largest residual": float(found.residuals.nan_to_num().max()),
            f"energy of {self.k}": float(squares.sum() / whole),
            "effective rank": whole / float(squares[0]),
            "standard error of the energy": error / whole,
            "share of r": share_of_r(system),
            "products": found.products,
        }


@dataclass(frozen=True)
class ImpulseConfig(PictureConfig):
    """Impulse responses and receptive filters at some places of a picture."""

    STUDY: ClassVar[str] = "linearscope.impulse"

    model: str = "waifu2x"
    """waifu2x, sketch, or package.module:name of one's own."""
    at: tuple[str, ...] = ()
    """Places in the output as y,x; by default nine, in a square."""

    def check(self) -> None:
        super().check()
        for place in self.at:
            _place(place)

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd
        import torch

        network = self.network()
        picture, system = self.system(network, self.image)
        if system.y.ndim != 4 or system.y.shape[1] != 3:
            raise UserError(f"{network.name} makes no picture: use explain")
        network = placed(network, system)
        places = self._places(system)
        rows, columns = responses(network, system, places)
        table = pd.DataFrame(measures(network, system, places, rows))
        with out.part("places.parquet") as path:
            table.to_parquet(path)
        with out.part("responses.safetensors") as path:
            tensors = {"rows": rows, "columns": columns, "output": system.y[0], "r": system.r[0]}
            kept = {name: tensor.cpu() for name, tensor in tensors.items()}
            save_tensors({**kept, "picture": torch.from_numpy(picture.copy())}, path)
        return {
            "places": len(places),
            "places with a row": int(table["displacement"].notna().sum()),
            "share of r": share_of_r(system),
            "displacement, median": float(table["displacement"].median()),
            "displacement, largest": float(table["displacement"].max()),
            "centre, median": float(table["centre"].median()),
        }

    def _places(self, system: Interpreter) -> list[tuple[int, int]]:
        height, width = system.y.shape[2:]
        if not self.at:
            parts = (1, 2, 3)
            return [(height * i // 4, width * j // 4) for i in parts for j in parts]
        found = [_place(place) for place in self.at]
        for y, x in found:
            if not (0 <= y < height and 0 <= x < width):
                raise UserError(f"no place {y},{x} in an output of {height} x {width}")
        return found


def _place(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise UserError(f"'{text}' is no place: write y,x such as 20,32")
    return int(parts[0]), int(parts[1])


def share_of_r(system: Interpreter) -> float:
    """|r|^2 / (|r|^2 + |A x0|^2)."""
    r, linear = (float(t.double().square().sum()) for t in (system.r, system.y - system.r))
    return share(r, linear)


def placed(network: Network, system: Interpreter) -> Network:
    """The network with the `border` and `factor` by which its output lies on its input: what it
    says, or what the two sizes tell (so many times as large, or as much taken off each side).

    Raises:
        UserError: they do not tell.
    """
    inside, outside = (tuple(t.shape[2:]) for t in (system.x0, system.y))
    pairs = list(zip(inside, outside, strict=True))
    if all(network.factor * (i - 2 * network.border) == o for i, o in pairs):
        return network
    factors, borders = {divmod(o, i) for i, o in pairs}, {divmod(i - o, 2) for i, o in pairs}
    if len(factors) == 1 and (found := factors.pop())[1] == 0:
        return replace(network, factor=found[0], border=0)
    if len(borders) == 1 and (found := borders.pop())[1] == 0:
        return replace(network, factor=1, border=found[0])
    raise UserError(
        f"where does an output of {outside[0]} x {outside[1]} lie on an input of {inside[0]} x "
        f"{inside[1]}? Pad or crop in the network, so that its size is a multiple"
    )


def source(network: Network, y: float) -> float:
    """The input coordinate that an output pixel's centre lies on."""
    return (y + 0.5) / network.factor - 0.5 + network.border


def responses(
    network: Network, system: Interpreter, places: list[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """The rows of the green output at some places, and the columns of the input pixels there (of
    the green channel, or the only one)."""
    import torch

    _, channels, height, width = system.y.shape
    rows = system.rows(torch.tensor([(GREEN * height + y) * width + x for y, x in places]))
    _, channels, high, wide = system.x0.shape
    green = min(GREEN, channels - 1)
    inputs = [
        (green * high + _near(network, y, high)) * wide + _near(network, x, wide) for y, x in places
    ]
    return rows, system.columns(torch.tensor(inputs))


def _near(network: Network, place: int, size: int) -> int:
    return min(max(round(source(network, place)), 0), size - 1)


def measures(
    network: Network, system: Interpreter, places: list[tuple[int, int]], rows: Tensor
) -> list[dict[str, Any]]:
    """`places.parquet`."""
    import torch

    mass = rows.double().square().sum(1).cpu()
    down = torch.arange(mass.shape[1], dtype=torch.float64)[:, None]
    across = torch.arange(mass.shape[2], dtype=torch.float64)[None]
    lines = []
    for n, (y, x) in enumerate(places):
        share = mass[n] / mass[n].sum()
        at_y, at_x = source(network, y), source(network, x)
        far = ((down - at_y) ** 2 + (across - at_x) ** 2) * share
        from_y, from_x = float((share * down).sum()), float((share * across).sum())
        output, r = float(system.y[0, GREEN, y, x]), float(system.r[0, GREEN, y, x])
        lines.append(
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
    return lines
