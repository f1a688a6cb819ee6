"""The findings of a comparison in words; every sentence is made from the run's own numbers.

They are held against the claims of 'How GPT learns layer by layer': probe accuracies of 62.1 %
(chance) in the first of eight layers and 82.1 to 93.1 % in the others, all too low because dropout
stayed on while it probed; latents with an AUROC over .8 for stable tiles, most of them in layers 2
to 4, and single latents over .8 for 20 tiles and more; features of colour in all layers.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd

from ..saes.kinds import KINDS


def table(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores of each reader, measure and layer over seeds: mean, least and most.

    Args:
        scores: as `compare.scores` gives them.

    Returns:
        Columns reader, measure, layer, mean, least, most, low, high, unit: a 95 % interval (by
        game) where there is one seed.
    """
    grouped = scores.groupby(["reader", "measure", "layer"], sort=False)
    rows = (
        grouped["value"].agg(["mean", "min", "max"]).rename(columns={"min": "least", "max": "most"})
    )
    rows[["low", "high"]] = grouped[["low", "high"]].mean()
    rows.loc[grouped.size() > 1, ["low", "high"]] = float("nan")
    rows["unit"] = np.where(rows["low"].notna(), "game", "")
    return rows.reset_index()


def wide(scores: pd.DataFrame, measures: list[str]) -> pd.DataFrame:
    """A table to read: a row per measure and reader, a column per layer, '0.893' or
    '0.625 [0.610, 0.640]', the mean and the range over seeds."""
    rows = table(scores)
    rows = rows[rows["measure"].isin(measures)]
    cells = [_cell(row) for row in rows.to_dict("records")]
    grid = rows.assign(cell=cells).pivot(
        index=["measure", "reader"], columns="layer", values="cell"
    )
    return grid.reindex(measures, level="measure").fillna("")


def _cell(row: dict[Hashable, Any]) -> str:
    if row["most"] - row["least"] > 0:
        return f"{row['mean']:.3f} [{row['least']:.3f}, {row['most']:.3f}]"
    return f"{row['mean']:.3f}"


def _best(values: pd.Series) -> tuple[int, float]:
    """The layer with the largest value, and that value."""
    return int(values.index[int(values.argmax())]), float(values.max())


def sentences(scores: pd.DataFrame, metrics: dict[str, float]) -> list[str]:
    """The findings of a comparison; `metrics` are those of its run."""
    # means over seeds; numbers["probe", "accuracy"] are the values by layer
    numbers = scores.groupby(["reader", "measure", "layer"])["value"].mean()
    parts = _probes(numbers), _dictionaries(numbers), _directions(numbers)
    return [*itertools.chain(*parts), *_stability(numbers, metrics)]


def _kinds(numbers: pd.Series) -> list[str]:
    """The kinds of SAE that were compared."""
    readers = set(numbers.index.get_level_values("reader"))
    return [kind for kind in KINDS if kind in readers]


def _percent(values: pd.Series) -> str:
    return ", ".join(f"{100 * v:.1f}" for v in values)


def _probes(numbers: pd.Series) -> list[str]:
    own, colour = numbers["probe", "accuracy"], numbers["probe", "accuracy_colour"]
    majority = float(numbers["majority", "accuracy"].mean())
    random = numbers["random model probe", "accuracy"]
    layer, best = _best(numbers["probe", "accuracy"])
    relative = " What is linear is whether a disc is own or enemy, not its colour."
    rising = (
        "Accuracy rises with every layer, as in the paper."
        if own.is_monotonic_increasing
        else f"Accuracy peaks at {best:.3f} in layer {layer}; in the paper it rises to the end."
    )
    return [
        f"Linear probes label {_percent(own)} % of the tiles correctly as empty, own or enemy "
        f"after layers {own.index[0]} to {own.index[-1]}. The majority state reaches "
        f"{100 * majority:.1f} %, and probes of a random-weight model {_percent(random)} %. "
        f"Layer {layer} is best.",
        f"As empty, black or white, probes label {_percent(colour)} % of the tiles correctly."
        + (relative if colour.max() < best else ""),
        "The paper reports 62.1 % (chance) for the first layer of a larger model and 82.1 to "
        "93.1 % for the others, with dropout on during probing. Here the first layer has "
        f"{100 * own.iloc[0]:.1f} %.",
        rising,
    ]


def _dictionaries(numbers: pd.Series) -> list[str]:
    neurons, occupied, ply = (
        _best(numbers[reader, "coverage"])[1] for reader in ("neurons", "occupied", "ply")
    )
    lines = [
        "Coverage is the mean F1 of the best feature for each own and enemy tile. The model's own "
        f"neurons have {neurons:.3f} in their best layer. Two baselines ignore who owns a tile: "
        f"whether it is occupied has {occupied:.3f}, the number of moves played {ply:.3f}."
    ]
    for arch in _kinds(numbers):
        layer, coverage = _best(numbers[arch, "coverage"])
        at, reconstruction = _best(numbers[arch, "reconstruction"])
        lines.append(
            f"The {arch} latents have a coverage of at most {coverage:.3f} (layer {layer}), "
            f"{'more' if coverage > neurons else 'less'} than the neurons; the probe of that layer "
            f"has {numbers['probe', 'coverage'][layer]:.3f}. Their high-precision rules "
            f"reconstruct the board with an F1 of at most {reconstruction:.3f} (layer {at}), the "
            f"probe of that layer with {numbers['probe', 'reconstruction'][at]:.3f}."
        )
    own, majority = numbers["probe", "accuracy"], numbers["majority", "accuracy"]
    through = {
        a: (numbers[a, "probe_through"] - majority) / (own - majority) for a in _kinds(numbers)
    }
    kept = [f"{_percent(values)} % ({arch})" for arch, values in through.items()]
    lines.append(
        "On the SAEs' reconstructions instead of the residual stream, the same probes keep this "
        f"share of their accuracy above the majority state, layer by layer: {'; '.join(kept)}."
    )
    return lines


def _directions(numbers: pd.Series) -> list[str]:
    lines = []
    for arch in _kinds(numbers):
        probe, mean = numbers[arch, "cosine_probe"], numbers[arch, "cosine_mean"]
        lines.append(
            f"The decoder rows of the best {arch} latents have a mean cosine of {probe.min():.2f} "
            f"to {probe.max():.2f} with the probe's class vectors, and of {mean.min():.2f} to "
            f"{mean.max():.2f} with the class means."
        )
    return lines


def _stability(numbers: pd.Series, metrics: dict[str, float]) -> list[str]:
    lines = [
        "On boards with a move to come, the rest of the game flips "
        f"{100 * metrics['paper_stable_turned']:.1f} % of the discs that the paper's code calls "
        f"stable, and {100 * metrics['sound_stable_turned']:.1f} % of those that no continuation "
        "can flip (sound). The paper's rule for inner discs never applies, so its labels are on "
        "edges only."
    ]
    for kind in ("paper", "sound"):
        ply = float(numbers["ply", f"auroc_{kind}"].mean())
        best = {arch: _best(numbers[arch, f"auroc_{kind}"]) for arch in _kinds(numbers)}
        latents = [f"{arch} {auroc:.3f} (layer {layer})" for arch, (layer, auroc) in best.items()]
        lines.append(
            f"Stable discs ({kind}): the best latents have a mean AUROC of {', '.join(latents)}, "
            f"the probe of {_best(numbers['probe', f'auroc_{kind}'])[1]:.3f}. The number of moves "
            f"played alone has {ply:.3f}, and exceeds .8 for "
            f"{int(numbers['ply', f'tiles_{kind}'].max())} tiles."
        )
    strong = [
        f"{arch} {', '.join(f'{n:.0f}' for n in numbers[arch, 'stable_sound'])}"
        for arch in _kinds(numbers)
    ]
    most = max(int(numbers[arch, "tiles_sound"].max()) for arch in _kinds(numbers))
    lines.append(
        "Latents with an AUROC over .8 for at least one stable tile (sound), layer by layer: "
        f"{'; '.join(strong)} (the paper finds most in layers 2 to 4 of 8). One latent exceeds .8 "
        f"for {most} tiles. The number of moves played exceeds .8 too, so this threshold does not "
        "show that a latent detects stability."
    )
    return lines
