"""The clamp page: a slider over a stored sweep, the word's probability and the text beside it."""

from __future__ import annotations

import streamlit as st

from interp.apps.common import download, pick_run, plain, reproduce, study_call, table
from interp.model.vocabulary import visible
from interp.neurons import figures
from interp.neurons.clamp import ClampConfig


def page() -> None:
    st.title("Clamp a neuron")
    run = pick_run("neurons.clamp", "interp neurons clamp --neuron 29.gate.808")
    config, word = run.config, run.manifest["word"]
    st.caption(
        f"{plain(config['model'])}: {config['neuron']} held at {config['where']} positions; "
        f"prompt: “{plain(config['prompt'])}”; "
        f"logits within {run.manifest['parity']:.1e} of transformers'."
    )
    rows = table(run, "curve/values")
    held = rows[rows["value"].notna()].sort_values("value").reset_index(drop=True)
    value = st.select_slider("Hold it at", list(held["value"]), format_func=lambda v: f"{v:g}")
    row = held[held["value"] == value].iloc[0]
    unclamped = rows[rows["value"].isna()].iloc[0]
    left, right = st.columns(2)
    for column, name, shown in (
        (left, "not clamped", unclamped),
        (right, f"held at {value:g}", row),
    ):
        column.metric(f"{visible(word)}, {name}", f"{shown['probability']:.3g}")
        column.text(shown["text"])
    curve = figures.clamp_curve(rows, config["neuron"], word, value)
    st.plotly_chart(curve, width="stretch", key="curve")
    with st.expander("Its own activation on the prompt"):
        st.dataframe(table(run, "curve/activation"), hide_index=True, width="stretch")
    download(rows, f"clamp {config['neuron']}")
    _, made = study_call([], config, ClampConfig())
    drawn = f"figures.clamp_curve(rows, {config['neuron']!r}, run.manifest['word'])"
    reproduce(
        _command(config),
        f"from interp.neurons import figures\n{made}rows = run.table('curve/values')\n{drawn}",
    )


def _command(config: dict) -> list[str]:
    command = ["interp", "neurons", "clamp"]
    for name in ("model", "neuron", "prompt", "word", "where", "tokens"):
        if config[name] != "":
            command += [f"--{name}", str(config[name])]
    command += ["--value", *map(repr, config["value"])]
    return command if config["chat"] else [*command, "--no-chat"]
