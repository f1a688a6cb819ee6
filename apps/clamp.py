"""The clamp page: a slider over a stored sweep, the word's probability and the text beside it."""

from __future__ import annotations

import streamlit as st

from interp.apps.common import charts, errors_in_place, offer_run, pick_run, plain, table
from interp.errors import UserError
from interp.model.vocabulary import visible
from interp.neurons import figures


@errors_in_place()
def page() -> None:
    st.title("Clamp a neuron")
    run = pick_run("neurons.clamp")
    config, word = run.config, run.manifest["word"]
    rows = table(run, "curve/values")
    asked = config["prompt"]
    prompts = [asked] if isinstance(asked, str) else list(asked)  # an earlier version has one
    if not prompts:
        raise UserError(f"{run.path} has no prompt: make it again with --fresh")
    about = "prompt" if len(prompts) == 1 else f"{len(prompts)} prompts, the first"
    st.caption(
        plain(
            f"{config['model']}: {config['neuron']} held at {config['where']} positions; "
            f"{about}: “{prompts[0]}”; logits within {run.manifest['parity']:.1e} of transformers'."
        )
    )
    if len(prompts) > 1:
        prompt = st.selectbox("Prompt", prompts)
        rows = rows[rows["prompt"] == prompt]
    held = rows[rows["value"].notna()].sort_values("value").reset_index(drop=True)
    if held.empty or len(held) == len(rows):
        raise UserError(f"{run.path} has no values of this prompt: make it again with --fresh")
    value = st.select_slider("Hold it at", list(held["value"]), format_func=lambda v: f"{v:g}")
    shown = {
        "not clamped": rows[rows["value"].isna()].iloc[0],
        f"held at {value:g}": held[held["value"] == value].iloc[0],
    }
    for column, (name, row) in zip(st.columns(2), shown.items(), strict=True):
        column.metric(plain(f"{visible(word)}, {name}"), f"{row['probability']:.3g}")
        column.text(row["text"])
    source = "curve/means" if run.has("curve/means") else "curve/values"
    means = table(run, source)
    charts("curve", figures.clamp_curve(means, config["neuron"], word, value))
    if len(prompts) > 1:
        st.caption("The curve is the mean over the prompts; the bars are 95 % intervals over them.")
    else:
        st.caption("One prompt has no interval: give --prompt several for a mean with one.")
    with st.expander("Its own activation on the prompt"):
        st.dataframe(table(run, "curve/activation"), hide_index=True)
    drawn = f"figures.clamp_curve(rows, {config['neuron']!r}, run.manifest['word'])"
    call = f"from interp.neurons import figures\nrows = run.table({source!r})\n{drawn}"
    offer_run(means, f"clamp {config['neuron']}", run, call)
