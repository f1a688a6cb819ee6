"""The loss of a model on contexts, with something else in the place of a site's activations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..model.edits import patch
from ..model.site import HEAD_KINDS, Site
from ..model.subject import Subject
from .contexts import Contexts


def replaced_losses(
    subject: Subject, site: Site, part: Contexts, kept: Float[Tensor, "n d"]
) -> Float[Tensor, "batch pos"]:
    """Cross-entropy of the next token in nats, as `Contexts.losses`, with the activations of the
    chosen positions replaced; the others stay.

    Args:
        kept: what stands at each chosen position; at a site of all heads, head by head.
    """
    shape = _heads(subject, site, kept.shape[-1])
    source = torch.zeros(*part.batch.ids.shape, *shape)
    source[part.chosen.cpu()] = kept.float().view(-1, *shape)
    change = patch(site, source, part.chosen)
    with subject.edited(change):
        return part.losses(subject.logits(part.batch))


def _heads(subject: Subject, site: Site, width: int) -> tuple[int, ...]:
    """How the numbers of a token stand at the site: head by head at a site of all heads."""
    if site.kind not in HEAD_KINDS or site.head is not None:
        return (width,)
    return (width // subject.spec.d_head, subject.spec.d_head)
