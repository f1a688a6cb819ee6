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
    rows: int = 1,
) -> Any:
    """What `call` returns, with the taps hooked on for its time; None if it was stopped early.

    With `stop` the pass ends when every tap has been called. `rows` is how many rows the input has.
    """
    left = set(taps)
    with ExitStack() as hooks:
        for site, tap in taps.items():
            place = locations[site]
            counted = counting(tap, site, left, stop, place.read_only)
            hooks.callback(_hook(model.get_submodule(place.module), counted, place, rows).remove)
        try:
            output = call()
        except Stop:
            return None
    check_all_fired(left)
    return output


def counting(tap: Tap, site: Site, left: set[Site], stop: bool, read_only: bool = False) -> Tap:
    """The tap, taking its site off `left`; with `stop`, the last one ends the pass. Refused if it
    edits what can only be read."""

    def counted(x: Tensor) -> Tensor | None:
        left.discard(site)
        changed = tap(x)
        if read_only and changed is not None and changed is not x:
            raise UserError(
                f"{site} can be read but not edited by this backend: use backend='bridge'"
            )
        if stop and not left:
            raise Stop
        return None if read_only else changed

    return counted


def check_all_fired(left: set[Site]) -> None:
    if left:
        silent = ", ".join(sorted(map(str, left)))
        raise RuntimeError(f"these sites did not fire in the forward pass: {silent}")


def apply_tap(tap: Tap, value: Any, place: Location, rows: int = 1) -> Any:
    """Call a tap with a site's part of a module's input or output; the new one of it, if any."""
    given = value[place.item] if isinstance(value, tuple) else value
    whole = given.unflatten(0, (rows, -1)) if place.flat and given.ndim == 2 else given
    new = tap(place.view.take(whole) if place.view else whole)
    if new is None:
        return None
    new = (place.view.put(whole, new) if place.view else new).reshape(given.shape)
    if isinstance(value, tuple):
        return (*value[: place.item], new, *value[place.item + 1 :])
    return new


def _hook(module: nn.Module, tap: Tap, place: Location, rows: int) -> Any:
    if place.side == "out":
        return module.register_forward_hook(lambda _, args, out: apply_tap(tap, out, place, rows))

    def before(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        if args:
            new = apply_tap(tap, args, place, rows)
            return None if new is None else (new, kwargs)
        new = apply_tap(tap, kwargs["hidden_states"], place, rows)
        return None if new is None else (args, {**kwargs, "hidden_states": new})

    return module.register_forward_pre_hook(before, with_kwargs=True)
