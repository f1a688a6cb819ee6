"""Latents of an SAE or a transcoder as nodes of a frozen network, with what they leave as error.

At the positions that it knows, the activations y that it gives (its own site's, or a transcoder's
output) are written as

    y = sum over latents of z_j d_j + error,     z_j = J_j . x + c_j

with x what it reads, J_j the gradient of the encoder's latent j at this prompt (0 where the latent
is off) and the error, the decoder's bias in it, held as it is. That changes no value, and what
flows on comes through latents alone: the error is where flow begins.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import UserError
from ..linearscope.tape import Dual
from ..model.batch import Batch
from ..model.edits import Edit, Watch
from ..model.site import Site
from ..model.subject import Subject
from ..saes import Sae
from ..saes.edits import CELLS, FIRST
from .parts import Constants, Index, Part


@dataclass
class Spliced:
    """An SAE in the network of one prompt; made by `splice`."""

    sae: Sae
    reads: Site
    gives: Site
    counts: Bool[Tensor, " pos"]
    """The positions that it knows: the others pass as they are."""
    positions: Int[Tensor, " latents"]
    numbers: Int[Tensor, " latents"]
    z: Float[Tensor, " latents"]
    """Of the latents that are active at the prompt, or at the counterfactual."""
    slopes: Float[Tensor, "latents d_in"]
    offsets: Float[Tensor, " latents"]
    error: Float[Tensor, "pos d_out"]
    slot: int = -1
    """Where the latents are on the tape, and where the error is added."""
    error_slot: int = -1
    _carried: list[Tensor] = field(default_factory=list)

    @property
    def edits(self) -> tuple[Edit, Edit]:
        """What notes the latents where they are read, and what writes them out where they act."""
        about = f"latents at {self.gives}"
        return Watch(self.reads, self._read, about=about), Edit(self.gives, self._give, about=about)

    def _read(self, x: Tensor) -> Tensor:
        read = self.sae.read(x[0])[self.positions]
        latents = (read * self.slopes.to(read.dtype)).sum(-1) + self.offsets.to(read.dtype)
        if isinstance(latents, Dual):
            self.slot = latents.activation("latents")
        self._carried[:] = [latents]
        return x

    def _give(self, y: Tensor) -> Tensor:
        latents = self._carried.pop()
        rows = self.sae.W_dec[self.numbers].to(latents.dtype)
        flat = y[0].reshape(y.shape[1], -1)
        nothing = torch.zeros(flat.shape, dtype=latents.dtype)
        written = torch.index_add(nothing, 0, self.positions, latents[:, None] * rows)
        whole = written + self.error.to(latents.dtype)
        if isinstance(whole, Dual):
            self.error_slot = whole.activation("latents' error")
        kept = torch.where(self.counts[:, None], whole, flat)
        return kept.reshape(y.shape)

    def part(self, z: Float[Tensor, " latents"] | None = None) -> Latents:
        """Its nodes; with the latents of another prompt in the place of this one's."""
        assert self.gives.layer is not None
        return Latents(
            kind="latent",
            layer=self.gives.layer,
            slot=self.slot,
            values=self.z if z is None else z,
            positions=self.positions,
            numbers=self.numbers,
            gives=self.gives,
            rows=self.sae.W_dec[self.numbers],
        )

    def error_part(self, error: Float[Tensor, "pos d_out"] | None = None) -> Constants:
        """What it leaves, as a part."""
        values = self.error if error is None else error
        values = values * self.counts[:, None]
        about = {"kind": "error", "module": f"{self.gives}.error", "places": len(values)}
        return Constants(layer=self.part().layer, slot=self.error_slot, values=values, **about)  # type: ignore[arg-type]

    def parts_at(self, subject: Subject, batch: Batch) -> list[Part]:
        """The same latents, and the error, at another prompt."""
        seen = subject.capture(batch, [self.reads, self.gives])
        z = _encoded(self.sae, seen[self.reads][0])[self.positions, self.numbers]
        y = seen[self.gives][0].flatten(1)
        return [self.part(z), self.error_part(y - self._decoded(z, y))]

    def _decoded(self, z: Tensor, like: Float[Tensor, "pos d_out"]) -> Tensor:
        rows = self.sae.W_dec[self.numbers]
        return torch.zeros_like(like).index_add(0, self.positions, (z[:, None] * rows).to(like))


@dataclass(frozen=True, kw_only=True)
class Latents(Part):
    """The latents of an SAE that are active somewhere; a node is one at a position."""

    batched: ClassVar[bool] = False
    values: Float[Tensor, " latents"]
    positions: Int[Tensor, " latents"]
    numbers: Int[Tensor, " latents"]
    gives: Site
    rows: Float[Tensor, "latents d_out"]
    """What each writes for one unit."""

    def shares(self, gradients: Float[Tensor, "n latents"]) -> Tensor:
        return gradients * self.values

    def position(self, node: Index) -> int:
        return int(self.positions[node])

    def source(self, node: Index) -> int | None:
        return int(self.positions[node])

    def at(self, shares: Tensor, source: int | None) -> Tensor:
        return shares if source is None else shares * (self.positions == source)

    def number(self, node: Index) -> int:
        return int(self.numbers[node])

    def name(self, node: Index) -> str:
        return f"{self.gives}.latent.{self.number(node)}"

    def activation(self, node: Index) -> float:
        return float(self.values[node])


def splice(subject: Subject, sae: Sae, batch: Batch, other: Batch | None, name: str) -> Spliced:
    """Take an SAE into the network of a prompt.

    Args:
        other: the counterfactual, whose latents are nodes too.
        name: of the SAE, for messages.

    Raises:
        UserError: an SAE that does not say its site, normalises its inputs, has a skip connection,
            or is of something else than activations or of some positions only.
    """
    if unfit := _unfit(sae):
        raise UserError(f"{name} {unfit}: a circuit cannot take it; give another")
    reads, gives = Site.parse(sae.site), Site.parse(sae.out_site or sae.site)
    seen = subject.capture(batch, [reads, gives])
    x, y = seen[reads][0], seen[gives][0].flatten(1)
    counts = subject.counted(batch, sae.no_data(subject.prompting))[0].clone()
    counts[:FIRST] = False
    active = _encoded(sae, x) != 0
    if other is not None:
        active |= _encoded(sae, subject.capture(other, [reads])[reads][0]) != 0
    positions, numbers = (active & counts[:, None]).nonzero().T
    z, slopes = _slopes(sae, x, positions, numbers)
    read = sae.read(x)[positions].to(slopes)
    offsets = z - (slopes * read).sum(-1)
    spliced = Spliced(sae, reads, gives, counts, positions, numbers, z, slopes, offsets, y)
    return replace(spliced, error=y - spliced._decoded(z, y))


def _unfit(sae: Sae) -> str:
    if not sae.site or (sae.transcodes and not sae.out_site):
        return "does not say which site it reads and writes"
    if sae.reads:
        return f"is an SAE of the {sae.reads}, not of activations"
    if sae.normalises:
        return f"normalises its input ({sae.normalises})"
    if sae.sliced:
        return "was trained on some positions of a text only"
    if hasattr(sae.inner, "W_skip"):
        return "has a skip connection beside its latents"
    return ""


def _encoded(sae: Sae, x: Float[Tensor, "pos ..."]) -> Float[Tensor, "pos d_sae"]:
    return sae.encode(x.to(sae.inner.W_dec.dtype))


def _slopes(
    sae: Sae, x: Float[Tensor, "pos ..."], positions: Tensor, numbers: Tensor
) -> tuple[Float[Tensor, " latents"], Float[Tensor, "latents d_in"]]:
    """Some latents, each at a position, and their gradients with respect to what is read there."""
    read = sae.read(x.to(sae.inner.W_dec.dtype))[positions].detach()
    found = [torch.zeros(0).to(read)], [read[:0]]
    size = max(1, CELLS // sae.d_sae)
    for rows, own in zip(torch.split(read, size), torch.split(numbers, size), strict=True):
        with torch.enable_grad():
            leaf = rows.detach().requires_grad_(True)
            z = sae.inner.encode(leaf).to_dense()[torch.arange(len(own)), own]
            (slopes,) = torch.autograd.grad(z.sum(), leaf)
        for column, more in zip(found, (z.detach(), slopes), strict=True):
            column.append(more)
    return torch.cat(found[0]), torch.cat(found[1])
