"""The removal page: a concept turned out of the weights, and what that costs."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from interp.apps.common import cached, download, errors_in_place, pick_run, plain, reproduce
from interp.neurons import figures
from interp.runs.store import Run


def _table(run: Run, name: str) -> pd.DataFrame:
    return pd.read_parquet(run.path / "tars" / f"{name}.parquet")


table = cached(_table)


def page() -> None:
    st.title("Remove a concept")
    run = pick_run("neurons.tars", "interp neurons tars")
    with errors_in_place():
        _removal(run)


def _removal(run: Run) -> None:
    config, effects = run.config, table(run, "effects")
    st.caption(
        plain(
            f"{config['model']}: write vectors of the neurons closest to a word's row of the LM "
            f"head ({config['target']}) turned against it; divergence over {config['tokens']} "
            "tokens. Controls of the same layers: dashed, neurons that add as much at the end of "
            "the describing text; dotted, random ones."
        )
    )
    concept = st.selectbox("Concept", list(dict.fromkeys(effects["concept"])))
    figure = figures.removal_curves(effects, concept)
    st.plotly_chart(figure, width="stretch", key="curves")
    own = effects[effects["concept"] == concept].drop(columns="concept")
    st.dataframe(own, hide_index=True, width="stretch")
    download(effects, "concept removal")
    with st.expander("Prompt by prompt"):
        prompts = table(run, "prompts")
        st.dataframe(prompts[prompts["concept"] == concept], hide_index=True, width="stretch")
    with st.expander("The neurons that were turned"):
        turned = table(run, "edits")
        st.dataframe(turned[turned["concept"] == concept], hide_index=True, width="stretch")
    with st.expander("All concepts together"):
        st.dataframe(table(run, "cumulative"), hide_index=True, width="stretch")
    reproduce(_command(config), _call(config, concept))


def _command(config: dict) -> list[str]:
    command = ["interp", "neurons", "tars", "--model", str(config["model"])]
    for name in ("file", "corpus"):
        command += [f"--{name}", config[name]] if config[name] else []
    command += ["--concepts", *config["concepts"]] if config["concepts"] else []
    command += ["--edits", *map(str, config["edits"]), "--target", config["target"]]
    return [*command, "--tokens", str(config["tokens"]), "--seed", str(config["seed"])]


def _call(config: dict, concept: str) -> str:
    kept = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if k != "device"}
    arguments = ", ".join(f"{name}={value!r}" for name, value in kept.items())
    return (
        "import pandas as pd\nfrom interp import figures\n"
        "from interp.neurons.tars import TarsConfig\nfrom interp.runs.study import run_or_load\n"
        f"run = run_or_load(TarsConfig({arguments}))\n"
        "effects = pd.read_parquet(run.path / 'tars' / 'effects.parquet')\n"
        f"figures.removal_curves(effects, {concept!r})"
    )
