"""The loss of a model on contexts, with something else in the place of a site's activations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..model.again import Again
from ..model.edits import patch
from ..model.site import HEAD_KINDS, Site
from ..model.subject import Subject
from .contexts import Contexts


class Replaced:
    """Passes of a batch of contexts, each with something else at a site's chosen positions; what
    comes before the site is computed once (`Again`)."""

    def __init__(self, subject: Subject, site: Site, part: Contexts) -> None:
        self._subject, self._site, self._part = subject, site, part
        self._again = Again(subject, part.batch)

    def losses(self, kept: Float[Tensor, "n d"] | None) -> Float[Tensor, "batch pos"]:
        """Cross-entropy of the next token in nats, as `Contexts.losses`, with the activations of
        the chosen positions replaced; the others stay.

        Args:
            kept: what stands at each chosen position, at a site of all heads head by head; None to
                replace nothing.
        """
        if kept is None:
            return self._part.losses(self._again.logits())
        shape = _heads(self._subject, self._site, kept.shape[-1])
        source = torch.zeros(*self._part.batch.ids.shape, *shape)
        source[self._part.chosen.cpu()] = kept.float().view(-1, *shape)
        with self._subject.edited(patch(self._site, source, self._part.chosen)):
            return self._part.losses(self._again.logits())


def _heads(subject: Subject, site: Site, width: int) -> tuple[int, ...]:
    """How the numbers of a token stand at the site: head by head at a site of all heads."""
    if site.kind not in HEAD_KINDS or site.head is not None:
        return (width,)
    return (width // subject.spec.d_head, subject.spec.d_head)
