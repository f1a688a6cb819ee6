"""How latents of an SAE are read: by its encoder, which the directions name and open when they are
scored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from interp.data import FOLDER

from ..errors import UserError
from ..model.prompting import Bos
from ..model.site import Site
from ..plain_path import found
from ..runs.store import Store
from .reading import Reading, Scorer, some_columns
from .sets import sae_place

if TYPE_CHECKING:
    from ..saes import Sae


@dataclass(frozen=True)
class Encoder(Reading):
    """The activation of the index's `latent` of an SAE."""

    KIND: ClassVar[str] = "encoder"
    COLUMN: ClassVar[str] = "latent"

    sae: str
    """Its folder or file, run:KEY/FOLDER, shipped:FOLDER, or release:sae_id."""
    fingerprint: str = ""
    """`saes_fingerprint` of what it was."""
    at: str = ""
    """The site that it reads, where that is not the directions' own, or it does not say it."""

    @classmethod
    def of(cls, source: str, site: str = "") -> tuple[Encoder, Sae]:
        """Of an SAE as it is today, and the SAE.

        Args:
            site: the one it reads, for an SAE that does not say it.
        """
        from ..saes import open_sae
        from ..saes.open import saes_fingerprint

        path, sae = found(source), open_sae(source, site=site)
        at = sae.site if sae.site != sae.out_site or sae.told.startswith("whoever") else ""
        name = str(path.absolute()) if path else source
        made = cls(name, saes_fingerprint(source), at)
        vars(made)["opened"] = sae  # what the property would open again
        return made, sae

    def __str__(self) -> str:
        return f"latents of {self.sae}"

    def site(self, own: Site) -> Site:
        return Site.parse(self.at) if self.at else own

    @cached_property
    def opened(self) -> Sae:
        """The SAE.

        Raises:
            UserError: it is gone, or another one by now.
        """
        from ..saes import open_sae
        from ..saes.open import saes_fingerprint

        source = self._here()
        if self.fingerprint and saes_fingerprint(source) != self.fingerprint:
            raise UserError(
                f"the SAE in {source} is not the one that these latents are of: make them anew"
            )
        return open_sae(source, site=self.at)

    @property
    def bos(self) -> Bos:
        return self.opened.bos

    def identity(self) -> dict[str, Any]:
        """The SAE by what it is, wherever it lies."""
        return {**self.record(), "sae": "" if self.fingerprint else self.sae}

    def _here(self) -> str:
        """Where the SAE is: one that is shipped goes where the package goes, one of a run where the
        store is."""
        if not Path(self.sae).is_absolute():
            return sae_place(self.sae, Store())
        path = Path(self.sae)
        if found(path) or "data" not in path.parts:
            return self.sae
        last = len(path.parts) - path.parts[::-1].index("data")
        shipped = FOLDER.joinpath(*path.parts[last:])
        return str(shipped) if found(shipped) else self.sae

    def scorer(self, vectors: Float[Tensor, "n d"], index: pd.DataFrame) -> Scorer:
        sae = self.opened
        if sae.sliced:
            raise UserError(
                f"{self.sae} was trained on some positions of a text only (seqpos_slice), and a "
                "score does not know its position: use darkmatter run, which leaves the others out"
            )
        return some_columns(index["latent"], lambda x: sae.encode(x.float()), sae.d_sae)
