"""What a classifier's scores are made of: every pixel's votes, and the layers' biases.

    score_c = sum(V_c) + r_c,   V_c = A_c * x0,   r_c = sum over layers of gradient . constant

After the paper's section on classification. Its finding is a heavy reliance on biases: the share
|r_c| / (|r_c| + |sum V_c|). As it depends on which input counts as nothing, it is given twice:
against the network's own zero (mid-grey for most), and against a black picture b, where the votes
are A_c * (x0 - b) and r_c + A_c b takes the bias's place.

Written by `explain`: `classes.parquet` (class int64, label string, probability, score, votes, r,
share, black_votes, black_share double; a line a class, best first), `layers.parquet` (class int64,
module string, value double: what its constants add to r), `maps.safetensors` (votes [classes, 3, h,
w], picture uint8 [h, w, 3]).
By `bias`: `pictures.parquet`, the first line of that table for every picture with its name, and
`layers.parquet` (picture, module, value; for the class it names).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..progress import progress
from ..runs.store import RunWriter, save_tensors
from .pictured import NetworkConfig, PictureConfig, share
from .pictures import PHOTOGRAPHS

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from .interpreter import Interpreter
    from .networks import Network


@dataclass(frozen=True)
class ExplainConfig(PictureConfig):
    """The votes of a picture's pixels for its best classes, and the biases' share."""

    STUDY: ClassVar[str] = "linearscope.explain"

    classes: int = 5
    """How many of the best classes."""

    def check(self) -> None:
        super().check()
        if self.classes < 1:
            raise UserError("explain at least one class")

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd
        import torch

        network = classifier(self.network())
        picture, system = self.system(network, self.image)
        best = system.y[0].topk(min(self.classes, system.y.shape[1])).indices
        table, votes = accounts(network, system, best)
        layers = constants(system, best)
        with out.part("classes.parquet") as path:
            table.to_parquet(path)
        with out.part("layers.parquet") as path:
            pd.DataFrame(layers).to_parquet(path)
        with out.part("maps.safetensors") as path:
            maps = {"votes": votes.cpu(), "picture": torch.from_numpy(picture.copy())}
            save_tensors(maps, path)
        first = table.iloc[0]
        gap = table["votes"] + table["r"] - table["score"]
        sums = pd.DataFrame(layers).groupby("class")["value"].sum() if layers else pd.Series()
        split = table.set_index("class")["r"] - sums.reindex(table["class"]).fillna(0.0)
        return {
            "label": str(first["label"]),
            "probability": float(first["probability"]),
            "share of biases": float(first["share"]),
            "share of biases, from black": float(first["black_share"]),
            "largest error of votes + r": float(gap.abs().max()),
            "largest error of the layers' sum": float(split.abs().max()),
        }


@dataclass(frozen=True)
class BiasConfig(NetworkConfig):
    """How far a classifier relies on its biases, over many pictures."""

    STUDY: ClassVar[str] = "linearscope.bias"

    images: tuple[str, ...] = PHOTOGRAPHS
    """Files, or names of photographs."""

    def pictures(self) -> tuple[str, ...]:
        return self.images

    def check(self) -> None:
        super().check()
        if not self.images:
            raise UserError("no pictures: name some")

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd

        network = classifier(self.network())
        tables, layers = [], []
        with progress("pictures", len(self.images), "pictures") as advance:
            for image in self.images:
                _, system = self.system(network, image)
                best = system.y[0].topk(1).indices
                tables.append(accounts(network, system, best)[0].assign(picture=image))
                layers += [{"picture": image, **line} for line in constants(system, best)]
                advance(1, image)
        table = pd.concat(tables, ignore_index=True)
        with out.part("pictures.parquet") as path:
            table.to_parquet(path)
        with out.part("layers.parquet") as path:
            pd.DataFrame(layers).to_parquet(path)
        found: dict[str, Any] = {"pictures": len(table)}
        for name in ("share", "black_share"):
            low, middle, high = table[name].quantile([0.25, 0.5, 0.75])
            found |= {f"{name}, median": middle, f"{name}, quartiles": f"{low:.2f}-{high:.2f}"}
        return found


def classifier(network: Network) -> Network:
    """The network itself.

    Raises:
        UserError: it gives no scores.
    """
    if network.kind != "classifier":
        raise UserError(f"{network.name} is no classifier: use svd or impulse")
    return network


def accounts(network: Network, system: Interpreter, classes: Tensor) -> tuple[pd.DataFrame, Tensor]:
    """`classes.parquet`, and the votes [classes, c, h, w]."""
    import pandas as pd

    rows = system.rows(classes)
    votes = rows * system.x0
    from_black = ((system.x0 - network.offset) * rows).double().flatten(1).sum(1)
    chances = system.y[0].double().softmax(-1)
    lines = []
    for n, which in enumerate(classes.tolist()):
        score, r = float(system.y[0, which]), float(system.r[0, which])
        total, black = float(votes[n].double().sum()), float(from_black[n])
        lines.append(
            {
                "class": which,
                "label": network.label(which),
                "probability": float(chances[which]),
                "score": score,
                "votes": total,
                "r": r,
                "share": share(abs(r), abs(total)),
                "black_votes": black,
                "black_share": share(abs(score - black), abs(black)),
            }
        )
    return pd.DataFrame(lines), votes


def constants(system: Interpreter, classes: Tensor) -> list[dict[str, Any]]:
    """`layers.parquet`, from the input on."""
    return [
        {"class": which, "module": module, "value": float(values[n])}
        for module, values in system.constants(classes).items()
        for n, which in enumerate(classes.tolist())
    ]
