"""Draws the docs' pictures from stored runs: `.venv/bin/python docs/pictures.py [NAME ...]`.

Runs that are missing are made first (the atlas and the clamp take about a minute each on two
cores, the others seconds). Pictures are PNG files of at most 128 colours, to stay small.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from PIL import Image
from safetensors.numpy import load_file

from interp.darkmatter.figures import downstream_bars
from interp.darkmatter.measure import DarkMatterConfig
from interp.data import FOLDER
from interp.knob.figures import knob_curve
from interp.linearscope.explain import ExplainConfig
from interp.linearscope.figures import vote_maps
from interp.neurons.atlas import AtlasConfig
from interp.neurons.clamp import ClampConfig
from interp.neurons.figures import clamp_curve, layer_density
from interp.neurons.search import density
from interp.obsprop.figures import head_map
from interp.othello.figures import othello_layers
from interp.othello.findings import table
from interp.runs.study import run_or_load

HERE = Path(__file__).parent / "pictures"
WIDTH = 820


def atlas() -> go.Figure:
    return layer_density(density(run_or_load(AtlasConfig()), "z"), "z")


def clamp() -> go.Figure:
    run = run_or_load(ClampConfig(neuron="29.down.808"))
    return clamp_curve(run.table("curve/values"), "29.down.808", run.manifest["word"])


def heads() -> go.Figure:
    from interp.model.weights import open_weights
    from interp.obsprop.model_weights import StackedWeights
    from interp.obsprop.observables import make_observable
    from interp.obsprop.propagate import head_norms

    weights = open_weights("smollm2-135m")
    pronoun = make_observable("subject pronoun", {" she": 1, " he": -1}, weights)
    title = "Length of the vector of ' she' − ' he' at every head"
    return head_map(head_norms(StackedWeights(weights), pronoun), "norm", title)


def layers() -> go.Figure:
    scores = pd.read_parquet(FOLDER / "othello" / "compare" / "scores.parquet")
    return othello_layers(table(scores))


def errors() -> go.Figure:
    run = run_or_load(
        DarkMatterConfig(
            model="othello-gpt",
            saes=str(FOLDER / "othello" / "saes"),
            site="2.resid_post",
            corpus=str(FOLDER / "othello" / "games.safetensors"),
            length=59,
            tokens=29_500,
            downstream=20,
        )
    )
    return downstream_bars(run.table("downstream"))


def turned() -> go.Figure:
    curve = pd.read_parquet(FOLDER / "knob" / "smollm2-135m" / "sweep" / "tuned.parquet")
    return knob_curve(curve, "learned")


def votes() -> go.Figure:
    run = run_or_load(ExplainConfig())
    maps, classes = load_file(run.path / "maps.safetensors"), run.table("classes").head(2)
    titles = [f"{c} {p:.0%}" for c, p in zip(classes["label"], classes["probability"], strict=True)]
    return vote_maps(maps["votes"][:2], maps["picture"], titles)


PICTURES: dict[str, Callable[[], go.Figure]] = {
    "neurons-atlas": atlas,
    "neurons-clamp": clamp,
    "obsprop-heads": heads,
    "othello-layers": layers,
    "darkmatter-downstream": errors,
    "knob-turned": turned,
    "linearscope-votes": votes,
}
"""File name without its ending -> what draws it."""


def save(figure: go.Figure, path: Path) -> None:
    drawn = Image.open(BytesIO(figure.to_image("png", width=WIDTH))).convert("RGB")
    drawn.quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or PICTURES:
        save(PICTURES[name](), HERE / f"{name}.png")
