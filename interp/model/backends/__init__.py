"""Thin adapters that run a model with taps at its sites.

A backend has `sites`, the sites its model offers, and `run(inputs, taps, stop)`: one forward pass
in which each tap is called with its site's tensor, in forward order, and may return a replacement.
Everything else (capturing, editing, generating) is built on that in `subject.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from ..site import Site

Tap = Callable[[Tensor], Tensor | None]
"""Gets a site's tensor [batch, pos, ...]; returns its replacement, or None to leave it alone."""


class Backend(Protocol):
    """A model that can be run with taps."""

    sites: tuple[Site, ...]

    def run(self, inputs: dict[str, Any], taps: Mapping[Site, Tap], stop: bool) -> Tensor | None:
        """One forward pass over transformers' keyword inputs; the logits [batch, pos, d_vocab].

        With `stop`, the pass ends when every tap has been called, and gives None.
        """
        ...
