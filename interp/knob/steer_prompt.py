"""Steer one prompt, a context and a question, to several values of c: `interp knob steer`.

Table `curve/values`: c double (null = not steered), tokens list of string and probabilities list of
double (the likeliest first tokens), text string (the greedy answer); p_told and p_prior double (of
the first tokens of the context's and the prior answer, where these are given).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..model.vocabulary import check_chat_template
from ..plain_path import lacks, plain_path
from ..progress import progress
from ..runs.writer import RunWriter
from .adapter import SHIPPED, TunedModelStudy, open_for
from .items import Item
from .prompts import Prompter, Row, Template

if TYPE_CHECKING:
    from ..directions import Directions
    from ..model.subject import Subject

TOP = 8
"""Likeliest first tokens to keep."""
KNOB_FILES = ("directions.json", "vectors.safetensors", "index.parquet")


@dataclass(frozen=True)
class SteerConfig(TunedModelStudy):
    """Steer your own context and question with the knob."""

    STUDY: ClassVar[str] = "knob.steer"
    VERSION: ClassVar[int] = 1

    knob: str = "shipped"
    """A folder of directions from `interp knob learn`; "shipped" for the workbench's own."""
    direction: str = "learned"
    """The knob's direction to steer along."""
    context: str = "The capital of France is Rome."
    """The statement in the prompt."""
    query: str = "The capital of France is"
    """The question in the prompt."""
    told: str = ""
    """The context's answer; give it to read its probability."""
    prior: str = ""
    """The answer without the context; give it to read its probability."""
    value: tuple[float, ...] = ()
    """Values of c; by default from beyond one intent's chosen value to beyond the other's."""
    template: Template = "chat"
    """Prompts in the model's chat template, or in plain blocks."""

    def fingerprints(self) -> dict[str, str]:
        from ..model.files import sha256

        folder = knob_folder(self.knob)
        return {**super().fingerprints(), **{name: sha256(folder / name) for name in KNOB_FILES}}

    def check(self) -> None:
        """Raise UserError for settings that cannot work."""
        super().check()
        if not self.query.strip():
            raise UserError("the query is empty: give --query some text")
        if not all(math.isfinite(c) for c in self.value):
            raise UserError("--value takes finite numbers")
        pick_direction(read_knob(self.knob), self.direction)
        if self.template == "chat":
            check_chat_template(self.stored_weights.folder, self.model, "--template plain")

    def run(self, out: RunWriter) -> dict[str, Any]:
        subject = open_for(self, self.adapter, out)
        direction = pick_direction(read_knob(self.knob), self.direction)
        prior, told = self.prior.strip(), self.told.strip()
        item = Item("own", "own", self.context, self.query, prior, told)
        prompter = Prompter(subject.prompting, template=self.template)
        if prior and told and not prompter.first_tokens_differ(item):
            raise UserError(f"'{told}' and '{prior}' begin with the same token: leave one out")
        values = self.value or default_values(direction)
        rows = steering_curve(subject, item, direction, [None, *values], template=self.template)
        out.table("curve/values", rows)
        named = (("rest" if row["c"] is None else f"{row['c']:.9g}", row["text"]) for row in rows)
        return {"site": str(direction.site), **{f"text at {c}": text for c, text in named}}


def knob_folder(name: str) -> Path:
    """The folder of a knob's directions, "shipped" or a path.

    Raises:
        UserError: the folder lacks one of the files.
    """
    folder = SHIPPED / "knob" if name == "shipped" else plain_path(name)
    missing = [file for file in KNOB_FILES if not (folder / file).is_file()]
    if missing:
        why = lacks(folder, missing[0])
        raise UserError(f"{folder} holds no knob ({why}): `interp knob learn` learns one")
    return folder


def read_knob(name: str) -> Directions:
    """A knob and its baselines.

    Raises:
        UserError: no directions there, or directions that are not a knob's.
    """
    from ..directions import Directions

    knob = Directions.load(knob_folder(name))
    missing = {"context_c", "prior_c"} - set(knob.index.columns)
    if missing:
        raise UserError(f"the directions in {name} are not a knob: they lack {', '.join(missing)}")
    return knob


def pick_direction(knob: Directions, name: str) -> Directions:
    """One of a knob's directions by its name."""
    if name not in knob.names:
        raise UserError(f"there is no direction '{name}': this knob has {', '.join(knob.names)}")
    return knob.pick([knob.names.index(name)])


def default_values(direction: Directions) -> tuple[float, ...]:
    """Nine values, from a quarter of their distance beyond one chosen c to as far beyond the
    other."""
    ends = sorted(float(direction.index[name].iloc[0]) for name in ("context_c", "prior_c"))
    margin = (ends[1] - ends[0]) / 4
    start, step = ends[0] - margin, (ends[1] - ends[0] + 2 * margin) / 8
    return tuple(round(start + step * n, 3) for n in range(9))


def steering_curve(
    subject: Subject,
    item: Item,
    direction: Directions,
    values: Sequence[float | None],
    template: Template = "chat",
) -> list[dict[str, Any]]:
    """The rows of `curve/values`: u.h held at each value (None: not steered)."""
    import torch

    from ..model.edits import set_coordinate
    from .evaluate import answer_texts
    from .last_token_cache import CachedPrompts

    prompter = Prompter(subject.prompting, "none", template=template)
    prompt = CachedPrompts(subject, [prompter.ids(Row(item, "context"))])
    site, vector = direction.site, direction.vectors[0]
    rows = []
    with progress("steer the prompt", len(values), "values") as advance:
        for c in values:
            edits = [] if c is None else [set_coordinate(site, vector, c, "last")]
            logits = prompt.run(edits).logits[0].double()
            if not torch.isfinite(logits).all():
                raise UserError(f"the logits are not finite at c = {c}: give a smaller --value")
            probabilities = logits.softmax(-1)
            top = probabilities.topk(TOP)
            row: dict[str, Any] = {"c": c, "text": answer_texts(subject, prompt, edits)[0]}
            row["tokens"] = [subject.text(i[None]) for i in top.indices]
            row["probabilities"] = top.values.tolist()
            for name, answer in (("p_told", item.context_answer), ("p_prior", item.prior_answer)):
                if answer:
                    row[name] = float(probabilities[prompter.first_token(answer)])
            rows.append(row)
            advance(1)
    return rows
