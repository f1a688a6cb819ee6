"""Files that the workbench or a user writes: manifests, tables, directions, items, pictures."""

from pathlib import Path

import pandas as pd
import torch

from interp.directions import Directions
from interp.model.site import Site

from ..manifests import finish_by_hand
from .harness import Target


def _directions(folder: Path) -> None:
    index = pd.DataFrame({"name": ["a", "b"]})
    found = Directions(Site.parse("1.resid_post"), torch.eye(2, 8), index)
    found.save(folder / "finds")
    made = {f"finds/{p.name}": p.rename for p in (folder / "finds").iterdir()}
    finish_by_hand(folder / "runs", "a.b", {"model": "m"}, made=made)


TARGETS = [
    Target("manifest", _directions, ("runs/a.b/*/manifest.json",), ("directions", "list")),
]
