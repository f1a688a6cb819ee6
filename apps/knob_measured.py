"""The tab of the knob's page that shows what a run measured."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from interp.apps.columns import shown_table
from interp.apps.common import table
from interp.apps.knob_steer import knob_folder
from interp.apps.offering import code, download, offer_run
from interp.apps.shown import charts
from interp.apps.words import plain
from interp.knob import figures
from interp.plots import row_at_most
from interp.runs.store import Run

SCORES = ["setting", "model", "direction", "part", "pair_acc", "pair_acc_low", "pair_acc_high"]
SCORES += ["named", "named_low", "named_high", "prior", "context", "pairs", "facts"]
DECODED = ["direction", "layer", "neuron", "cosine", "top", "top_z", "bottom", "bottom_z"]
DECODED += ["context_c", "prior_c"]
"""Columns that are shown; others stay in the download."""


def measured(run: Run) -> None:
    if run.has("scores/scores"):
        _scored(run)
    _steering(run)
    _layers(run)
    _effects(run)
    _decoded(run)


def _scored(run: Run) -> None:
    st.subheader("Does the model answer by the intent?")
    st.caption(
        "Each question is asked twice, by the context and by prior knowledge; a pair counts where "
        "both are right. The intervals are 95 % over facts."
    )
    own = table(run, "scores/scores")
    shown_table(own.filter(SCORES), "scores", run.study)
    best = own.iloc[int(own["pair_acc"].argmax())]
    st.markdown(plain(
        f"The most pairs are right when asked as “{best['setting']}”, on the part “{best['part']}”:"
        f" {best['pair_acc']:.2f} ({best['pair_acc_low']:.2f} to {best['pair_acc_high']:.2f})."
    ))  # fmt: skip
    download(own, "PairAcc")


def _steering(run: Run) -> None:
    st.subheader("Does the knob steer, with no intent in the prompt?")
    scores = table(run, "steer/scores")
    for setting in scores["model"].unique():
        rows = scores[(scores["model"] == setting) & scores["direction"].isin(["learned", "none"])]
        by = rows.groupby("direction")["pair_acc"].max()
        bars = figures.knob_bars(scores, str(setting))
        curve = figures.knob_curve(table(run, f"sweep/{setting}"), "learned")
        charts(
            f"steering {setting}",
            bars,
            curve,
            shows="Left: pairs that are right with the direction held at each intent's value; a "
            "random direction that steers as well would be a surprise. Right: both answers' "
            "probability over c; dashed, not steered.",
            found=_right(str(setting), by),
        )
    shown_table(scores.filter(SCORES), "steered", run.study)
    offer_run(scores, "knob scores", run, "run.table('steer/scores')")


def _right(setting: str, by: pd.Series) -> str:
    """The largest shares of right pairs in words, by direction, of those that were measured."""
    ways = {"learned": "by the learned direction", "none": "with the intent in the prompt"}
    known = [(by[name], way) for name, way in ways.items() if pd.notna(by.get(name))]
    most = [f"{share:.2f} of the pairs are right {way}" for share, way in known[:1]]
    most += [f"{share:.2f} {way}" for share, way in known[1:]]
    return f"{setting}: at most {', '.join(most)}." if most else ""


def _layers(run: Run) -> None:
    st.subheader("Which layers decide?")
    layers = table(run, "learn/layers")
    best = row_at_most(layers, layers["swapped"])
    charts(
        "layers",
        figures.knob_layers(layers),
        shows="How often the other prompt's value of one dimension makes its answer likeliest, "
        "layer by layer. One dimension that does as much as the whole residual is the finding.",
        found=f"At layer {int(best['layer'])} one dimension swaps {best['swapped']:.0%} of the "
        f"answers, the whole residual {best['whole_swapped']:.0%}.",
    )
    shown_table(table(run, "learn/ranks"), "ranks", run.study)
    if run.has("search/ranges"):
        ranges, curves = table(run, "search/ranges"), table(run, "search/curves")
        charts(
            "search",
            figures.knob_search(ranges, curves),
            shows="Attention's output of some layers (dots) is taken from the other prompt: the "
            "probability of that prompt's answer, read after every layer.",
        )


def _effects(run: Run) -> None:
    several = figures.of_both_models(run, "configurations")
    r = float(run.metrics.get("separation correlates", float("nan")))
    charts(
        "separation",
        figures.knob_separation(several, r),
        shows="A dot is a way of asking a model: how far the two intents lie apart along the knob, "
        "and how many pairs are right. A dot far to the right with no pair right would be a "
        "surprise.",
        found=f"Over {len(several)} ways r = {r:.2f}; look whether one dot decides it."
        if r == r
        else "",
    )
    effects = figures.of_both_models(run, "perplexity")
    st.subheader("What does it cost?")
    model = str(effects["model"].iloc[0])
    rest = effects[(effects["model"] == model) & effects["c"].isna()]
    mean = (rest["nats"] * rest["tokens"]).sum() / rest["tokens"].sum()
    charts(
        "cost",
        figures.knob_text_cost(effects),
        figures.knob_positions(effects, model),
        shows="The loss on ordinary text while the knob is held at every position, over c and by "
        "position. No cost at a value that steers would be a surprise.",
        found=f"Not steered, the {model} model's loss is {mean:.2f} nats a token.",
    )


def _decoded(run: Run) -> None:
    st.subheader("What is the direction?")
    st.caption(
        "The tokens that it raises and lowers through the LM head, and the neurons that write "
        "along it. A random direction has z about 4 too."
    )
    for name in ("tokens", "neurons", "split"):
        if run.has(f"decode/{name}"):
            rows = table(run, f"decode/{name}")
            shown_table(rows if name == "split" else rows.filter(DECODED), name, run.study)
    code(["interp", "directions", "decode", knob_folder(run)])
