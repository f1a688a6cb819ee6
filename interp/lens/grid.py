"""The study `lens.show`: what the stream after every layer says at every token of a prompt.

Written to the run:
`cells.parquet`: layer int, position int, token string (of the prompt there), said string (the
                likeliest token), p double (its probability), tops list<string>,
                probabilities list<double>, entropy double (nats), kl double: KL of the model's
                distribution from the lens', sum p log(p/q), nats
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..runs.study import TextStudy
from ..runs.writer import RunWriter

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor

    from .lens import Lens


@dataclass(frozen=True)
class ShowConfig(TextStudy):
    """Read the stream after every layer, at every token of a prompt, through a lens."""

    STUDY: ClassVar[str] = "lens.show"
    VERSION: ClassVar[int] = 2
    FACTS: ClassVar[dict[str, Any]] = {"lens": dict[str, Any], "lens.name": str}

    prompt: str = field(default="The capital of France is", metadata={"positional": True})
    """The text."""
    lens: str = field(default="final", metadata={"key": False})
    """final (the logit lens); tuned or jacobian, the model's newest fit or the shipped one; a run's
    folder or key; or a .safetensors or .pt file. Its fingerprint is part of the key."""
    k: int = 5
    """Tokens to keep in a cell."""

    @cached_property
    def opened_lens(self) -> Lens:
        from .files import open_lens

        if self.lens == "raw":
            raise UserError("the raw lens reads directions only: use --lens final")
        return open_lens(self.lens, self.stored_weights)

    def fingerprints(self) -> dict[str, str]:
        return {**super().fingerprints(), "lens": self.opened_lens.identity}

    def check(self) -> None:
        super().check()
        if not self.prompt:
            raise UserError("the prompt is empty: give at least one token")
        self.check_tokens(self.k)

    def run(self, out: RunWriter) -> dict[str, Any]:
        subject, lens = self.open(out), self.opened_lens
        out.facts["lens"] = lens.about
        batch = subject.tokens(self.prompt)
        layers = [layer for layer in range(subject.spec.n_layers) if lens.covers(layer)]
        states = subject.capture(batch, [f"{layer}.resid_post" for layer in layers])
        own = subject.logits(batch)[0].double().log_softmax(-1)
        said = [subject.text(token[None]) for token in batch.ids[0]]
        streams = {layer: x[0] for layer, x in zip(layers, states.values(), strict=True)}
        head = self.stored_weights.W_U().to(subject.device)
        rows = cells(lens, streams, own, said, self.k, subject.text, head)
        table = out.table("cells", rows)
        last = table[table["layer"] == layers[-1]]
        return {
            "layers": len(layers),
            "tokens": len(said),
            "largest kl after the last layer": float(last["kl"].max()),
        }


def cells(
    lens: Lens,
    streams: Mapping[int, Float[Tensor, "pos d"]],
    own: Float[Tensor, "pos v"],
    said: Sequence[str],
    k: int,
    text: Callable[[Tensor], str],
    W_U: Float[Tensor, "v d"],
) -> Iterator[dict[str, Any]]:
    """The rows of `cells`, layer by layer, for positions from 0.

    Args:
        streams: the stream after each layer.
        own: the model's log-probabilities, in float64.
        said: the tokens there.
        text: of ids.
    """
    for layer, x in streams.items():
        read = lens.logits(x, layer, W_U).double().log_softmax(-1)
        for position, cell in enumerate(_cells(read, own, k, text)):
            yield {"layer": layer, "position": position, "token": said[position], **cell}


def _cells(
    read: torch.Tensor, own: torch.Tensor, k: int, text: Callable[[Tensor], str]
) -> Iterator[dict[str, Any]]:
    """A cell a position, of the lens' log-probabilities [pos, d_vocab] and the model's."""
    tops = read.topk(k, dim=-1)
    entropy = -(read.exp() * read).sum(-1)
    kl = (own.exp() * (own - read)).sum(-1)
    for i, (ids, logs) in enumerate(zip(tops.indices, tops.values, strict=True)):
        tokens, chances = [text(each[None]) for each in ids], logs.exp().tolist()
        yield {
            "said": tokens[0],
            "p": chances[0],
            "tops": tokens,
            "probabilities": chances,
            "entropy": float(entropy[i]),
            "kl": float(kl[i]),
        }
