"""Scores of a model with and without its adapter, on the held-out parts of the data.

Tables: `answers/<setting>`: evaluate.answer_rows' columns, and part: validation, subjects,
relations; for another set than the run's own, that set's name.
`scores/scores`, a line a setting and part: setting (0-shot and 10-shot: the model without its
adapter; tuned; tuned and asked in another format or set than it was trained on), part, and
evaluate.scores' columns.

The other sets are asked of a model that was tuned on facts alone: two hops from held-out cities,
and arithmetic. Whether the model knows their facts is not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..runs.writer import RunWriter
from .adapter import open_for
from .data import PIECE, sample
from .evaluate import answer_rows, scores
from .items import FACTS, Item, read_items, split
from .prompts import Row, rows_of
from .settings import ScoreSettings, Setting

if TYPE_CHECKING:
    import pandas as pd

    from ..model.subject import Subject


def score_adapter(
    config: ScoreSettings, adapter: str, out: RunWriter, only_tuned: bool = False
) -> dict[str, Any]:
    """Score every setting (with `only_tuned`, those of the tuned model) that the run has no answers
    of yet; return PairAcc by setting and part."""
    opened: dict[str, Subject] = {}

    def answers(setting: Setting) -> pd.DataFrame:
        wanted = adapter if setting.tuned else "none"
        if wanted not in opened:
            opened.clear()  # one model in memory at a time
            opened[wanted] = open_for(config, wanted, out)
        return _answers(config, opened[wanted], setting, out)

    lines: list[dict[str, Any]] = []
    for setting in config.scored_settings():
        if setting.tuned or not only_tuned:
            table = out.table_once(f"answers/{setting.name}", partial(answers, setting))
            for part, rows in table.groupby("part", sort=False):
                lines.append({"setting": setting.name, "part": part, **scores(rows)})
    out.table("scores/scores", lines)
    return {f"pair_acc {x['setting']}, {x['part']}": x["pair_acc"] for x in lines}


def _answers(
    config: ScoreSettings, subject: Subject, setting: Setting, out: RunWriter
) -> pd.DataFrame:
    splits = config.splits(out)
    prompter = config.prompter(subject, setting.form, splits.train, setting.shots)
    asked: dict[str, list[Item]] = {name: getattr(splits, name) for name in config.parts}
    if setting.name != "tuned":
        asked.pop("validation", None)
    if setting.kind != "facts":
        others = read_items(setting.kind, FACTS, 1, config.seed)
        unseen = others if setting.kind == "arithmetic" else split(others).subjects
        asked = {setting.kind: unseen}
    rows = [
        (part, row)
        for part, items in asked.items()
        for row in rows_of(sample(items, config.test, config.seed))
    ]
    if not rows:
        raise UserError(f"the setting '{setting.name}' has no items in --parts: add a part")

    def answered(some: Sequence[tuple[str, Row]]) -> pd.DataFrame:
        parts, asked = zip(*some, strict=True)
        return answer_rows(subject, prompter, asked, config.batch_size).assign(part=parts)

    name = f"answers/{setting.name}"
    return out.in_pieces(name, rows, answered, 2 * PIECE, f"answer, {setting.name}", "prompts")
