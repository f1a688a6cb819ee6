"""What a comparison says, in words: every sentence is made from the run's own numbers.

The paper's claims that it is held against ('How GPT learns layer by layer'): probe accuracies of
62.1 (chance), 82.1 … 93.1 % over eight blocks, depressed as dropout stayed on while it probed;
latents with an AUROC over .8 for stable tiles, most of them in the layers 2 to 4 of eight, single
ones for 20 and more tiles; features of colour spread over the layers.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pandas as pd

SAES = ("topk", "l1")


def table(scores: pd.DataFrame) -> pd.DataFrame:
    """Measures by reader (rows) and layer (columns), over seeds: mean, least and most.

    `scores` as `compare.scores` gives them; columns reader, measure, layer, mean, least, most,
    low, high (the 95 % interval by game where there is one seed).
    """
    grouped = scores.groupby(["reader", "measure", "layer"], sort=False)
    found = (
        grouped["value"].agg(["mean", "min", "max"]).rename(columns={"min": "least", "max": "most"})
    )
    found[["low", "high"]] = grouped[["low", "high"]].mean()
    found.loc[grouped.size() > 1, ["low", "high"]] = float("nan")
    return found.reset_index()


def wide(scores: pd.DataFrame, measures: list[str]) -> pd.DataFrame:
    """The table for reading: a row a reader and measure, a column a layer, '.893' or '.61-.64'."""
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


class _Numbers:
    """Means over seeds, asked for by reader and measure."""

    def __init__(self, scores: pd.DataFrame) -> None:
        self._means = scores.groupby(["reader", "measure", "layer"])["value"].mean()

    def layers(self, reader: str, measure: str) -> pd.Series:
        found: pd.Series = self._means[reader, measure]
        return found

    def best(self, reader: str, measure: str) -> tuple[int, float]:
        found = self.layers(reader, measure)
        return int(found.index[int(found.argmax())]), float(found.max())


def sentences(scores: pd.DataFrame, metrics: dict[str, float]) -> list[str]:
    """The findings of a comparison; `metrics` are the run's."""
    numbers = _Numbers(scores)
    return [
        *_probes(numbers),
        *_dictionaries(numbers),
        *_directions(numbers),
        *_stability(numbers, metrics),
    ]


def _percent(values: pd.Series) -> str:
    return ", ".join(f"{100 * v:.1f}" for v in values)


def _probes(numbers: _Numbers) -> list[str]:
    own, colour = numbers.layers("probe", "accuracy"), numbers.layers("probe", "accuracy_colour")
    majority = float(numbers.layers("majority", "accuracy").mean())
    random = numbers.layers("random model probe", "accuracy")
    layer, best = numbers.best("probe", "accuracy")
    which = ": what is linear is whose disc it is, not its colour" if colour.max() < best else ""
    found = [
        f"Linear probes read {_percent(own)} % of the tiles right as empty, own or enemy after "
        f"layers {own.index[0]} to {own.index[-1]} (the majority state: {100 * majority:.1f} %; "
        f"probes of a random-weight model: {_percent(random)} %); layer {layer} is best.",
        f"As empty, black or white they read {_percent(colour)} %{which}.",
        "The paper reports 62.1 % (chance) for its first layer and 82.1 to 93.1 % for the others "
        "of a larger model, with dropout on while it probed; here the first has "
        f"{100 * own.iloc[0]:.1f} %.",
    ]
    if own.is_monotonic_increasing:
        found.append("Accuracy rises with every layer, as in the paper.")
    else:
        found.append(
            f"Accuracy does not rise to the end, as it does in the paper: it peaks at {best:.3f}."
        )
    return found


def _dictionaries(numbers: _Numbers) -> list[str]:
    found = []
    for arch in SAES:
        layer, coverage = numbers.best(arch, "coverage")
        at, reconstruction = numbers.best(arch, "reconstruction")
        neurons = numbers.best("neurons", "coverage")[1]
        occupied, ply = (numbers.best(r, "coverage")[1] for r in ("occupied", "ply"))
        probe = numbers.layers("probe", "coverage")[layer]
        verdict = "more" if coverage > neurons else "less"
        found.append(
            f"{arch} latents cover own and enemy tiles with a mean best F1 of at most "
            f"{coverage:.3f} (layer {layer}), {verdict} than the best layer of the model's own "
            f"neurons ({neurons:.3f}); the probe there has {probe:.3f}. Without any owner, whether "
            f"a tile is occupied gives {occupied:.3f} and the number of moves played {ply:.3f}. "
            "Their high-precision rules "
            f"rebuild the board with an F1 of {reconstruction:.3f} at most (layer {at}), the probe "
            f"with {numbers.layers('probe', 'reconstruction')[at]:.3f}."
        )
    own, majority = numbers.layers("probe", "accuracy"), numbers.layers("majority", "accuracy")
    through = {a: (numbers.layers(a, "probe_through") - majority) / (own - majority) for a in SAES}
    kept = [f"{arch} {_percent(values)} %" for arch, values in through.items()]
    found.append(
        "Read from the autoencoders' reconstructions instead of the stream, the same probes keep "
        "this much of what they know beyond the majority state, layer by layer: "
        f"{'; '.join(kept)}."
    )
    return found


def _directions(numbers: _Numbers) -> list[str]:
    found = []
    for arch in SAES:
        probe, mean = numbers.layers(arch, "cosine_probe"), numbers.layers(arch, "cosine_mean")
        found.append(
            f"The best {arch} latents' decoder rows have a mean cosine of {probe.min():.2f} to "
            f"{probe.max():.2f} with the probe's class vectors and of {mean.min():.2f} to "
            f"{mean.max():.2f} with the class means."
        )
    return found


def _stability(numbers: _Numbers, metrics: dict[str, float]) -> list[str]:
    found = [
        "On boards with a move to come "
        f"{100 * metrics['paper_stable_turned']:.1f} % of the discs that the paper's code calls "
        f"stable are turned later, {100 * metrics['sound_stable_turned']:.1f} % of the soundly "
        "stable ones; its rule for inner discs never fires, so its labels are edges only."
    ]
    for kind in ("paper", "sound"):
        ply = float(numbers.layers("ply", f"auroc_{kind}").mean())
        parts = [
            f"{arch} {numbers.best(arch, f'auroc_{kind}')[1]:.3f} (layer "
            f"{numbers.best(arch, f'auroc_{kind}')[0]})"
            for arch in SAES
        ]
        found.append(
            f"Stable discs ({kind}): best latents reach a mean AUROC of {', '.join(parts)}, the "
            f"probe {numbers.best('probe', f'auroc_{kind}')[1]:.3f}; the number of moves played "
            f"alone reaches {ply:.3f}, and over .8 for "
            f"{int(numbers.layers('ply', f'tiles_{kind}').max())} tiles."
        )
    counts = {arch: numbers.layers(arch, "stable_sound") for arch in SAES}
    strong = [
        f"{arch} {', '.join(f'{n:.0f}' for n in n_by_layer)}" for arch, n_by_layer in counts.items()
    ]
    most = max(int(numbers.layers(arch, "tiles_sound").max()) for arch in SAES)
    found.append(
        "Latents over .8 for a soundly stable tile, layer by layer (paper: most in layers 2 to 4 "
        f"of 8): {'; '.join(strong)}; one of them passes for {most} tiles. The clock passes "
        "too: the bar does not show that a latent stands for stability."
    )
    return found
