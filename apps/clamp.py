"""The clamp page: a slider over a stored sweep, the word's probability and the text beside it."""

from __future__ import annotations

import streamlit as st

from interp.apps.common import charts, errors_in_place, offer_run, pick_run, plain, table
from interp.model.vocabulary import visible
from interp.neurons import figures


@errors_in_place()
def page() -> None:
    st.title("Clamp a neuron")
    run = pick_run("neurons.clamp")
    config, word = run.config, run.manifest["word"]
    st.caption(
        f"{plain(config['model'])}: {config['neuron']} held at {config['where']} positions; "
        f"prompt: “{plain(config['prompt'])}”; "
        f"logits within {run.manifest['parity']:.1e} of transformers'."
    )
    rows = table(run, "curve/values")
    held = rows[rows["value"].notna()].sort_values("value").reset_index(drop=True)
    value = st.select_slider("Hold it at", list(held["value"]), format_func=lambda v: f"{v:g}")
    shown = {
        "not clamped": rows[rows["value"].isna()].iloc[0],
        f"held at {value:g}": held[held["value"] == value].iloc[0],
    }
    for column, (name, row) in zip(st.columns(2), shown.items(), strict=True):
        column.metric(f"{visible(word)}, {name}", f"{row['probability']:.3g}")
        column.text(row["text"])
    charts("curve", figures.clamp_curve(rows, config["neuron"], word, value))
    with st.expander("Its own activation on the prompt"):
        st.dataframe(table(run, "curve/activation"), hide_index=True)
    drawn = f"figures.clamp_curve(rows, {config['neuron']!r}, run.manifest['word'])"
    call = f"from interp.neurons import figures\nrows = run.table('curve/values')\n{drawn}"
    offer_run(rows, f"clamp {config['neuron']}", run, call)
