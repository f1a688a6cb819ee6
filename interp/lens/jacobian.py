"""The Jacobian lens: what a change of the stream after a layer makes of the last layer's.

    J_l = mean over prompts of (1/|V|) sum over t in V, t' in V, t' >= t, of d h_L[t'] / d h_l[t]

h_l is the output of block l, h_L that of the last block, before the final norm. V are the
positions of a prompt but the first `skip` (attention sinks) and the last, which has no next token.
Effects are summed over targets and averaged over sources. Gurnee et al. 2026, "Verbalizable
representations form a global workspace in language models".

One forward pass and d_model backward passes a batch of prompts: each has a one-hot cotangent in one
coordinate of h_L at all valid positions at once, and gives that row of J for every layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..model.batch import Batch
from ..model.site import Site
from ..model.subject import Subject


def sources(subject: Subject) -> list[Site]:
    """The sites of all blocks' outputs, but for the last, whose J is the identity."""
    return [Site("resid_post", layer) for layer in range(subject.spec.n_layers - 1)]


def valid(length: int, skip: int) -> Float[Tensor, " pos"]:
    """1 at the positions of a prompt that count, 0 elsewhere."""
    counts = torch.zeros(length)
    counts[skip : length - 1] = 1
    return counts


def prompt_rows(
    subject: Subject,
    rows: Sequence[Sequence[int]],
    skip: int,
    first: int = 0,
    end: int | None = None,
) -> Iterator[tuple[int, Float[Tensor, "layers prompts d"]]]:
    """Row by row of J, from `first` to before `end`: (i, J_l[i, :] of every prompt and source
    layer).

    Args:
        rows: prompts of the same length.
        end: by default d, so that the last one comes too.
    """
    batch: Batch = subject.pad(rows)
    last = Site("resid_post", subject.spec.n_layers - 1)
    linked = subject.linked(batch, [*sources(subject), last])
    target = linked.pop(last)
    counts = valid(batch.ids.shape[1], skip).to(target)
    share = (counts / counts.sum())[None, :, None]
    end = target.shape[-1] if end is None else end
    for i in range(first, end):
        cotangent = torch.zeros_like(target)
        cotangent[..., i] = counts
        gradients = torch.autograd.grad(
            target, list(linked.values()), cotangent, retain_graph=i + 1 < end
        )
        yield i, torch.stack([(gradient * share).sum(1) for gradient in gradients])
