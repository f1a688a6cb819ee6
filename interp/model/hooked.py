"""What every hooked network has: sites, edits in scope, and one pass that reads and edits them.

`Subject` (language models) and `Network` (any torch module) differ only in what goes in and in
what positions mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor

from ..errors import UserError
from .backends import Backend, Tap
from .backends.double import KeepingDouble
from .edits import Edit, head_of
from .site import Site, matching

Chosen = Callable[[Edit, Tensor], Tensor]
"""(an edit, its site's tensor) -> the mask of the positions it acts on."""


class Hooked:
    """A network behind a backend; edits in scope apply to every pass."""

    def __init__(self, backend: Backend, device: torch.device) -> None:
        self.device = device
        self._backend = backend
        self.sites = backend.sites
        """Every site, in forward order."""
        self.refused: dict[Site, str] = {}
        """Sites that are not offered though the network has them, and why."""
        self.absent: dict[Site, str] = {}
        """Sites that some layers do not have, and why."""
        self.edits: tuple[Edit, ...] = ()
        """Those in scope."""
        self.double = False
        """Whether passes are in float64 from end to end."""
        self.no_gradients = ""
        """Why none can be taken through it; "" if they can."""

    def matching(self, patterns: Iterable[str | Site]) -> list[Site]:
        """The sites that names and globs mean, in forward order.

        Raises:
            UserError: one that names no site the model has, or offers.
        """
        return matching(patterns, self.sites, {**self.refused, **self.absent})

    @contextmanager
    def edited(self, *edits: Edit) -> Iterator[Self]:
        """Apply edits, after those already in scope, to every pass until the block is left."""
        self.matching(edit.site for edit in edits)
        before = self.edits
        self.edits = (*before, *edits)
        try:
            yield self
        finally:
            self.edits = before

    def _pass(self, inputs: dict[str, Any], chosen: Chosen) -> Tensor:
        """One whole pass, edits applied."""
        output = self._run(inputs, self._taps({}, set(), chosen), False)
        assert output is not None
        return output.to(self.device)

    def _read(
        self, inputs: dict[str, Any], chosen: Chosen, sites: Iterable[str | Site]
    ) -> dict[Site, Tensor]:
        """The activations at some sites, edits applied; no further than the last of them."""
        patterns = [sites] if isinstance(sites, str | Site) else sites
        wanted = self.matching(patterns)
        kept: dict[Site, Tensor] = {}
        self._run(inputs, self._taps(kept, {site.whole for site in wanted}, chosen), True)
        return {site: head_of(kept[site.whole], site) for site in wanted}

    def _link(
        self, inputs: dict[str, Any], chosen: Chosen, sites: Iterable[str | Site]
    ) -> dict[Site, Tensor]:
        """As `_read`, but with the graph from each site to the later ones: the weights need no
        gradient, so that the graph begins at the first of them."""
        wanted = self.matching(sites)
        kept: dict[Site, Tensor] = {}
        with torch.enable_grad():
            self._run(inputs, self._taps(kept, set(wanted), chosen, linked=True), True)
        return {site: kept[site] for site in wanted}

    def _run(self, inputs: dict[str, Any], taps: dict[Site, Tap], stop: bool) -> Tensor | None:
        with KeepingDouble() if self.double else nullcontext():
            return self._backend.run(inputs, taps, stop)

    def _taps(
        self, kept: dict[Site, Tensor], read: set[Site], chosen: Chosen, linked: bool = False
    ) -> dict[Site, Tap]:
        """Site by site: its edits; then, of those to be read, a copy into `kept`; if `linked`, what
        goes on itself. Where parts are on several devices, edits and what is read are on the
        network's own."""
        edits: dict[Site, list[Edit]] = {}
        for edit in self.edits:
            edits.setdefault(edit.site.whole, []).append(edit)

        def both(site: Site) -> Tap:
            def tap(x: Tensor) -> Tensor | None:
                changed = x if x.device == self.device else x.to(self.device)
                for edit in edits.get(site, []):
                    changed = edit(changed, chosen(edit, changed))
                if site in read and linked:
                    changed = changed if changed.requires_grad else changed.requires_grad_()
                    kept[site] = changed
                elif site in read:
                    kept[site] = changed.detach().clone()
                if changed.requires_grad and self.no_gradients:
                    raise UserError(self.no_gradients)
                # a view that is linked goes on itself, or later sites would not hang on it
                goes_on = site in edits or (linked and site in read)
                return _back(changed, x) if goes_on else None

            return tap

        tapped = [site for site in self.sites if site in edits or site in read]
        # edits behind the last site that is read cannot change it
        last = max((at for at, site in enumerate(tapped) if site in read), default=len(tapped))
        return {site: both(site) for site in tapped[: last + 1]}


def _back(changed: Tensor, x: Tensor) -> Tensor:
    """What a site's tensor has become, where that was."""
    return changed if changed.device == x.device else changed.to(x.device)
