"""nnsight: the same module locations, reached through a trace of a model in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..families import ModelSpec
from ..site import Site
from . import Tap
from .hooks import apply_tap, check_all_fired, counting
from .locations import locations
from .midstream import through_attention, with_mid


class NnsightBackend:
    """A transformers causal LM run in nnsight traces."""

    def __init__(self, model: Any, spec: ModelSpec) -> None:
        from nnsight import NNsight

        self.model = NNsight(model)
        self._locations = locations(spec, model)
        self.sites = with_mid(self._locations, spec)

    def run(self, inputs: dict[str, Any], taps: Mapping[Site, Tap], stop: bool) -> Tensor | None:
        # modules must be touched in the order they run
        moved = dict(
            sorted(through_attention(taps).items(), key=lambda tap: self._module_order(tap[0]))
        )
        left = set(moved)
        envoys = {site: self.model.get(self._locations[site].module) for site in moved}
        logits: list[Tensor] = []
        with self.model.trace(**inputs) as tracer:
            for site, tap in moved.items():
                place, envoy = self._locations[site], envoys[site]
                value = envoy.input if place.side == "in" else envoy.output
                counted = counting(tap, site, left, False, place.read_only)
                new = apply_tap(counted, value, place, len(inputs["input_ids"]))
                if new is not None and place.side == "in":
                    envoy.input = new
                elif new is not None:
                    envoy.output = new
            if stop:
                tracer.stop()
            else:
                logits.append(self.model.output.logits)
        check_all_fired(left)
        return logits[0] if logits else None

    def _module_order(self, site: Site) -> tuple[float, float]:
        """As `Site.order`, but patterns come out of the attention module: with its output, which
        comes before what is added where that passes a norm, and after it where it is a part's."""
        if site.kind != "attn_pattern":
            return site.order
        added = Site("attn_out", site.layer)
        inside = self._locations[added].module.startswith(f"{self._locations[site].module}.")
        layer, place = added.order
        return (layer, place + 0.5 if inside else place - 0.5)
