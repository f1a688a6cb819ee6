"""Scores of a model with and without its adapter, on the held-out parts of the data.

`answers/<setting>.parquet`: see evaluate.answer_rows, and `part` (subjects or relations).
`scores/scores.parquet`, a line a setting and part: setting (0-shot, 10-shot: the model as it comes;
tuned, and tuned on the float format), part, and evaluate.scores' columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..store import RunWriter
from .data import open_tuned, some
from .evaluate import answer_rows, demonstrations, scores
from .prompts import Format, Prompter, rows_of

if TYPE_CHECKING:
    import pandas as pd

    from .finetune import FinetuneConfig

SHOTS = 10


class Setting(NamedTuple):
    """How a model is asked."""

    name: str
    tuned: bool
    form: Format
    shots: int


SETTINGS = (
    Setting("tuned", True, "instruction", 0),
    Setting("tuned, float", True, "float", 0),
    Setting("0-shot", False, "instruction", 0),
    Setting(f"{SHOTS}-shot", False, "instruction", SHOTS),
)


def score_adapter(config: FinetuneConfig, adapter: str, out: RunWriter) -> dict[str, Any]:
    """Score every setting that the run has no answers of yet; PairAcc by setting and part."""
    import pandas as pd

    subject, loaded = None, ""
    lines: list[dict[str, Any]] = []
    for setting in SETTINGS:
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
    tables = []
    for part in ("subjects", "relations"):
        items = some(getattr(splits, part), config.test, config.seed)
        rows = rows_of(items)
        if rows:
            batch = max(1, config.batch_size // (4 if setting.shots else 1))
            tables.append(answer_rows(subject, prompter, rows, batch).assign(part=part))
    return pd.concat(tables)
