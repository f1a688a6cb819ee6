"""Forward hooks at locations: one pass of a torch module in which taps are called.

The native backend and the one for any module are made of it; TransformerLens and nnsight bring
hooks of their own and share the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from ...errors import UserError
from ..site import Site
from . import Tap
from .locations import Location


class Stop(Exception):
    """Ends a forward pass that has served every tap."""


def hooked_pass(
    model: nn.Module,
    locations: Mapping[Site, Location],
    taps: Mapping[Site, Tap],
    stop: bool,
    call: Callable[[], Any],
) -> Any:
    """What `call` returns, with the taps hooked on for its time; None if it was stopped early.

    With `stop` the pass ends when every tap has been called.
    """
    left = set(taps)
    with ExitStack() as hooks:
        for site, tap in taps.items():
            place = locations[site]
            counted = counting(guarded(tap, place, site), site, left, stop)
            hooks.callback(_hook(model.get_submodule(place.module), place, counted).remove)
        try:
            output = call()
        except Stop:
            return None
    check_all_fired(left)
    return output


def counting(tap: Tap, site: Site, left: set[Site], stop: bool) -> Tap:
    """The tap, taking its site off `left`; with `stop`, the last one ends the pass."""

    def counted(x: Tensor) -> Tensor | None:
        left.discard(site)
        changed = tap(x)
        if stop and not left:
            raise Stop
        return changed

    return counted


def check_all_fired(left: set[Site]) -> None:
    if left:
        silent = ", ".join(sorted(map(str, left)))
        raise RuntimeError(f"these sites did not fire in the forward pass: {silent}")


def guarded(tap: Tap, place: Location, site: Site) -> Tap:
    """The tap, refused if it edits what can only be read."""

    def read(x: Tensor) -> None:
        if tap(x) is not None:
            raise UserError(
                f"{site} can be read but not edited by this backend: use backend='bridge'"
            )

    return read if place.read_only else tap


def apply_tap(tap: Tap, whole: Tensor, place: Location) -> Tensor | None:
    """Call a tap with a site's part of a module's tensor; the module's new tensor, if any."""
    changed = tap(place.view.take(whole) if place.view else whole)
    return place.view.put(whole, changed) if place.view and changed is not None else changed


def _hook(module: nn.Module, place: Location, tap: Tap) -> Any:
    if place.side == "in":

        def before(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            by_position = bool(args)
            new = apply_tap(tap, args[0] if by_position else kwargs["hidden_states"], place)
            if new is None:
                return None
            if by_position:
                return (new, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": new}

        return module.register_forward_pre_hook(before, with_kwargs=True)

    def after(_: nn.Module, args: tuple, output: Any) -> Any:
        if isinstance(output, tuple):
            new = apply_tap(tap, output[place.item], place)
            item = place.item
            return None if new is None else (*output[:item], new, *output[item + 1 :])
        return apply_tap(tap, output, place)

    return module.register_forward_hook(after)
