"""The context knob page: steer your own question, and read what a run measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from interp.apps import pool
from interp.apps.address import bound
from interp.apps.answers import remembered
from interp.apps.common import (
    charts,
    code,
    consent,
    download,
    errors_in_place,
    in_tabs,
    offer,
    offer_run,
    pick_run,
    plain,
    table,
)
from interp.errors import UserError
from interp.knob import figures
from interp.model.vocabulary import visible
from interp.plain_numbers import exact
from interp.runs.command import store_words
from interp.runs.shipped import is_shipped, shipped
from interp.runs.store import Run, Store

if TYPE_CHECKING:
    from interp.directions import Directions

STUDIES = {"a run of all stages": "knob.run", "a run that learned the knob": "knob.learn"}
WORDS = {
    "setting": "how it is asked",
    "model": "model",
    "direction": "direction",
    "part": "held-out part",
    "pair_acc": "PairAcc",
    "pair_acc_low": "from",
    "pair_acc_high": "to",
    "named": "names the answer",
    "named_low": "from ",
    "named_high": "to ",
    "prior": "right: prior knowledge",
    "context": "right: context",
    "pairs": "pairs",
    "facts": "facts",
    "rank": "dimensions",
    "layer": "layer",
    "loss": "loss, nats",
    "swapped": "answers swapped",
    "whole_loss": "loss of the whole residual, nats",
    "whole_swapped": "swapped by the whole residual",
    "rows": "items",
    "neuron": "neuron",
    "cosine": "cosine",
    "top": "most raised tokens",
    "top_z": "z of the first",
    "bottom": "most lowered tokens",
    "bottom_z": "z of the first ",
    "context_c": "c for the context",
    "prior_c": "c for prior knowledge",
}
"""Columns that are shown, in words; others stay in the download."""
HELP = {
    "pair_acc": "Pairs in which both prompts, the one that asks by the context and the one that "
    "asks by prior knowledge, get their own answer at the beginning of the text.",
    "named": "Pairs in which each text names its own answer, and not the other.",
    "swapped": "How often the other prompt's value makes the other prompt's answer likeliest.",
    "top_z": "Distance from the mean logit in standard deviations.",
}


@errors_in_place()
def page() -> None:
    st.title("The context knob")
    st.caption(
        "One direction at one layer decides whether the model answers by the text before the "
        "question or by what it knows. Held at one value it believes the text, at another it "
        "does not."
    )
    own = {what: study for what, study in STUDIES.items() if Store().looked_through(study)[0]}
    kinds = own | {what: study for what, study in STUDIES.items() if shipped(study)}
    choices = list(kinds)
    place = bound("from", choices[0], choices)
    chosen = st.sidebar.radio("Measured by", choices, key=place, format_func=plain)
    run = pick_run(kinds.get(str(chosen), kinds[choices[0]]))
    in_tabs({"Steer": _steer, "Measured": _measured}, run)


def _steer(run: Run) -> None:
    from interp.knob.steer_prompt import pick_direction, read_knob

    knob = read_knob(_folder(run))
    names = knob.names
    name = st.selectbox("Direction", names, key=bound("along", names[0], names))
    direction = pick_direction(knob, name)
    context = st.text_input(
        "Context", key=bound("context", "The capital of France is Rome."), help="May be wrong."
    )
    query = st.text_input("Question", key=bound("query", "The capital of France is"))
    c = _value(direction)
    if not st.toggle("Run the model", key=bound("live", False)):
        st.info("Nothing is loaded yet: the model loads when it is to run.")
        return
    consent(run.config["model"])
    rows = _answers(run, direction, context, query, c)
    labels = ("as it is", f"c = {c:.1f}")
    for column, shown, label in zip(st.columns(2), rows, labels, strict=True):
        column.metric(plain(label), plain(shown["text"] or "—"))
        bars = figures.knob_answers(shown["tokens"], shown["probabilities"])
        column.plotly_chart(bars, key=label)
    before, after = (visible(str(row["tokens"][0])) for row in rows)
    same = "the same first token" if before == after else "another first token"
    st.markdown(plain(
        f"Held at {c:.1f}, the model begins with “{after}” ({rows[1]['probabilities'][0]:.2g}), "
        f"as it is with “{before}” ({rows[0]['probabilities'][0]:.2g}): {same}."
    ))  # fmt: skip
    _offered(run, name, context, query, c, rows)


def _value(direction: Directions) -> float:
    """The slider. It opens at prior knowledge: behind a context, models believe the context."""
    row = direction.index.iloc[0]
    told, known = float(row["context_c"]), float(row["prior_c"])
    low, high = sorted((told, known))
    margin = max((high - low) / 2, 1.0)
    st.caption(plain(
        f"At {direction.site}. Validation items chose c = {told:.1f} for the context and "
        f"{known:.1f} for prior knowledge. The slider opens at prior knowledge."
    ))  # fmt: skip
    ends = round(low - margin, 1), round(high + margin, 1)
    place = bound(f"c {direction.names[0]}", round(known, 1))
    st.session_state[place] = min(max(float(st.session_state[place]), ends[0]), ends[1])
    return float(st.slider("c, the value of u·h", *ends, step=0.1, key=place, format="%.1f"))


def _answers(
    run: Run, direction: Directions, context: str, query: str, c: float
) -> list[dict[str, Any]]:
    """What the model says as it is and at c, from the pool's one copy."""
    from interp.directions.sources import content
    from interp.knob.items import Item
    from interp.knob.steer_prompt import steering_curve

    if not query.strip():
        raise UserError("the question is empty: type some text")
    model, template = str(run.config["model"]), run.config["template"]

    def asked(value: float | None) -> dict[str, Any]:
        item = Item("own", "own", context, query, "", "")
        with pool.borrowed(model, adapter=_adapter(run)) as subject, st.spinner("running …"):
            return steering_curve(subject, item, direction, [value], template=template)[0]

    own = ("knob", pool.content(model, adapter=_adapter(run)), template, context, query)
    plain_row = remembered(own, lambda: asked(None))
    along = (content(_folder(run)), direction.names[0], c)
    return [plain_row, remembered((*own, *along), lambda: asked(c))]


def _folder(run: Run) -> str:
    return str(run.path / "knob")


def _adapter(run: Run) -> str:
    """The adapter that the run made, or used."""
    own = "adapter/adapter_config.json" in run.files
    return str(run.path / "adapter") if own else str(run.config.get("adapter", "none"))


def _offered(
    run: Run, name: str, context: str, query: str, c: float, rows: list[dict[str, Any]]
) -> None:
    model, template, adapter = run.config["model"], run.config["template"], _adapter(run)
    folder = "shipped" if is_shipped(run) else _folder(run)
    command = ["interp", "knob", "steer", "--adapter", adapter, "--context", context]
    command += ["--knob", folder, "--query", query, "--value", exact(c)]
    command += ["--direction", name, "--model", model, "--template", template]
    command += store_words(Store().root)
    call = (
        "from interp.knob.adapter import open_tuned\nfrom interp.knob.items import Item\n"
        "from interp.knob.steer_prompt import pick_direction, read_knob, steering_curve\n"
        f"direction = pick_direction(read_knob({folder!r}), {name!r})\n"
        f"item = Item('own', 'own', {context!r}, {query!r}, '', '')\n"
        f"subject = open_tuned({model!r}, {adapter!r})\n"
        f"rows = steering_curve(subject, item, direction, [None, {c!r}], template={template!r})"
    )
    offer(pd.DataFrame(rows), "answers", command, call)


def _measured(run: Run) -> None:
    if run.has("scores/scores"):
        _scored(run)
    _steering(run)
    _layers(run)
    _effects(run)
    _decoded(run)


def _shown(rows: pd.DataFrame) -> None:
    """A table with its columns in words, and numbers of two decimals."""
    known = [name for name in WORDS if name in rows]
    shown = rows[known].copy()
    for name in known:
        if name in ("top", "bottom"):
            shown[name] = [" ".join(map(visible, tokens)) for tokens in rows[name]]
        elif name in ("pairs", "facts", "rows", "rank", "layer"):
            shown[name] = rows[name].astype(int)
    st.dataframe(
        shown.round(2),
        hide_index=True,
        column_config={
            name: st.column_config.Column(WORDS[name], help=HELP.get(name)) for name in known
        },
    )


def _scored(run: Run) -> None:
    st.subheader("Does the model answer by the intent?")
    st.caption(
        "Each question is asked twice, by the context and by prior knowledge; a pair counts where "
        "both are right. The intervals are 95 % over facts."
    )
    own = table(run, "scores/scores")
    _shown(own)
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
            found=f"{setting}: at most {by.get('learned', float('nan')):.2f} of the pairs are "
            f"right by the learned direction, {by.get('none', float('nan')):.2f} with the intent "
            "in the prompt.",
        )
    _shown(scores)
    offer_run(scores, "knob scores", run, "run.table('steer/scores')")


def _layers(run: Run) -> None:
    st.subheader("Which layers decide?")
    layers = table(run, "learn/layers")
    best = layers.iloc[int(layers["swapped"].argmax())]
    charts(
        "layers",
        figures.knob_layers(layers),
        shows="How often the other prompt's value of one dimension makes its answer likeliest, "
        "layer by layer. One dimension that does as much as the whole residual is the finding.",
        found=f"At layer {int(best['layer'])} one dimension swaps {best['swapped']:.0%} of the "
        f"answers, the whole residual {best['whole_swapped']:.0%}.",
    )
    _shown(table(run, "learn/ranks"))
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
        found=f"Over {len(several)} ways r = {r:.2f}; look whether one dot decides it.",
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
            if name == "split":
                st.dataframe(rows.round(3), hide_index=True)
            else:
                _shown(rows)
    code(["interp", "directions", "decode", _folder(run)])
