"""The stages of learning a knob, each writing its parts unless the run has them (see learn.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..site import Site
from ..store import RunWriter, save_tensors
from .data import some
from .evaluate import answer_rows, demonstrations, scores
from .items import Splits
from .learn import LearnSettings, knob_prompter, knobs_of, saved, validation
from .prompts import Format, Prompter, rows_of

if TYPE_CHECKING:
    from ..subject import Subject
    from .steer import Knob

BASES = "learn/bases.safetensors"
CONFIGURATIONS: dict[str, tuple[tuple[int, Format], ...]] = {
    "tuned": ((0, "instruction"), (0, "float")),
    "untuned": ((0, "instruction"), (0, "float"), (4, "instruction"), (4, "float")),
}
"""By model: demonstrations and format, where the separation is compared with PairAcc."""


def learn_layers(config: LearnSettings, subject: Subject, splits: Splits, out: RunWriter) -> int:
    """`learn/`: a subspace at every layer, and how well each swaps; the best layer."""
    import pandas as pd

    from .subspace import Learning, Pairs, learn, swapped

    if not out.has("learn/layers.parquet"):
        prompter = Prompter(subject.tokenizer, template=config.template)
        how = Learning(config.dimensions, config.knob_lr, seed=config.seed)
        items = some(splits.train, config.learn_items, config.seed)
        layers = config.chosen_layers(subject.spec.n_layers)
        bases, curve = learn(subject, prompter, items, layers, how)
        with out.part("learn/curve.parquet") as path:
            pd.DataFrame(curve).to_parquet(path)
        with out.part(BASES) as path:
            save_tensors({str(layer): basis.cpu() for layer, basis in bases.items()}, path)
        held = validation(config, splits)
        pairs = [
            Pairs.of(subject, prompter, held[start : start + 8]) for start in range(0, len(held), 8)
        ]
        lines = []
        for layer, basis in bases.items():
            site = Site("resid_post", layer)
            loss, share = swapped(pairs, site, basis)
            whole_loss, whole = swapped(pairs, site, None)
            lines.append({"layer": layer, "loss": loss, "swapped": share}
                         | {"whole_loss": whole_loss, "whole_swapped": whole})  # fmt: skip
        with out.part("learn/layers.parquet") as path:
            pd.DataFrame(lines).to_parquet(path)
    table = pd.read_parquet(out.path / "learn/layers.parquet")
    return int(table["layer"].to_numpy()[table["loss"].to_numpy().argmin()])


def find_knob(
    config: LearnSettings, subject: Subject, splits: Splits, layer: int, out: RunWriter
) -> list[Knob]:
    """`knob/` and `sweep/tuned.parquet`: the learned knob and its baselines, each with its c."""
    from safetensors.torch import load_file

    from ..directions import Directions
    from .steer import baselines, chosen, make_knob, states, sweep

    if not out.has("knob/directions.json"):
        site = Site("resid_post", layer)
        prompter = Prompter(subject.tokenizer, template=config.template)
        rows = rows_of(some(splits.train, config.learn_items // 2, config.seed))
        h = states(subject, prompter, rows, site, config.batch_size)
        basis = load_file(out.path / BASES)[str(layer)]
        vectors = {"learned": basis[0], **baselines(site, h, rows, config.seed)}
        knobs = [make_knob(name, site, vector, h, rows) for name, vector in vectors.items()]
        turner = Prompter(subject.tokenizer, "none", template=config.template)
        curve = sweep(subject, turner, validation(config, splits), knobs, config.batch_size)
        with out.part("sweep/tuned.parquet") as path:
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
    model: str,
    out: RunWriter,
) -> None:
    """`sweep/<model>.parquet` for a model that the knob was not learned in."""
    from .steer import sweep

    if out.has(f"sweep/{model}.parquet"):
        return
    prompter = knob_prompter(subject, config, model, splits)
    items = validation(config, splits)[: config.validate // 2]
    curve = sweep(subject, prompter, items, knobs, batch_size=4)
    with out.part(f"sweep/{model}.parquet") as path:
        curve.to_parquet(path)


def steer_model(
    config: LearnSettings,
    subject: Subject,
    splits: Splits,
    knobs: list[Knob],
    model: str,
    out: RunWriter,
) -> None:
    """`steer/<model>.parquet`: whole answers on the held-out parts, every direction at its own c;
    and, direction "none", with the intent given in the prompt instead."""
    import pandas as pd

    from .steer import steered

    if out.has(f"steer/{model}.parquet"):
        return
    curve = pd.read_parquet(out.path / f"sweep/{model}.parquet")
    prompter = knob_prompter(subject, config, model, splits)
    batch = max(1, config.batch_size // (4 if model == "untuned" else 1))
    shots = demonstrations(splits.train, _shots(model), config.seed) if _shots(model) else []
    asked = Prompter(subject.tokenizer, "instruction", shots, config.template)
    tables = []
    for part in ("subjects", "relations"):
        items = some(getattr(splits, part), config.steer_items, config.seed)
        if not items:
            continue
        plain = answer_rows(subject, asked, rows_of(items), batch)
        tables.append(plain.assign(part=part, direction="none"))
        for knob in knobs:
            table = steered(subject, prompter, items, knob, curve, batch)
            tables.append(table.assign(part=part, direction=knob.name))
    with out.part(f"steer/{model}.parquet") as path:
        pd.concat(tables).to_parquet(path)


def _shots(model: str) -> int:
    from .learn import STEER_SHOTS

    return STEER_SHOTS if model == "untuned" else 0


def effects(
    config: LearnSettings, subject: Subject, splits: Splits, knob: Knob, model: str, out: RunWriter
) -> None:
    """`effects/…-<model>.parquet`: perplexity over c, and separation beside PairAcc."""
    import pandas as pd

    from ..corpus import read_corpus, token_rows
    from .steer import perplexity, states

    if not out.has(f"effects/perplexity-{model}.parquet"):
        texts = read_corpus(None)
        text = list(token_rows(texts, _encoder(subject), 128, None, config.text_tokens))
        lines = perplexity(subject, knob, text, knob.values[::2])
        with out.part(f"effects/perplexity-{model}.parquet") as path:
            pd.DataFrame(lines).assign(model=model).to_parquet(path)
    if out.has(f"effects/configurations-{model}.parquet"):
        return
    items, found = validation(config, splits), []
    for count, form in CONFIGURATIONS[model]:
        shots = demonstrations(splits.train, count, config.seed) if count else []
        prompter = Prompter(subject.tokenizer, form, shots, config.template)
        rows = rows_of(items)
        along = states(subject, prompter, rows, knob.site, 8).double().cpu() @ knob.vector.double()
        separation = abs(float(along[1::2].mean() - along[::2].mean()))
        found.append(
            {"model": model, "shots": count, "format": form, "separation": separation}
            | scores(answer_rows(subject, prompter, rows, 8))
        )
    with out.part(f"effects/configurations-{model}.parquet") as path:
        pd.DataFrame(found).to_parquet(path)


def _encoder(subject: Subject) -> Callable[[str], list[int]]:
    return lambda text: list(subject.tokenizer.encode(text, add_special_tokens=False))


def metrics(out: RunWriter) -> dict[str, Any]:
    """`steer/scores.parquet`, and what of it is worth a line."""
    import numpy as np
    import pandas as pd

    lines: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    for path in sorted((out.path / "steer").glob("*tuned.parquet")):
        groups = pd.read_parquet(path).groupby(["direction", "part"], sort=False)
        for (direction, part), rows in groups:
            lines.append({"model": path.stem, "direction": direction, "part": part, **scores(rows)})
    with out.part("steer/scores.parquet") as path:
        pd.DataFrame(lines).to_parquet(path)
    knob = pd.read_parquet(out.path / "knob/index.parquet").iloc[0]
    found |= {name: float(knob[name]) for name in ("layer", "context_c", "prior_c")}
    for line in lines:
        found[f"pair_acc {line['model']}, {line['direction']}, {line['part']}"] = line["pair_acc"]
    parts = sorted((out.path / "effects").glob("configurations-*.parquet"))
    several = pd.concat(map(pd.read_parquet, parts))
    if len(several) > 2 and several["pair_acc"].nunique() > 1:
        r = np.corrcoef(several["separation"], several["pair_acc"])[0, 1]
        found |= {"configurations": len(several), "separation correlates": float(r)}
    return found
