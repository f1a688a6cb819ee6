"""What studies of a site's SAEs on text share: which SAEs, which model, which tokens count."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from interp.data import FOLDER

from ..errors import UserError
from ..runs.study import TextStudy

if TYPE_CHECKING:
    from ..model.prompting import Bos
    from ..model.site import Site
    from ..model.subject import Subject
    from ..text.contexts import ContextStream
    from .open import ErrorSource, Saes

LADDER = FOLDER / "darkmatter" / "smollm2-135m-14"
"""The SAEs that ship: a run of `interp darkmatter ladder`, of the default model's middle."""


@dataclass(frozen=True)
class SaesStudy(TextStudy):
    """The settings of every study of a site's SAEs: which SAEs, on which tokens."""

    saes: str = ""
    """A ladder's run, a folder of SAEs, or sae-lens' release:sae_id; by default what ships."""
    site: str = ""
    """Which site, if the folder has SAEs of several or they do not say which they are of."""
    corpus: str = ""
    """Text, or ids (.safetensors); by default the installed Python's own text."""
    length: int = 256
    """Tokens in a context."""
    skip: int = 1
    """Positions at the beginning of a context that are left out: attention sinks."""
    longest: float = 10.0
    """Tokens whose activation is longer than so many medians are left out too (0: none)."""
    anyway: bool = field(default=False, kw_only=True, metadata={"key": False})
    """Take SAEs that name another model, or a hook that is not known here; the manifest says so."""

    @property
    def source(self) -> str:
        return self.saes or str(LADDER)

    @cached_property
    def feeding(self) -> Bos:
        """`bos`; by default as the SAEs say that they were trained, if they do."""
        from .open import saes_bos

        return saes_bos(self.source) if self.bos == "auto" else self.bos

    def fingerprints(self) -> dict[str, str]:
        from .open import saes_fingerprint

        saes = saes_fingerprint(self.source)  # first: a wrong path shows before the model is read
        return {**super().fingerprints(), "saes": saes}

    def check(self) -> None:
        super().check()
        if not 0 <= self.skip < self.length - 1:
            raise UserError(
                f"--skip {self.skip} leaves too little of --length {self.length}: give longer "
                "contexts, or skip fewer positions"
            )
        if self.longest != 0 and not self.longest >= 1:
            raise UserError(f"--longest must be 0 or at least 1, not {self.longest:g}")

    def stream(
        self, subject: Subject, saes: ErrorSource, earlier: Iterable[Site] = ()
    ) -> ContextStream:
        """The contexts of the corpus, read at the SAEs' site and at earlier ones. What the SAEs
        were not trained on does not count."""
        from ..text.contexts import ContextStream

        settings = (self.corpus, self.length, self.skip, self.longest)
        no_data, positions = saes.no_data(subject.prompting), saes.positions
        return ContextStream(subject, [saes.site, *earlier], *settings, no_data, positions)

    def opened(self, pursued: bool = False) -> Saes:
        """The SAEs that are asked for.

        Raises:
            UserError: as `open_saes`.
        """
        from .open import open_saes

        return open_saes(self.source, self.site, pursued, self.model, self.anyway)
