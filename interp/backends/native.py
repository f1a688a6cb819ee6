"""Plain torch hooks on the transformers model: the fastest backend, and the default.

It changes nothing of the model: hooks are put on for one pass and taken off after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from ..errors import UserError
from ..families import ModelSpec
from ..site import Site
from . import Tap
from .locations import Location, has_resid_mid, locations
from .midstream import through_attention


class _Stop(Exception):
    """Ends a forward pass that has served every tap."""


class NativeBackend:
    """A transformers causal LM run with forward hooks."""

    def __init__(self, model: Any, spec: ModelSpec) -> None:
        self.model = model
        self._locations = locations(spec, model)
        self._has_mid = has_resid_mid(model.config)

    @property
    def sites(self) -> tuple[Site, ...]:
        return _with_mid(self._locations, self._has_mid)

    def run(self, inputs: dict[str, Any], taps: Mapping[Site, Tap], stop: bool) -> Tensor | None:
        moved = through_attention(taps)
        left = set(moved)
        with ExitStack() as hooks:
            for site, tap in moved.items():
                place = self._locations[site]
                counted = _counting(tap, site, left, stop)
                module = self.model.get_submodule(place.module)
                hooks.callback(_hook(module, place, site, counted).remove)
            try:
                output = self.model(**inputs)
            except _Stop:
                return None
        _check_all_fired(left)
        logits: Tensor = output.logits
        return logits


def _with_mid(found: Mapping[Site, Location], has_mid: bool) -> tuple[Site, ...]:
    mids = [Site("resid_mid", s.layer) for s in found if s.kind == "resid_pre" and has_mid]
    return tuple(sorted([*found, *mids], key=lambda site: site.order))


def _check_all_fired(left: set[Site]) -> None:
    if left:
        silent = ", ".join(sorted(map(str, left)))
        raise RuntimeError(f"these sites did not fire in the forward pass: {silent}")


def _counting(tap: Tap, site: Site, left: set[Site], stop: bool) -> Tap:
    def counted(x: Tensor) -> Tensor | None:
        left.discard(site)
        changed = tap(x)
        if stop and not left:
            raise _Stop
        return changed

    return counted


def apply_tap(tap: Tap, whole: Tensor, place: Location, site: Site) -> Tensor | None:
    """Call a tap with a site's part of a module's tensor; the module's new tensor, if any."""
    changed = tap(place.view.take(whole) if place.view else whole)
    if changed is None:
        return None
    if place.read_only:
        raise UserError(f"{site} can be read but not edited by this backend: use backend='bridge'")
    return place.view.put(whole, changed) if place.view else changed


def _hook(module: nn.Module, place: Location, site: Site, tap: Tap) -> Any:
    if place.side == "in":

        def before(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            by_position = bool(args)
            new = apply_tap(tap, args[0] if by_position else kwargs["hidden_states"], place, site)
            if new is None:
                return None
            if by_position:
                return (new, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": new}

        return module.register_forward_pre_hook(before, with_kwargs=True)

    def after(_: nn.Module, args: tuple, output: Any) -> Any:
        if isinstance(output, tuple):
            new = apply_tap(tap, output[place.item], place, site)
            item = place.item
            return None if new is None else (*output[:item], new, *output[item + 1 :])
        return apply_tap(tap, output, place, site)

    return module.register_forward_hook(after)
