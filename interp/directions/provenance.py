"""Provenance: where directions come from, under the same keys whoever made them."""

from __future__ import annotations

from collections.abc import Sequence
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

    def same_model(self, other: Provenance) -> bool:
        """Whether nothing says that two are of different models: by the weights where both say
        them, else by the name."""
        known = bool(self.fingerprint and other.fingerprint)
        own = self.fingerprint if known else self.model
        theirs = other.fingerprint if known else other.model
        return not (own and theirs) or own == theirs

    def apart(self, other: Provenance) -> str:
        """Why two are of different models, after "they are"; "" where nothing says so."""
        if self.same_model(other):
            return ""
        if self.model == other.model:
            return f"of two states of {self.model}: the content of its folder changed in between"
        return f"of two models, {self.model} and {other.model}"

    def not_of(self, weights: Weights | None) -> str:
        """Why directions of it are not of these weights, after "they are"; "" where nothing says
        so."""
        if weights is None or self.fingerprint in ("", weights.fingerprint()):
            return ""
        now = known_as(weights.folder)
        if self.model == now:
            return f"of {now} as it was: the content of its folder changed since"
        return f"of {self.model or 'another model'}, not of {now}"

    @classmethod
    def shared(cls, every: Sequence[Provenance]) -> Provenance:
        """Of sets of one model that stand together: what all of them say alike."""
        first = every[0]
        alike = {
            name: value
            for name, value in first.record().items()
            if name != "notes" and all(getattr(each, name) == value for each in every)
        }
        alike["model"] = next((each.model for each in every if each.model), "")
        alike["fingerprint"] = next((each.fingerprint for each in every if each.fingerprint), "")
        notes = {
            name: value
            for name, value in first.notes.items()
            if all(name in each.notes and each.notes[name] == value for each in every)
        }
        return cls(**alike, notes=notes)

    def record(self) -> dict[str, Any]:
        """Itself as plain JSON values: `Provenance(**record)`."""
        return asdict(self)
