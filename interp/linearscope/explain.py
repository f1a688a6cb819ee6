"""What a classifier's scores are made of: every pixel's votes, and the layers' biases.

    score_c = sum(V_c) + r_c,   V_c = A_c * x0,   r_c = sum over layers of gradient . constant

After the paper's section on classification. It finds a heavy reliance on biases: the share
|r_c| / (|r_c| + |sum V_c|). The share depends on which input counts as zero, so there are two. One
counts from the network's own zero, mid-grey for most networks. The other counts from a black
picture b: its votes are A_c * (x0 - b), and its bias is r_c + A_c b.

Written by `explain`: `classes.parquet` (class int64, label string, probability, score, votes, r,
share, black_votes, black_share double; a row per class, best first), `layers.parquet` (class int64,
module string, value double: what the module's constants add to r), `maps.safetensors` (votes
[classes, 3, h, w], picture uint8 [h, w, 3]).
By `bias`: `pictures.parquet` (the first row of that table for every picture, and picture string),
`layers.parquet` (picture, class, module, value; for the best class).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..runs.parted_tables import Made, parted_tables
from ..runs.study import PartedStudy
from ..runs.study_task import StudyTask
from ..runs.writer import RunWriter
from .picture_configs import NetworkConfig, PictureConfig, share, write_maps
from .pictures import PHOTOGRAPHS

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from .interpreter import Interpreter
    from .networks import PictureNetwork


@dataclass(frozen=True)
class ExplainConfig(PictureConfig):
    """Split a classifier's best scores into the votes of the pixels and the share of the biases."""

    STUDY: ClassVar[str] = "linearscope.explain"

    classes: int = 5
    """How many classes to explain, best first."""

    def check(self) -> None:
        super().check()
        if self.classes < 1:
            raise UserError(f"--classes must be at least 1, not {self.classes}")

    def run(self, out: RunWriter) -> dict[str, Any]:
        network = self.classifier()
        picture, system = self.system(network, self.image)
        best = system.y[0].topk(min(self.classes, system.y.shape[1])).indices
        table, votes = class_table(network, system, best)
        out.table("classes", table)
        layers = out.table("layers", layer_table(system, best))
        write_maps(out, "maps", picture, votes=votes)
        first, r = table.iloc[0], table.set_index("class")["r"]
        error = table["votes"] + table["r"] - table["score"]
        layer_error = r.sub(layers.groupby("class")["value"].sum(), fill_value=0.0)
        return {
            "label": str(first["label"]),
            "probability": float(first["probability"]),
            "share of biases": float(first["share"]),
            "share of biases, from black": float(first["black_share"]),
            "largest error of votes + r": float(error.abs().max()),
            "largest error of the layers' sum": float(layer_error.abs().max()),
        }


@dataclass(frozen=True)
class BiasConfig(NetworkConfig, PartedStudy):
    """Measure what share of a classifier's best score its biases have, over many pictures."""

    STUDY: ClassVar[str] = "linearscope.bias"

    images: tuple[str, ...] = PHOTOGRAPHS
    """Files, or names of photographs that come with scikit-image or scikit-learn."""

    def pictures(self) -> tuple[str, ...]:
        return self.images

    def check(self) -> None:
        super().check()
        assert self.spread
        if not self.images:
            raise UserError("--images is empty: name at least one picture")

    def run(self, out: RunWriter) -> dict[str, Any]:
        how = (range(len(self.images)), self.spread, "pictures", "pictures")
        table, _ = parted_tables(out, ("pictures", "layers"), _Pictures.of(self), *how)
        metrics: dict[str, Any] = {"pictures": len(table)}
        for name in ("share", "black_share"):
            low, middle, high = table[name].quantile([0.25, 0.5, 0.75])
            metrics |= {f"{name}, median": middle, f"{name}, quartiles": f"{low:.2f}-{high:.2f}"}
        return metrics


class _Pictures(StudyTask[BiasConfig]):
    """Makes a picture's rows of `pictures` and `layers`."""

    def opened(self) -> PictureNetwork:
        return self.config.classifier()

    def made(self, opened: PictureNetwork, part: int) -> Made:
        image = self.config.images[part]
        _, system = self.config.system(opened, image)
        best = system.y[0].topk(1).indices
        table = class_table(opened, system, best)[0].assign(picture=image)
        layers = layer_table(system, best)
        layers.insert(0, "picture", image)
        return Made.of({}, table, layers)


def class_table(
    network: PictureNetwork, system: Interpreter, classes: Tensor
) -> tuple[pd.DataFrame, Tensor]:
    """`classes.parquet`, and the votes [classes, c, h, w]."""
    import pandas as pd

    rows = system.rows(classes)
    votes = rows * system.x0
    from_black = rows * (system.x0 - network.offset)
    total, black = (part.double().flatten(1).sum(1) for part in (votes, from_black))
    score, r = system.y[0, classes].double(), system.r[0, classes].double()
    columns = {
        "probability": system.y[0].double().softmax(-1)[classes],
        "score": score,
        "votes": total,
        "r": r,
        "share": share(r, total),
        "black_votes": black,
        "black_share": share(score - black, black),
    }
    ids = classes.tolist()
    names = {"class": ids, "label": [network.label(which) for which in ids]}
    return pd.DataFrame(names | {name: column.tolist() for name, column in columns.items()}), votes


def layer_table(system: Interpreter, classes: Tensor) -> pd.DataFrame:
    """`layers.parquet`, from the input to the output."""
    import pandas as pd

    values = {module: each.numpy() for module, each in system.constants(classes).items()}
    by_class = pd.DataFrame(values, index=pd.Index(classes.tolist(), name="class"))
    return by_class.melt(var_name="module", ignore_index=False).reset_index()
