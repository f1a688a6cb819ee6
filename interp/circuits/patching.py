"""The study `circuits.patch`: activation patching, place by place.

    moved = (value with the patch - value) / (value of the source - value)

One prompt runs with the activation at one place of a site replaced by that of the other prompt; the
target's value says how much of the gap between the two this place carries: 0 nothing, 1 all of it.
Into the prompt (noising) it asks what is necessary, into its counterfactual (denoising) what is
enough; they differ where a part has a backup. Meng et al. 2022, "Locating and editing factual
associations in GPT" (there with noise in place of the other prompt); Zhang & Nanda 2024, "Towards
best practices of activation patching" (a counterfactual prompt, and the difference of two logits).
Shares of places need not add up to 1: each is measured alone, and may be below 0 or above 1.

Naive equivalent: a pass a place with `edits.patch`.

Tables of the run:
`cells.parquet`: layer int, head int (-1: the site has none), position int (-1: all together, not
    the last), token
    string (of the prompt that is run, at the position), other string (of the source there), value
    double (the target with the patch), difference double (value - own), moved double

The metric `gap` is prompt - counterfactual, as in circuits.truth, whichever of them runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args

from ..errors import UserError
from ..model.site import Site
from ..obsprop.task_files import Task, read_task
from ..runs.study import TextStudy
from ..runs.writer import RunWriter
from .asked import asked_target, check_pair, check_texts, task_print, tokens_of

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from ..model.batch import Batch
    from ..model.subject import Subject
    from .target import Target

Kind = Literal["resid_pre", "resid_mid", "attn_out", "mlp_out", "head_z"]
ALL = -1
"""The position of a cell that patches all positions together."""
NUMBERS = 2**26
"""Logits that a pass makes at most (256 MB in float32)."""


def said_position(position: int) -> int | str:
    """A cell's position as it is shown; `--at -1` means the last, so that ALL is said in words."""
    return "all" if position == ALL else position


class Cell(NamedTuple):
    """What one pass patches."""

    layer: int
    head: int
    position: int

    def site(self, kind: Kind) -> Site:
        return Site(kind, self.layer, self.head if kind == "head_z" else None)


@dataclass(frozen=True)
class PatchConfig(TextStudy):
    """Patch activations of one prompt into another, place by place, and see what moves the
    target."""

    STUDY: ClassVar[str] = "circuits.patch"
    VERSION: ClassVar[int] = 2

    prompt: str = "The keys to the cabinet"
    """The text."""
    counterfactual: str = "The key to the cabinet"
    """The same with something changed, in as many tokens."""
    target: str = " are"
    """The token whose logit is the target."""
    against: str = " is"
    """A token whose logit is subtracted; with "" the mean over the vocabulary is."""
    observable: str = ""
    """An observable in the place of both tokens, and its pair in that of the prompts unless others
    are given: a shipped one by its name, or a file."""
    site: Kind = "resid_pre"
    """What is patched: the stream before or inside a layer, what attention or the MLP adds, or one
    head's values."""
    at: str = ""
    """Positions: each (one at a time), all (together), or the number of one, -1 for the last; by
    default each, and for head_z all."""
    into: Literal["prompt", "counterfactual"] = "prompt"
    """The one that runs; activations of the other are patched into it."""
    batch_size: int = 32
    """Places in a pass."""

    @cached_property
    def task(self) -> Task | None:
        return read_task(self.observable) if self.observable else None

    @property
    def texts(self) -> tuple[str, str]:
        """The prompt and the counterfactual."""
        own, usual = (self.prompt, self.counterfactual), (_USUAL.prompt, _USUAL.counterfactual)
        return self.task.pair if self.task and own == usual else own

    def fingerprints(self) -> dict[str, str]:
        return {**super().fingerprints(), **task_print(self.task)}

    def check(self) -> None:
        super().check()
        prompt, counterfactual = self.texts
        tokens = (self.target, self.against)
        if self.observable and tokens != (_USUAL.target, _USUAL.against):
            raise UserError("--observable names its own tokens: leave out --target and --against")
        for name, allowed in (("site", get_args(Kind)), ("into", ("prompt", "counterfactual"))):
            if getattr(self, name) not in allowed:
                raise UserError(f"--{name} is one of {', '.join(allowed)}")
        if not (prompt.strip() and counterfactual.strip()):
            raise UserError("give a --prompt and a --counterfactual: one is empty")
        if prompt == counterfactual:
            raise UserError("the prompt and its counterfactual are the same: change one")
        if self.batch_size < 1:
            raise UserError("--batch-size must be at least 1")
        if not self.observable:
            self.check_words(*tokens)
        check_texts(self.prompting, (prompt, counterfactual))
        number, length = self._number(), len(self.prompting.ids(prompt))
        if number is not None and not -length <= number < length:
            raise UserError(f"there is no position {number}: the prompts have {length} tokens")

    @property
    def places(self) -> str:
        """each, all, or a number."""
        return self.at.strip() or ("all" if self.site == "head_z" else "each")

    def _number(self) -> int | None:
        """The one position that is asked for; None for each or all."""
        if self.places in ("each", "all"):
            return None
        try:
            return int(self.places)
        except ValueError:
            raise UserError(
                f"--at is each, all or a number of a position, not '{self.at}'"
            ) from None

    def run(self, out: RunWriter) -> dict[str, Any]:
        subject = self.open(out)
        pair = [subject.tokens(text) for text in self.texts]
        said = [tokens_of(subject, batch) for batch in pair]
        check_pair(*said)
        out.facts["prompts"] = list(self.texts)
        target = asked_target(subject, self.stored_weights, self.target, self.against, self.task)
        prompt, counterfactual = (float(target.value(subject.logits(batch))) for batch in pair)
        turned = self.into == "counterfactual"
        own, other = (counterfactual, prompt) if turned else (prompt, counterfactual)
        run, source = reversed(pair) if turned else pair
        texts, others = reversed(said) if turned else said
        cells = self._cells(subject, len(texts))
        there = subject.capture(source, [f"*.{self.site}"])
        size = min(self.batch_size, max(1, NUMBERS // (len(texts) * subject.spec.d_vocab)))

        def rows(some: Sequence[Cell]) -> list[dict[str, Any]]:
            values = patched(subject, target, run, there, some, self.site)
            return [
                {
                    **cell._asdict(),
                    "token": texts[cell.position] if cell.position != ALL else "",
                    "other": others[cell.position] if cell.position != ALL else "",
                    "value": value,
                    "difference": value - own,
                    "moved": (value - own) / (other - own) + 0.0 if other != own else float("nan"),
                }
                for cell, value in zip(some, values, strict=True)
            ]

        table = out.in_pieces("cells", cells, rows, size, "patch", "places")
        out.table("cells", table)
        return {
            "target": target.name,
            "prompt": prompt,
            "counterfactual": counterfactual,
            "gap": prompt - counterfactual,
            "places": len(cells),
            "largest moved": float(table["moved"].max()),
            "smallest moved": float(table["moved"].min()),
        }

    def _cells(self, subject: Subject, length: int) -> list[Cell]:
        """In the order of the table."""
        layers = [site.layer for site in subject.matching([f"*.{self.site}"])]
        number = self._number()
        each = range(length) if self.places == "each" else [ALL]
        positions = each if number is None else [number % length]
        heads = range(subject.spec.n_heads) if self.site == "head_z" else [-1]
        return [
            Cell(layer, head, position)
            for layer in layers
            if layer is not None
            for head in heads
            for position in positions
        ]


_USUAL = PatchConfig()


def patched(
    subject: Subject,
    target: Target,
    batch: Batch,
    there: Mapping[Site, Float[Tensor, "1 pos ..."]],
    cells: Sequence[Cell],
    kind: Kind,
) -> list[float]:
    """The target's value with each cell patched: one pass, a row a cell.

    Args:
        batch: the prompt that runs.
        there: the other's activations at the whole sites.
    """
    import torch

    from ..model.batch import Batch
    from ..model.edits import head_of, patch

    rows = len(cells)
    masks: dict[Site, Tensor] = {}
    for row, cell in enumerate(cells):
        mask = masks.setdefault(cell.site(kind), torch.zeros(rows, batch.ids.shape[1]).bool())
        mask[row, slice(None) if cell.position == ALL else cell.position] = True
    edits = [
        patch(site, head_of(there[site.whole], site).expand(rows, -1, -1), mask)
        for site, mask in masks.items()
    ]
    many = Batch(batch.ids.expand(rows, -1), batch.mask.expand(rows, -1))
    with torch.no_grad(), subject.edited(*edits):
        values: list[float] = target.value(subject.logits(many)).tolist()
    return values
