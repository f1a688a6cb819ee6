"""Bring a vector of one's own: from a file into a run, where every other part finds it.

Written to the run: `directions/`, the vectors as Directions. Their index is `name` and `constant`;
their provenance names the model and its fingerprint, the file and its sha256, and the source in
one's own words. A score is the product of the vector with an activation at the site, plus the
constant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..model.catalog import DEFAULT_MODEL
from ..model.files import sha256
from ..model.site import Site
from ..plain_path import plain_path
from ..runs.writer import RunWriter

if TYPE_CHECKING:
    from .directions import Directions


@dataclass(frozen=True)
class ImportConfig:
    """Make directions of a vector, or of several, that another program has made."""

    STUDY: ClassVar[str] = "directions.import"
    VERSION: ClassVar[int] = 3

    file: str = field(metadata={"positional": True})
    """A .npy, .safetensors, .pt or .pth file with one vector [d], or with several [n, d]."""
    site: str = field(kw_only=True)
    """Where in the model they belong, such as 14.resid_post."""
    source: str = field(kw_only=True)
    """Who made them, and from what: one line for whoever finds them later."""
    name: str = field(default="", kw_only=True)
    """What to call them; several get numbers behind it. By default the file's name."""
    model: str = DEFAULT_MODEL
    """The model they belong to: a catalog name, hub id, folder or .gguf file."""
    tensor: str = field(default="", kw_only=True)
    """Which tensor, if the file has several."""
    constant: tuple[float, ...] = field(default=(0.0,), kw_only=True)
    """What a score has besides the product, a probe's intercept: one number, or one a vector."""

    @cached_property
    def _made(self) -> Directions:
        from .directions import Directions
        from .vectors import read_vectors

        path = plain_path(self.file)
        values = read_vectors(path, self.tensor)
        name = self.name.strip() or path.stem
        constant = self.constant[0] if len(self.constant) == 1 else self.constant
        found = Directions.of(values, self.site, self.model, name, self.source, constant)
        of_tensor = {"tensor": self.tensor} if self.tensor else {}
        found.provenance.notes.update(file=path.name, sha256=sha256(path), **of_tensor)
        return found

    def fingerprints(self) -> dict[str, str]:
        file = sha256(plain_path(self.file))  # first: a wrong path shows before torch is imported
        from ..model.weights import open_weights

        return {"file": file, "model": open_weights(self.model).fingerprint()}

    def check(self) -> None:
        """Raise UserError for settings that cannot work."""
        Site.parse(self.site)
        if not self.source.strip():
            raise UserError("--source is empty: say who made the vectors, and from what")
        self._made  # noqa: B018  reads the file, and checks it

    def run(self, out: RunWriter) -> dict[str, Any]:
        self._made.save_in(out, "directions")
        vectors = self._made.vectors
        lengths = vectors.double().norm(dim=1)
        return {
            "directions": len(vectors),
            "numbers each": vectors.shape[1],
            "shortest": float(lengths.min()),
            "longest": float(lengths.max()),
        }
