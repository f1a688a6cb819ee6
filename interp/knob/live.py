"""One context and question at several turns of the knob: `interp knob steer`.

Table `curve/values.parquet`: c double (null = not turned), tokens list of string and probabilities
list of double (the likeliest first tokens), text string (the greedy answer), and, if the two
answers are named, p_told and p_prior double (of their first tokens).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..progress import progress
from ..runs.store import RunWriter
from .adapter import adapter_fingerprint
from .items import Item
from .prompts import Format, Prompter, Row, Template

if TYPE_CHECKING:
    from ..directions import Directions
    from ..model.subject import Subject

TOP = 8
KNOB_FILES = ("directions.json", "vectors.safetensors", "index.parquet")


@dataclass(frozen=True)
class SteerConfig:
    """Turn the knob on a context and a question of one's own."""

    STUDY: ClassVar[str] = "knob.steer"
    VERSION: ClassVar[int] = 1

    model: str = "smollm2-135m"
    """A catalog name, hub id or folder."""
    adapter: str = "shipped"
    """The adapter's folder; "shipped", or "none" for the model as it comes."""
    knob: str = "shipped"
    """A folder of directions that `interp knob learn` left; "shipped" for the workbench's own."""
    direction: str = "learned"
    """Which of its directions to turn."""
    context: str = "The capital of France is Rome."
    """What the context says."""
    query: str = "The capital of France is"
    """What is asked."""
    told: str = ""
    """The context's answer, if its probability is to be read."""
    prior: str = ""
    """The answer without it, likewise."""
    value: tuple[float, ...] = ()
    """Values of c; by default from beyond one intent's chosen value to beyond the other's."""
    template: Template = "chat"
    """Prompts in the model's chat template, or in plain blocks."""
    device: str = field(default="cpu", metadata={"key": False})
    """Where to compute."""

    def fingerprints(self) -> dict[str, str]:
        from ..model.catalog import sha256
        from ..model.weights import open_weights

        return {
            **open_weights(self.model).fingerprints(),
            "adapter": adapter_fingerprint(self.adapter),
            **{name: sha256(knob_file(self.knob, name)) for name in KNOB_FILES},
        }

    def check(self) -> None:
        """Raise UserError for settings that cannot work."""
        if not self.query.strip():
            raise UserError("the query is empty: give --query some text")
        if not all(math.isfinite(c) for c in self.value):
            raise UserError("--value takes finite numbers")
        pick(read_knob(self.knob), self.direction)

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd

        from ..model.subject import open_subject
        from .adapter import merged
        from .subspace import first_tokens_differ

        subject = (
            open_subject(self.model, device=self.device)
            if self.adapter == "none"
            else merged(self.model, self.adapter, self.device)
        )
        one = pick(read_knob(self.knob), self.direction)
        prior, told = self.prior.strip(), self.told.strip()
        item = Item("own", "own", self.context, self.query, prior, told)
        prompter = Prompter(subject.tokenizer, template=self.template)
        if prior and told and not first_tokens_differ(prompter, item):
            raise UserError(f"'{told}' and '{prior}' begin with the same token: leave one out")
        values = self.value or default_values(one)
        rows = turned(subject, item, one, [None, *values], template=self.template)
        with out.part("curve/values.parquet") as path:
            pd.DataFrame(rows).to_parquet(path)
        return {"site": str(one.site), **{f"text at {c}": t for c, t in _texts(rows)}}


def knob_folder(name: str) -> Path:
    """The folder of a knob's directions, "shipped" or a path."""
    from interp.data import FOLDER

    shipped = FOLDER / "knob" / "smollm2-135m" / "knob"
    return shipped if name == "shipped" else Path(name).expanduser()


def knob_file(name: str, file: str) -> Path:
    """A file of a knob's folder.

    Raises:
        UserError: there is none.
    """
    path = knob_folder(name) / file
    if not path.is_file():
        raise UserError(
            f"{knob_folder(name)} holds no knob (no {file}): `interp knob learn` makes one"
        )
    return path


def read_knob(name: str) -> Directions:
    """A knob and its baselines.

    Raises:
        UserError: no directions there, or others.
    """
    from ..directions import Directions

    found = Directions.load(knob_folder(name))
    missing = {"direction", "context_c", "prior_c"} - set(found.index.columns)
    if missing:
        raise UserError(f"the directions in {name} are no knob: they have no {', '.join(missing)}")
    return found


def pick(knob: Directions, direction: str) -> Directions:
    """One of a knob's directions by its name."""
    names = [str(name) for name in knob.index["direction"]]
    if direction not in names:
        raise UserError(f"no direction '{direction}': this knob has {', '.join(names)}")
    return knob.pick([names.index(direction)])


def default_values(one: Directions) -> tuple[float, ...]:
    """Nine values from a quarter beyond one chosen c to a quarter beyond the other."""
    ends = sorted(float(one.index[name].iloc[0]) for name in ("context_c", "prior_c"))
    margin = (ends[1] - ends[0]) / 4
    start, step = ends[0] - margin, (ends[1] - ends[0] + 2 * margin) / 8
    return tuple(round(start + step * n, 3) for n in range(9))


def turned(
    subject: Subject,
    item: Item,
    one: Directions,
    values: Sequence[float | None],
    form: Format = "none",
    template: Template = "chat",
) -> list[dict[str, Any]]:
    """The table above, a line a value."""
    import torch

    from ..model.edits import set_coordinate
    from .evaluate import answered
    from .last import LastToken

    prompter = Prompter(subject.tokenizer, form, template=template)
    last = LastToken(subject, [prompter.ids(Row(item, "context"))])
    rows = []
    with progress("turn the knob", len(values), "values") as advance:
        for c in values:
            edits = [] if c is None else [set_coordinate(one.site, one.vectors[0], c, "last")]
            logits = last.run(edits).logits[0].double()
            if not torch.isfinite(logits).all():
                raise UserError(f"the model's logits are not finite at c = {c}: turn it less")
            chances = logits.softmax(-1)
            top = chances.topk(TOP)
            row: dict[str, Any] = {"c": c, "text": answered(subject, last, edits)[0]}
            row["tokens"] = [subject.tokenizer.decode([i]) for i in top.indices.tolist()]
            row["probabilities"] = top.values.tolist()
            for name, answer in (("p_told", item.told), ("p_prior", item.prior)):
                if answer:
                    row[name] = float(chances[prompter.answer_ids(answer)[0]])
            rows.append(row)
            advance(1)
    return rows


def _texts(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [("rest" if row["c"] is None else f"{row['c']:.9g}", row["text"]) for row in rows]
