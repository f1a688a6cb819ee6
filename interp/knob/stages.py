"""The stages of learning a knob, each writing its parts unless the run has them (see learn.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..model.site import Site
from ..runs.store import RunWriter, save_tensors
from .data import some
from .evaluate import answer_rows, scores
from .items import Item, Splits
from .learn import LearnSettings, Place, knobs_of, saved, validation
from .prompts import Prompter, rows_of

if TYPE_CHECKING:
    from ..model.subject import Subject
    from .steer import Knob

BASES = "learn/bases.safetensors"
LAYERS = "learn/layers.parquet"
PARTS = ("subjects", "relations")


def learn_layers(config: LearnSettings, subject: Subject, splits: Splits, out: RunWriter) -> int:
    """`learn/`: one dimension at every layer, and how well each swaps; the best layer."""
    import pandas as pd

    if not out.has(LAYERS):
        layers = config.chosen_layers(subject.spec.n_layers)
        bases, curve, lines = _learned(config, subject, splits, layers, 1)
        with out.part(BASES) as path:
            save_tensors({str(layer): basis.cpu() for layer, basis in bases.items()}, path)
        with out.part("learn/curve.parquet") as path:
            pd.DataFrame(curve).to_parquet(path)
        with out.part(LAYERS) as path:
            pd.DataFrame(lines).to_parquet(path)
    table = pd.read_parquet(out.path / LAYERS)
    return int(table["layer"].iloc[int(table["loss"].argmin())])


def compare_ranks(
    config: LearnSettings, subject: Subject, splits: Splits, layer: int, out: RunWriter
) -> None:
    """`learn/ranks.parquet`: subspaces of more dimensions at the knob's layer."""
    import pandas as pd

    if out.has("learn/ranks.parquet"):
        return
    one = pd.read_parquet(out.path / LAYERS)
    tables = [one[one["layer"] == layer]]
    for rank in config.ranks:
        tables.append(pd.DataFrame(_learned(config, subject, splits, [layer], rank)[2]))
    with out.part("learn/ranks.parquet") as path:
        pd.concat(tables).to_parquet(path)


def _learned(
    config: LearnSettings, subject: Subject, splits: Splits, layers: list[int], rank: int
) -> tuple[dict[int, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Bases, losses while learning, and how they swap validation rows."""
    from .subspace import Learning, Pairs, learn, swapped

    prompter = Prompter(subject.tokenizer, template=config.template)
    how = Learning(rank, config.knob_lr, seed=config.seed)
    items = some(splits.train, config.learn_items, config.seed)
    bases, curve = learn(subject, prompter, items, layers, how, f"learn, rank {rank}")
    held = validation(config, splits)[0]
    pairs = [
        Pairs.of(subject, prompter, held[start : start + 8]) for start in range(0, len(held), 8)
    ]
    lines = []
    for layer, basis in bases.items():
        site = Site("resid_post", layer)
        loss, share = swapped(pairs, site, basis)
        whole_loss, whole = swapped(pairs, site, None)
        lines.append(
            {"rank": rank, "layer": layer, "loss": loss, "swapped": share}
            | {"whole_loss": whole_loss, "whole_swapped": whole, "rows": 2 * len(held)}
        )
    return bases, [{"rank": rank, **line} for line in curve], lines


def find_knob(
    config: LearnSettings,
    subject: Subject,
    splits: Splits,
    layer: int,
    place: Place,
    out: RunWriter,
) -> list[Knob]:
    """`knob/` and `sweep/<place>.parquet`: the learned knob and its baselines, each with its c."""
    from safetensors.torch import load_file

    from ..directions import Directions
    from .steer import baselines, chosen, make_knob, states, sweep

    if not out.has("knob/directions.json"):
        site = Site("resid_post", layer)
        prompter = Prompter(subject.tokenizer, template=config.template)
        rows = rows_of(some(splits.train, config.learn_items, config.seed))
        h = states(subject, prompter, rows, site, config.batch_size)
        basis = load_file(out.path / BASES)[str(layer)]
        vectors = {"learned": basis[0], **baselines(site, h, rows, config.seed)}
        knobs = [make_knob(name, site, vector, h, rows) for name, vector in vectors.items()]
        turner = Prompter(subject.tokenizer, "none", template=config.template)
        curve = sweep(subject, turner, validation(config, splits)[1], knobs, config.batch_size)
        with out.part(f"sweep/{place.name}.parquet") as path:
            curve.to_parquet(path)
        values = {knob.name: chosen(curve, knob.name) for knob in knobs}
        about = {"model": config.model, "analysis": "knob.learn"}
        saved(knobs, values, about).save(out.path / "knob")
    return knobs_of(Directions.load(out.path / "knob"))


def turn(
    config: LearnSettings,
    subject: Subject,
    splits: Splits,
    knobs: list[Knob],
    place: Place,
    out: RunWriter,
) -> None:
    """`sweep/<place>.parquet` where the knob was not learned."""
    from .steer import sweep

    if out.has(f"sweep/{place.name}.parquet"):
        return
    prompter = place.prompter(subject, config, splits.train, "none")
    curve = sweep(subject, prompter, validation(config, splits)[1], knobs, config.batch_size)
    with out.part(f"sweep/{place.name}.parquet") as path:
        curve.to_parquet(path)


def steer_model(
    config: LearnSettings,
    subject: Subject,
    splits: Splits,
    knobs: list[Knob],
    place: Place,
    out: RunWriter,
) -> None:
    """`steer/<place>.parquet`: whole answers on the held-out parts, every direction at its own c;
    and, direction "none", with the intent given in the prompt instead."""
    import pandas as pd

    from .steer import chosen, steered

    if out.has(f"steer/{place.name}.parquet"):
        return
    curve = pd.read_parquet(out.path / f"sweep/{place.name}.parquet")
    values = {knob.name: chosen(curve, knob.name) for knob in knobs}
    bare, asked = (
        place.prompter(subject, config, splits.train, form) for form in ("none", "instruction")
    )
    tables = []
    for part, items in steer_parts(config, splits).items():
        plain = answer_rows(subject, asked, rows_of(items), config.batch_size)
        turned = steered(subject, bare, items, knobs, values, config.batch_size)
        tables += [x.assign(part=part) for x in (plain.assign(direction="none"), turned)]
    with out.part(f"steer/{place.name}.parquet") as path:
        pd.concat(tables).to_parquet(path)


def steer_parts(config: LearnSettings, splits: Splits) -> dict[str, list[Item]]:
    """The held-out parts that are not empty, and what of them is steered."""
    parts = {part: some(getattr(splits, part), config.steer_items, config.seed) for part in PARTS}
    return {part: items for part, items in parts.items() if items}


def metrics(out: RunWriter) -> dict[str, Any]:
    """`steer/scores.parquet`, and what of it is worth a line."""
    import numpy as np
    import pandas as pd

    lines: list[dict[str, Any]] = []
    for path in sorted((out.path / "steer").glob("*tuned*.parquet")):
        groups = pd.read_parquet(path).groupby(["direction", "part"], sort=False)
        for (direction, part), rows in groups:
            lines.append({"model": path.stem, "direction": direction, "part": part, **scores(rows)})
    with out.part("steer/scores.parquet") as path:
        pd.DataFrame(lines).to_parquet(path)
    knob = pd.read_parquet(out.path / "knob/index.parquet").iloc[0]
    found: dict[str, Any] = {name: float(knob[name]) for name in ("layer", "context_c", "prior_c")}
    for line in lines:
        found[f"pair_acc {line['model']}, {line['direction']}, {line['part']}"] = line["pair_acc"]
    parts = sorted((out.path / "effects").glob("configurations-*.parquet"))
    several = pd.concat(map(pd.read_parquet, parts))
    if len(several) > 2 and several["pair_acc"].nunique() > 1:
        r = np.corrcoef(several["separation"], several["pair_acc"])[0, 1]
        found |= {"configurations": len(several), "separation correlates": float(r)}
    return found
