"""Edits: what to do to the activations at a site while a model runs.

Each edit is a pure function of the site's tensor, applied at chosen positions; positions that are
not chosen, and padding, keep their values bit for bit. Equations, for an activation h:
    clamp          h[index] = value
    add            h + scale * vector
    set_coordinate h + (value - u.h) u      for a unit vector u: afterwards u.h = value exactly
    project_out    h - Q Q^T h              for Q an orthonormal basis of the directions
    patch          h = another run's activation
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import UserError
from .site import Site

Where = Literal["all", "last"] | Tensor
"""All positions, the last one, or a mask [batch, pos] over the prompt's positions."""


@dataclass(frozen=True)
class Edit:
    """A change at one site; compose edits by giving several, applied in the order given."""

    site: Site
    change: Callable[[Tensor], Tensor]
    """The activations [..., d] -> their new values, same shape."""
    where: Where = "all"
    about: str = "edit"
    """What it does, in a few words: for the records of what ran under it."""
    not_ids: tuple[int, ...] = ()
    """The tokens at whose positions it does not act, in a prompt and in what is generated."""
    not_first: int = 0
    """How many positions at the beginning of each text it leaves as they are."""

    def __str__(self) -> str:
        where = self.where if isinstance(self.where, str) else "a mask of"
        return f"{self.about} at {self.site}, {where} positions"

    def __call__(self, x: Tensor, chosen: Bool[Tensor, "batch ..."]) -> Tensor:
        """`x` [batch, positions ..., ...] changed where `chosen` [batch, positions ...]."""
        part = head_of(x, self.site)
        # the positions of a pattern [batch, heads, query, key] are its queries
        heads = self.site.kind == "attn_pattern" and self.site.head is None
        mask = chosen[:, None] if heads else chosen
        mask = mask.view(*mask.shape, *[1] * (part.ndim - mask.ndim))
        changed = torch.where(mask, self.change(part), part)
        if self.site.head is None:
            return changed
        whole = x.clone()
        head_of(whole, self.site).copy_(changed)
        return whole


class Watch(Edit):
    """No edit: `change` sees the site's tensor, and the tensor itself goes on."""

    def __call__(self, x: Tensor, chosen: Bool[Tensor, "batch ..."]) -> Tensor:
        self.change(x)
        return x


def head_of(x: Tensor, site: Site) -> Tensor:
    """A view of the site's own head in the tensor of the whole site; all of it without a head.

    Raises:
        UserError: no such head.
    """
    if site.head is None:
        return x
    axis = 1 if site.kind == "attn_pattern" else x.ndim - 2
    if site.head >= x.shape[axis]:
        raise UserError(f"no head {site.head} at {site.whole}: it has {x.shape[axis]}")
    return x.select(axis, site.head)


def clamp(
    site: Site,
    index: int | Sequence[int],
    value: float | Float[Tensor, " batch"],
    where: Where = "all",
) -> Edit:
    """Fix one coordinate (a neuron), or several, at a value: one for all texts, or one for each."""
    indices = torch.tensor([index] if isinstance(index, int) else list(index))

    def change(h: Tensor) -> Tensor:
        outside = indices[(indices < 0) | (indices >= h.shape[-1])]
        if len(outside):
            raise UserError(f"no coordinate {outside[0]} at {site}: it has {h.shape[-1]}")
        new = h.clone()
        if isinstance(value, Tensor):
            if value.shape != h.shape[:1]:
                raise UserError(f"{len(value)} values do not fit {len(h)} texts")
            new[..., indices.to(h.device)] = value.to(h).view(-1, *[1] * (h.ndim - 1))
        else:
            new[..., indices.to(h.device)] = value
        return new

    held = "a value for each text" if isinstance(value, Tensor) else f"{value:g}"
    return Edit(site, change, where, f"clamp {indices.tolist()} to {held}")


def add(site: Site, vector: Float[Tensor, " d"], scale: float = 1.0, where: Where = "all") -> Edit:
    """Add a vector: steering."""
    about = f"add {scale:g} times a vector of length {float(vector.norm()):g}"
    return Edit(site, lambda h: h + scale * _fitting(vector, h, site), where, about)


def set_coordinate(
    site: Site, direction: Float[Tensor, " d"], value: float, where: Where = "all"
) -> Edit:
    """Set the coordinate along a direction (made a unit vector), leaving the rest untouched."""
    unit = _normalised(direction)

    def change(h: Tensor) -> Tensor:
        u = _fitting(unit, h, site)
        out: Tensor = h + (value - h @ u)[..., None] * u
        return out

    return Edit(site, change, where, f"set a coordinate to {value:g}")


def project_out(site: Site, directions: Float[Tensor, "n d"], where: Where = "all") -> Edit:
    """Remove the span of some directions; they may depend on each other."""
    rows = directions if directions.ndim == 2 else directions[None]
    _, lengths, basis = torch.linalg.svd(
        torch.stack([_normalised(row) for row in rows]), full_matrices=False
    )
    # what float32 vectors differ by though they are meant to be the same is no direction
    basis = basis[lengths > 1e-6 * lengths.max()]

    def change(h: Tensor) -> Tensor:
        q = _fitting(basis, h, site)
        out: Tensor = h - h @ q.T @ q
        return out

    return Edit(site, change, where, f"project out {len(rows)} directions")


def patch(site: Site, source: Float[Tensor, "batch pos d"], where: Where = "all") -> Edit:
    """Replace by activations of another run, as `capture` gives them; shapes must agree."""

    def change(h: Tensor) -> Tensor:
        if source.shape != h.shape:
            raise UserError(f"the patch at {site} is {list(source.shape)}, not {list(h.shape)}")
        return source.to(h)

    return Edit(site, change, where, "patch from another run")


def _normalised(direction: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(direction.double())
    if not torch.isfinite(length) or length == 0:
        raise UserError("a direction must be finite and not zero")
    unit: Tensor = direction.double() / length
    return unit


def _fitting(vector: Tensor, h: Tensor, site: Site) -> Tensor:
    if vector.shape[-1] != h.shape[-1]:
        raise UserError(
            f"a vector of {vector.shape[-1]} numbers does not fit {site} ({h.shape[-1]})"
        )
    return vector.to(h)
