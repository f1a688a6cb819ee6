"""Any torch module, by the names of its submodules: for networks that are no language models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UserError
from ..site import Site
from . import Tap
from .hooks import hooked_pass
from .locations import Location, View

CHANNELS_LAST = View(lambda x: x.movedim(1, -1), lambda _, new: new.movedim(-1, 1))
"""Of feature maps [batch, channels, height, …]: the channels are the space, the rest positions."""


class ModuleBackend:
    """A module run with forward hooks on its submodules.

    Its sites are what an example shows: every submodule that is called exactly once and gets, or
    gives, a tensor. A module called several times (one ReLU for all layers) has no site of its
    own, since reading it would be ambiguous.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self.model = model
        self._locations = _seen(model, example)
        self.sites = tuple(self._locations)

    def run(self, inputs: dict[str, Any], taps: Mapping[Site, Tap], stop: bool) -> Tensor | None:
        output: Tensor | None = hooked_pass(
            self.model, self._locations, taps, stop, lambda: self.model(inputs["input"])
        )
        return output


def _seen(model: nn.Module, example: Tensor) -> dict[Site, Location]:
    """Sites in the order in which an example's pass reaches them."""
    reached: list[Site] = []
    locations: dict[Site, Location] = {}

    def note(site: Site, x: Any) -> None:
        if isinstance(x, Tensor) and x.ndim >= 2:
            reached.append(site)
            view = CHANNELS_LAST if x.ndim >= 4 else None
            locations[site] = Location(str(site.module), site.kind, view=view)

    with ExitStack() as hooks, torch.no_grad():
        for name, module in model.named_modules():
            before, after = Site("in", module=name), Site("out", module=name)
            reads = module.register_forward_pre_hook(
                lambda _, args, site=before: note(site, args[0] if args else None)
            )
            gives = module.register_forward_hook(lambda _, args, out, site=after: note(site, out))
            hooks.callback(reads.remove)
            hooks.callback(gives.remove)
        output = model(example)
    if not isinstance(output, Tensor):
        raise UserError(f"the network gives a {type(output).__name__}, not a tensor: wrap it")
    times = Counter(reached)
    return {site: locations[site] for site in reached if times[site] == 1}
