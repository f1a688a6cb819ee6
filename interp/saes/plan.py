"""What is asked of a training: one autoencoder's plan, and the schedule that several share."""

from __future__ import annotations

from dataclasses import dataclass

from ..model.site import Site
from .kinds import TABLE, Kind

DEAD = 200
"""A latent is dead that was silent for so many steps, or for a tenth of a shorter training."""


@dataclass(frozen=True)
class SaePlan:
    """One autoencoder to be trained."""

    name: str
    site: Site
    kind: Kind
    d_sae: int
    sparsity: float
    """Active latents a token (on average, but for topk); or the coefficient of a penalty
    (jumprelu, l1, gated)."""
    seed: int = 0
    reads: str = ""
    """What the stream holds if not the site's activations; stored in the metadata."""
    steered: bool = False
    """A penalty's coefficient is moved until `sparsity` latents a token are active."""
    gives: Site | None = None
    """A transcoder's target; None: an SAE."""

    def __post_init__(self) -> None:
        about = TABLE[self.kind]
        if self.gives and not about.transcoder:
            raise ValueError(f"sae-lens reads no transcoder of the kind {self.kind}")
        if self.steered and not about.penalised:
            raise ValueError(f"{self.kind} has no penalty to steer")

    @property
    def sites(self) -> tuple[Site, ...]:
        return (self.site, self.gives) if self.gives else (self.site,)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: Adam, linear warm-up over a twentieth, down to lr / 10 at the end."""

    steps: int
    batch: int
    """Tokens a step."""
    lr: float
    model: str
    """The model's name, stored in the autoencoders' metadata."""
    bos: bool | None = None
    """Whether a BOS token stood before each text, stored too; None: the tokens are no text."""
    device: str = "cpu"
    autocast: bool = False
    """Products in bfloat16 (weights and moments stay in float32)."""
    context: int | None = None
    """Tokens in a row of text, stored too."""
    half: bool = True
    """SAEs are stored in float16 where that loses nothing that counts."""

    @property
    def warm_up(self) -> int:
        return self.steps // 20

    @property
    def decay(self) -> int:
        """Steps at the end in which the rate falls."""
        return self.steps // 3

    @property
    def dead(self) -> int:
        """Steps of silence after which a latent is dead."""
        return max(1, min(DEAD, self.steps // 10))
