"""A batch that is passed many times under edits: what the layers before the first edit make of it
is kept, so that each pass begins at that layer.

    again = Again(subject, batch)
    for edit in edits:
        with subject.edited(edit):
            again.logits()          # to the bit what subject.logits(batch) gives

A layer reads what the layer before gives, and nothing else of it; a model of which that is not so
(tried on a probe, once), a split one and other backends' run whole passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .backends.native import NativeBackend
from .batch import Batch
from .identities import probe_rows
from .site import Site
from .subject import Subject


class Again:
    """Passes of one batch. It keeps the stream behind the layers that it has come through without
    an edit: [batch, pos, d_model] numbers a layer."""

    def __init__(self, subject: Subject, batch: Batch) -> None:
        self._subject, self._batch = subject, batch
        self._stream = _Stream(_layers(subject))

    def of(self, batch: Batch) -> bool:
        """Whether it is this batch that is passed."""
        return all(map(torch.equal, batch, self._batch))

    def logits(self, changed: int | None = None) -> Float[Tensor, "batch pos d_vocab"]:
        """As `Subject.logits`, edits in scope applied.

        Args:
            changed: the first layer with other weights than in the other calls, if there is one.
        """
        with self._begun([], changed):
            return self._subject.logits(self._batch)

    def capture(
        self, sites: Sequence[Site], changed: int | None = None
    ) -> dict[Site, Float[Tensor, "batch pos ..."]]:
        """As `Subject.capture`, of sites and no globs; `changed` is as in `logits`."""
        with self._begun(sites, changed):
            return self._subject.capture(self._batch, sites)

    def _begun(self, read: Sequence[Site], changed: int | None) -> AbstractContextManager[None]:
        """A pass from the first layer on that is edited, read or has other weights."""
        sites = [*read, *(edit.site for edit in self._subject.edits)]
        # a module may stand anywhere
        layers = [changed, *(0 if site.module is not None else site.layer for site in sites)]
        known = [layer for layer in layers if layer is not None]
        return self._stream.up_to(min(known, default=self._subject.spec.n_layers))


class _Stream:
    """What layers have given in earlier passes of a batch."""

    def __init__(self, layers: list[nn.Module]) -> None:
        self._layers = layers
        self._given: list[Any] = []
        """Of the first layers, in order."""

    @contextmanager
    def up_to(self, first: int) -> Iterator[None]:
        """A pass in which the layers before the first run only if they have not yet."""
        begin = min(first, len(self._given))
        with ExitStack() as stack:
            given = _copied(self._given[begin - 1]) if begin else None
            for layer in self._layers[:begin]:
                stack.enter_context(_gives(layer, given))
            for layer in self._layers[begin:first]:
                hook = layer.register_forward_hook(self._keep)
                stack.callback(hook.remove)
            yield

    def _keep(self, layer: nn.Module, args: Any, out: Any) -> None:
        self._given.append(_copied(out))


def _copied(given: Any) -> Any:
    """What a layer gives, for an edit may change it in place."""
    if isinstance(given, tuple):
        return tuple(map(_copied, given))
    return given.clone() if isinstance(given, torch.Tensor) else given


@contextmanager
def _gives(layer: nn.Module, given: Any) -> Iterator[None]:
    """A layer that does nothing but give what is known."""
    before = layer.__dict__.get("forward")
    layer.forward = lambda *args, **kwargs: given  # type: ignore[method-assign]
    try:
        yield
    finally:
        del layer.forward
        if before is not None:
            layer.forward = before  # type: ignore[method-assign]


def _layers(subject: Subject) -> list[nn.Module]:
    """The modules of the layers, if passes may begin at them."""
    if "layers" not in subject.beside:
        backend, names = subject._backend, subject.spec.family.layer
        found: list[nn.Module] = []
        if isinstance(backend, NativeBackend) and not subject.split:
            own = (backend.names.own(names.format(i)) for i in range(subject.spec.n_layers))
            found = [backend.model.get_submodule(name) for name in own]
        subject.beside["layers"] = found if found and _read_the_stream(subject, found) else []
    layers: list[nn.Module] = subject.beside["layers"]
    return layers


def _read_the_stream(subject: Subject, layers: list[nn.Module]) -> bool:
    """Whether passes from a layer on are to the bit what whole ones are: from the middle, and of
    the last layer alone, which is where some architectures read what far earlier ones made."""
    ids, mask = probe_rows(subject.spec.d_vocab, subject.context)
    probe, stream = Batch(ids.to(subject.device), mask.to(subject.device)), _Stream(layers)
    edits, subject.edits = subject.edits, ()
    try:
        with stream.up_to(len(layers)):
            whole = subject.logits(probe)
        for first in (len(layers) // 2, len(layers) - 1):
            with stream.up_to(first):
                if not torch.equal(subject.logits(probe), whole):
                    return False
        return True
    finally:
        subject.edits = edits
