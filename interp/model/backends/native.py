"""Plain torch hooks on the transformers model: the fastest backend, and the default.

It changes nothing of the model: hooks are put on for one pass and taken off after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..families import ModelSpec, Names
from ..site import Site
from . import Tap
from .hooks import hooked_pass
from .locations import locations
from .midstream import through_attention, with_mid


class NativeBackend:
    """A transformers causal LM run with forward hooks."""

    def __init__(self, model: Any, spec: ModelSpec) -> None:
        self.model = model
        self.names = Names(spec.family, model.state_dict().keys())
        self._locations = locations(spec, model)
        self.sites = with_mid(self._locations, spec)

    def run(self, inputs: dict[str, Any], taps: Mapping[Site, Tap], stop: bool) -> Tensor | None:
        moved = through_attention(taps)
        output = hooked_pass(
            self.model, self._locations, moved, stop, lambda: self.model(**inputs),
            rows=len(inputs["input_ids"]),
        )  # fmt: skip
        return None if output is None else output.logits
