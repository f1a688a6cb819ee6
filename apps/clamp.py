"""The clamp page: a stored sweep, opened where it does most; the word's probability and the text
beside it; the way to other values."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from interp.apps.address import bound
from interp.apps.carry import carry_on
from interp.apps.columns import shown_table
from interp.apps.common import (
    charts,
    errors_in_place,
    link,
    listed,
    offer_run,
    pick_run,
    plain,
    table,
)
from interp.errors import UserError
from interp.model.vocabulary import visible
from interp.neurons import figures
from interp.plain_numbers import exact
from interp.plots import row_at_most
from interp.runs.store import Run


@errors_in_place()
def page() -> None:
    st.title("Clamp a neuron")
    run = pick_run("neurons.clamp")
    config, word = run.config, run.manifest["word"]
    st.caption(
        plain(
            f"{config['model']}: {config['neuron']} is held at a value at {config['where']} "
            f"positions, and the model is asked for the next token. Logits are within "
            f"{run.manifest['parity']:.1e} of transformers'."
        )
    )
    rows = _of_a_prompt(run)
    held = rows[rows["value"].notna()].sort_values("value").reset_index(drop=True)
    if held.empty or len(held) == len(rows):
        raise UserError(f"{run.path} has no values of this prompt: make it again with --fresh")
    before = rows[rows["value"].isna()].iloc[0]
    values = [float(value) for value in held["value"]]
    place = bound("value", _strongest(held, before), values)
    value = st.select_slider("Hold it at", values, key=place, format_func=exact)
    after = held[held["value"] == value].iloc[0]
    shown = {"not clamped": before, f"held at {exact(value)}": after}
    for column, (name, row) in zip(st.columns(2), shown.items(), strict=True):
        column.metric(plain(f"probability of {visible(word)}, {name}"), f"{row['probability']:.2g}")
        column.caption("What the model goes on with:")
        column.text(row["text"])
    source = "curve/means" if run.has("curve/means") else "curve/values"
    means = table(run, source)
    charts("curve", figures.clamp_curve(means, config["neuron"], word, value))
    if len(_prompts(run)) > 1:
        st.caption("The curve is the mean over the prompts; the bars are 95 % intervals over them.")
    else:
        st.caption("One prompt has no interval: give --prompt several for a mean with one.")
    _other_values(run)
    with st.expander("Its own activation on the prompt"):
        shown_table(table(run, "curve/activation"), "activation", run.study)
    drawn = f"figures.clamp_curve(rows, {config['neuron']!r}, run.manifest['word'])"
    call = f"from interp.neurons import figures\nrows = run.table({source!r})\n{drawn}"
    offer_run(means, f"clamp {config['neuron']}", run, call)


def _prompts(run: Run) -> list[str]:
    asked = run.config["prompt"]
    return [asked] if isinstance(asked, str) else list(asked)  # an earlier version has one


def _of_a_prompt(run: Run) -> pd.DataFrame:
    """The values of one prompt, which of several is chosen."""
    rows, prompts = table(run, "curve/values"), _prompts(run)
    if not prompts:
        raise UserError(f"{run.path} has no prompt: make it again with --fresh")
    if len(prompts) == 1:
        st.caption(plain(f"Prompt: “{prompts[0]}”"))
        return rows
    key = bound("prompt", prompts[0], prompts)
    chosen = st.selectbox("Prompt", prompts, key=key, format_func=listed)
    return rows[rows["prompt"] == chosen]


def _strongest(held: pd.DataFrame, before: pd.Series) -> float:
    """The value that raises the word most; where none raises it, the one that lowers it most."""
    best = row_at_most(held, held["probability"])
    if best["probability"] <= before["probability"]:
        best = row_at_most(held, -held["probability"])
    return float(best["value"])


def _other_values(run: Run) -> None:
    config = run.config
    with st.container(horizontal=True):
        link(
            "new",
            "Hold it at other values",
            icon=":material/add:",
            study=run.study,
            model=str(config["model"]),
            neuron=str(config["neuron"]),
            prompt=_prompts(run)[0],
        )
        carry_on(str(config["neuron"]), str(config["model"]), "clamped")
