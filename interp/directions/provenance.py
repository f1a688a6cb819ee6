"""Provenance: where directions come from, under the same keys whoever made them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ..model.catalog import known_as
from ..model.weights import Weights


@dataclass(frozen=True)
class Provenance:
    """Who made a set of directions, of which model, in which run."""

    analysis: str = ""
    """The study, "obsprop.run"; "import" of a vector from elsewhere."""
    model: str = ""
    """As the catalog knows it, else its folder."""
    fingerprint: str = ""
    """Of the model's weights."""
    run: str = ""
    """<study>/<key>, where a run holds them."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What else there is to say, in plain JSON values."""

    @classmethod
    def of(cls, analysis: str, weights: Weights, **notes: Any) -> Provenance:
        """Of directions of a model that has its files."""
        return cls(analysis, known_as(weights.folder), weights.fingerprint(), notes=notes)

    def record(self) -> dict[str, Any]:
        """Itself as plain JSON values: `Provenance(**record)`."""
        return asdict(self)
