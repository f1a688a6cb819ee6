"""`resid_mid` from the sites around it, for any backend.

No module's output is the stream between attention and MLP: the layer adds them in passing. It is
resid_pre + attn_out, and replacing it by x is replacing attn_out by x - resid_pre.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from ..families import ModelSpec
from ..site import Site
from . import Tap


def with_mid(own: Iterable[Site], spec: ModelSpec) -> tuple[Site, ...]:
    """The sites in forward order, `resid_mid` among them where attention comes before the MLP."""
    there = set(own)
    mids = [
        Site("resid_mid", layer)
        for layer in range(spec.n_layers)
        if {Site("resid_pre", layer), Site("attn_out", layer)} <= there and not spec.parallel
    ]
    return tuple(sorted([*there, *mids], key=lambda site: site.order))


def through_attention(taps: Mapping[Site, Tap]) -> dict[Site, Tap]:
    """The same taps with those at resid_mid moved to resid_pre and attn_out."""
    moved = {site: tap for site, tap in taps.items() if site.kind != "resid_mid"}
    for site, tap in taps.items():
        if site.kind == "resid_mid":
            before, after = Site("resid_pre", site.layer), Site("attn_out", site.layer)
            seen: list[Tensor] = []
            moved[before] = _then(moved.get(before), seen.append)
            moved[after] = _then(moved.get(after), _middle(seen, tap))
    return dict(sorted(moved.items(), key=lambda item: item[0].order))


def _then(first: Tap | None, second: Tap) -> Tap:
    if first is None:
        return second

    def both(x: Tensor) -> Tensor | None:
        changed = first(x)
        again = second(x if changed is None else changed)
        return changed if again is None else again

    return both


def _middle(seen: list[Tensor], tap: Tap) -> Tap:
    def at_attention(out: Tensor) -> Tensor | None:
        before = seen.pop().to(out.device)  # the layer before may be on another one
        changed = tap(before + out)
        return None if changed is None else changed - before

    return at_attention
