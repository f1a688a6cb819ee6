"""Directions that earlier versions wrote: their keys, their names, and how they are read.

They kept `from` or `analysis`, the model as a name or a folder, labels under `name` or `direction`,
and a probe's `intercept`; how they are read followed from who made them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import UserError
from ..model.catalog import known_as
from ..model.neuron import parse_neuron
from ..model.site import Site
from ..model.weights import open_weights
from .provenance import Provenance
from .reading import Product, Reading, Scale, Unread, neuron_reading


def upgraded(
    about: dict[str, Any], index: pd.DataFrame, site: Site, name: str
) -> tuple[Provenance, Reading, pd.DataFrame]:
    """Provenance, reading and index as this version has them.

    Args:
        about: the old provenance.
        name: the folder's.
    """
    notes = {key: value for key, value in about.items() if key not in ("from", "analysis", "model")}
    analysis = str(about.get("analysis", about.get("from", "")))
    model, fingerprint = about.get("model"), str(notes.pop("fingerprint", ""))
    named = known_as(Path(model)) if isinstance(model, str) and Path(model).is_dir() else model
    made = Provenance(analysis, named if isinstance(named, str) else "", fingerprint, "", notes)
    if "name" not in index:
        label = next((n for n in ("direction", "label") if n in index), None)
        names = index.pop(label) if label else pd.Series(range(len(index)))
        index.insert(0, "name", names.astype(str).to_numpy())
    if analysis.startswith("othello") and "intercept" in index:
        intercept = index.pop("intercept")
        if not name.startswith("means"):  # the means were stored with the probe's intercepts
            index["constant"] = intercept
    try:
        return made, _reading(analysis, made.model, index, site), index
    except UserError as error:
        gone = f"an earlier version made them, and what it left out cannot be found ({error})"
        return made, Unread(f"{gone}: make them anew"), index


def _reading(analysis: str, model: str, index: pd.DataFrame, site: Site) -> Reading:
    """How directions of an analysis were read; a column that it needs is added to the index."""
    if analysis.startswith("othello") and "latent" in index:
        raise UserError("which SAE the latents are of")
    if analysis == "obsprop":
        return Product(Scale.before_heads(site, open_weights(model).spec))
    if analysis == "neurons":
        neurons = [parse_neuron(text) for text in index["name"]]
        reading, column = neuron_reading(open_weights(model), neurons)
        for name, values in column.items():
            index[name] = values
        return reading
    return Product()
