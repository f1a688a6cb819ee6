"""A language model as an affine function of its residual stream, for one prompt.

With the attention patterns, the norms' scales and the MLPs' gates frozen as the prompt sets them,

    logits[position] = A x + r,     x [pos, d] the activations at a site

is exact. A row of A is the feature vector of one logit summed over all paths from the site
(Dunefsky & Cohan, observable propagation: their path vectors add up to it). The products row . x
split the logit among the prompt's tokens. A gated MLP (SiLU(g) u) keeps the value of SiLU(g); a
plain one (GELU) keeps the ratio gelu(z) / z of every neuron.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import UserError
from ..model.edits import Edit
from ..model.site import Site
from .interpreter import Interpreter, interpret

if TYPE_CHECKING:
    from ..model.batch import Batch
    from ..model.subject import Subject


def interpret_logits(
    subject: Subject, prompt: Batch | Tensor, site: Site, position: int = -1
) -> Interpreter:
    """The linear interpreter from a site's activations [1, pos, d] to one position's logits
    [1, d_vocab].

    Raises:
        UserError: several prompts, a site of one head or that the model lacks, an operation of the
            model that no rule replays, or a model that is split.
    """
    if site.head is not None:
        raise UserError(f"{site} is the site of one head: take a site of the whole layer")
    subject.check_whole()
    x0 = subject.capture(prompt, [site])[site]
    if len(x0) != 1:
        raise UserError(f"give one prompt, not {len(x0)}")

    def network(x: Tensor) -> Tensor:
        with subject.edited(Edit(site, lambda _: x, about="the interpreter's input")):
            return subject.logits(prompt)[:, position]

    return interpret(network, x0)
