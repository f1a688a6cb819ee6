"""Scores of a model with and without its adapter, on the held-out parts of the data.

`answers/<setting>.parquet`: see evaluate.answer_rows, and `part`: validation, subjects, relations,
or, for sets that are not the run's own, that set's name.
`scores/scores.parquet`, a line a setting and part: setting (0-shot, 10-shot: the model as it comes;
tuned; with a format or a set that it was not tuned on), part, and evaluate.scores' columns.

Other sets are asked of a model that was tuned on facts alone: two hops from held-out cities, and
arithmetic. What of them the model knows is not asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..errors import UserError
from ..runs.store import RunWriter
from .data import open_tuned, some
from .evaluate import answer_rows, demonstrations, scores
from .items import FACTS, Item, Kind, read_items, split
from .prompts import Format, Prompter, rows_of

if TYPE_CHECKING:
    import pandas as pd

    from .finetune import FinetuneConfig

SHOTS = 10
Part = Literal["validation", "subjects", "relations"]


class Setting(NamedTuple):
    """How a model is asked."""

    name: str
    tuned: bool
    form: Format = "instruction"
    shots: int = 0
    kind: Kind = "facts"
    """What it is asked; the run's own items, if it is what the run is about."""


SETTINGS = (
    Setting("tuned", True),
    Setting("tuned, float", True, form="float"),
    Setting("tuned, two-hop", True, kind="two-hop"),
    Setting("tuned, arithmetic", True, kind="arithmetic"),
    Setting("0-shot", False),
    Setting(f"{SHOTS}-shot", False, shots=SHOTS),
)


def settings_of(config: FinetuneConfig) -> list[Setting]:
    """The settings asked for; by default those that the parts have items for, other sets only
    beside the shipped facts."""
    others = config.kind == "facts" and not config.facts
    found = [x for x in SETTINGS if x.kind == "facts" or others]
    if config.settings:
        return [x for x in found if x.name in config.settings]
    return found if set(config.parts) != {"validation"} else found[:1]


def score_adapter(
    config: FinetuneConfig, adapter: str, out: RunWriter, only_tuned: bool = False
) -> dict[str, Any]:
    """Score every setting (of the tuned model) that the run has no answers of yet; PairAcc by
    setting and part."""
    import pandas as pd

    subject, loaded = None, ""
    lines: list[dict[str, Any]] = []
    for setting in settings_of(config):
        if only_tuned and not setting.tuned:
            continue
        part = f"answers/{setting.name}.parquet"
        if not out.has(part):
            wanted = adapter if setting.tuned else "none"
            if subject is None or loaded != wanted:
                subject, loaded = open_tuned(config, wanted), wanted
            table = _answers(config, subject, setting, out)
            with out.part(part) as path:
                table.to_parquet(path)
        answers = pd.read_parquet(out.path / part)
        for name, rows in answers.groupby("part", sort=False):
            lines.append({"setting": setting.name, "part": name, **scores(rows)})
    with out.part("scores/scores.parquet") as path:
        pd.DataFrame(lines).to_parquet(path)
    return {f"pair_acc {x['setting']}, {x['part']}": x["pair_acc"] for x in lines}


def _answers(
    config: FinetuneConfig, subject: Any, setting: Setting, out: RunWriter
) -> pd.DataFrame:
    import pandas as pd

    splits = config.splits(out)
    shots = demonstrations(splits.train, setting.shots, config.seed) if setting.shots else []
    prompter = Prompter(subject.tokenizer, setting.form, shots, config.template)
    parts: dict[str, list[Item]] = {part: getattr(splits, part) for part in config.parts}
    if setting.name != "tuned":
        parts.pop("validation", None)
    if setting.kind != "facts":
        parts = {setting.kind: _other_set(setting.kind, config.seed)}
    tables = []
    for part, items in parts.items():
        rows = rows_of(some(items, config.test, config.seed))
        if rows:
            answers = answer_rows(subject, prompter, rows, config.batch_size)
            tables.append(answers.assign(part=part))
    if not tables:
        raise UserError(f"the setting '{setting.name}' has no items in the parts asked for")
    return pd.concat(tables)


def _other_set(kind: Kind, seed: int) -> list[Item]:
    """Items whose subjects no training on facts has seen."""
    items = read_items(kind, FACTS, 1, seed)
    return items if kind == "arithmetic" else split(items).subjects
