"""The clamp page: turn a stored sweep's slider, watch the word's probability and the text."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from interp.apps.common import cached, download, pick_run, plain, reproduce
from interp.model.vocabulary import visible
from interp.neurons import figures
from interp.runs.store import Run


def _table(run: Run, name: str) -> pd.DataFrame:
    return pd.read_parquet(run.path / "curve" / f"{name}.parquet")


table = cached(_table)


def page() -> None:
    st.title("Clamp a neuron")
    run = pick_run("neurons.clamp", "interp neurons clamp --neuron 29.gate.808")
    config, word = run.config, run.manifest["word"]
    st.caption(
        f"{plain(config['model'])}: {config['neuron']} held at {config['where']} positions; "
        f"prompt: “{plain(config['prompt'])}”; "
        f"logits within {run.manifest['parity']:.1e} of transformers'."
    )
    rows = table(run, "values")
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
        st.dataframe(table(run, "activation"), hide_index=True, width="stretch")
    download(rows, f"clamp {config['neuron']}")
    reproduce(_command(config), _call(config))


def _command(config: dict) -> list[str]:
    command = ["interp", "neurons", "clamp"]
    for name in ("model", "neuron", "prompt", "word", "where", "tokens"):
        if config[name] != "":
            command += [f"--{name}", str(config[name])]
    command += ["--value", *map(repr, config["value"])]
    return command if config["chat"] else [*command, "--no-chat"]


def _call(config: dict) -> str:
    kept = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if k != "device"}
    arguments = ", ".join(f"{name}={value!r}" for name, value in kept.items())
    return (
        "import pandas as pd\nfrom interp import figures\n"
        "from interp.neurons.clamp import ClampConfig\nfrom interp.runs.study import run_or_load\n"
        f"run = run_or_load(ClampConfig({arguments}))\n"
        "rows = pd.read_parquet(run.path / 'curve' / 'values.parquet')\n"
        f"figures.clamp_curve(rows, {config['neuron']!r}, run.manifest['word'])"
    )
