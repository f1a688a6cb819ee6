"""The LinearScope page: votes and biases, singular vectors, responses, and a prompt's tokens."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from safetensors.numpy import load_file

from interp.apps.common import (
    cached,
    download,
    errors_in_place,
    pick_run,
    plain,
    reproduce,
    study_call,
)
from interp.linearscope import figures
from interp.runs.store import Run, Store
from interp.runs.study import Study, run_or_load

LARGEST_UPLOAD = 10_000_000
"""The most bytes that an uploaded picture may have."""
TYPES = ["png", "jpg", "jpeg", "webp", "bmp"]


def _table(run: Run, name: str) -> pd.DataFrame:
    return pd.read_parquet(run.path / name)


def _tensors(run: Run, name: str) -> dict[str, np.ndarray]:
    return load_file(run.path / name)


table, tensors = cached(_table), cached(_tensors)


def page() -> None:
    st.title("LinearScope")
    st.caption(
        "For one input, a network with frozen decisions is exactly A x + r. An output is the sum "
        "of what every pixel or token adds to it and of what the biases add."
    )
    views = {
        "Votes": _votes,
        "Biases of many pictures": _biases,
        "Singular vectors": _svd,
        "Responses": _impulse,
        "Tokens": _tokens,
    }
    for tab, view in zip(st.tabs(list(views)), views.values(), strict=True):
        with tab, errors_in_place():
            view()


def _votes() -> None:
    from interp.linearscope.explain import ExplainConfig

    given = st.file_uploader("A picture of your own, for EfficientNet-Lite0", TYPES)
    if given is not None:
        if given.size > LARGEST_UPLOAD:
            st.error("The picture has more than 10 MB: make it smaller.")
            return
        run: Run | None = _made(ExplainConfig(image=str(_kept(given.name, given.getvalue()))))
    else:
        run = _stored("linearscope.explain", "explain", "votes")
    if run is None:
        return
    classes, maps = table(run, "classes.parquet"), tensors(run, "maps.safetensors")
    named = zip(classes["label"], classes["probability"], strict=True)
    titles = [f"{name} {chance:.0%}" for name, chance in named]
    st.plotly_chart(
        figures.vote_maps(maps["votes"], maps["picture"], titles), width="stretch", key="votes"
    )
    st.dataframe(classes, hide_index=True)
    # by number: ImageNet has two classes "crane" and two "maillot"
    names = dict(zip(classes["class"], classes["label"], strict=True))
    label = "The class whose bias r is split by layer"
    which = st.selectbox(label, list(names), format_func=lambda c: f"{names[c]} ({c})")
    layers = table(run, "layers.parquet")
    chosen = layers[layers["class"] == which]
    figure = figures.layer_constants(chosen, f"r of {names[which]}, layer by layer")
    st.plotly_chart(figure, width="stretch", key="layers")
    download(classes, "classes")
    _reproduced(run, "explain", ExplainConfig())


def _biases() -> None:
    from interp.linearscope.explain import BiasConfig

    run = _stored("linearscope.bias", "bias", "biases")
    if run is None:
        return
    pictures = table(run, "pictures.parquet")
    middle = pictures["share"].median()
    st.caption(f"Median share of the biases over {len(pictures)} pictures: {middle:.2f}.")
    st.plotly_chart(figures.bias_shares(pictures), width="stretch", key="shares")
    download(pictures, "pictures")
    _reproduced(run, "bias", BiasConfig())


def _svd() -> None:
    from interp.linearscope.responses import SvdConfig

    run = _stored("linearscope.svd", "svd", "svd")
    if run is None:
        return
    values, vectors = table(run, "values.parquet"), tensors(run, "vectors.safetensors")
    left, right = st.columns([1, 3])
    left.image(vectors["picture"], caption=plain(f"{run.config['model']}: {run.config['image']}"))
    right.plotly_chart(figures.singular_values(values), width="stretch", key="values")
    titles = [f"{value:.3g}" for value in values["value"]]
    sides = [("right", "Right singular vectors: the input patterns that pass best")]
    if vectors["left"].ndim == 4:
        sides.append(("left", "Left singular vectors: the output patterns that they become"))
    for side, title in sides:
        figure = figures.picture_strip(vectors[side], titles, title)
        st.plotly_chart(figure, width="stretch", key=side)
    _metrics(run)
    download(values, "singular_values")
    _reproduced(run, "svd", SvdConfig())


def _impulse() -> None:
    from interp.linearscope.responses import ImpulseConfig

    run = _stored("linearscope.impulse", "impulse", "impulse")
    if run is None:
        return
    typed = st.text_input("Another pixel of the output, as y,x (runs the network)", key="another")
    if typed:
        config: dict[str, Any] = {**run.config, "at": (typed,)}
        run = _made(ImpulseConfig(**config))
    places, responses = table(run, "places.parquet"), tensors(run, "responses.safetensors")
    output = (255 * responses["output"].transpose(1, 2, 0).clip(0, 1)).astype(np.uint8)
    left, right = st.columns([2, 3])
    with left:
        before = int(st.session_state.get("place", 0))
        picker = figures.place_picker(output, places, before if before < len(places) else 0)
        click = st.plotly_chart(picker, width="stretch", key="picker", on_select="rerun")
        points = click["selection"]["points"]
        chosen = int(points[0]["customdata"]) if points else 0
        st.session_state["place"] = chosen
    with right:
        for name, title in (
            ("rows", "Its row of A: the input pixels that it depends on"),
            ("columns", "The column of A there: the output pixels that it changes"),
        ):
            picture = _crop(responses[name][chosen])
            figure = figures.picture_strip(picture[None], [""], title, columns=1)
            st.plotly_chart(figure, width="stretch", key=title)
    st.dataframe(places, hide_index=True)
    _metrics(run)
    download(places, "places")
    _reproduced(run, "impulse", ImpulseConfig())


def _tokens() -> None:
    from interp.linearscope.tokens import TokensConfig

    with st.form("prompt"):
        prompt = st.text_input("Prompt", "The capital of France is")
        left, right = st.columns(2)
        words = left.text_area("Tokens to explain, one per line, with spaces", " Paris\n London")
        site = right.text_input("Site", "0.resid_pre")
        asked = st.form_submit_button("Split the logits")
    if asked:
        given = tuple(word for word in words.split("\n") if word)
        run: Run | None = _made(TokensConfig(prompt=prompt, site=site, words=given))
    else:
        run = _stored("linearscope.tokens", "tokens", "tokens")
    if run is None:
        return
    st.caption(plain(f"{run.config['model']}, {run.config['site']}: {run.config['prompt']}"))
    tokens = table(run, "tokens.parquet")
    st.plotly_chart(figures.token_contributions(tokens), width="stretch", key="tokens")
    st.dataframe(table(run, "logits.parquet"), hide_index=True)
    st.caption(
        "The rows are directions at the site: the Directions page decodes and compares them."
    )
    download(tokens, "tokens")
    _reproduced(run, "tokens", TokensConfig())


def _crop(picture: np.ndarray, margin: int = 4, least: float = 0.02) -> np.ndarray:
    """A picture [c, h, w] cut to where it is above `least` of its maximum, with a margin."""
    size = np.abs(picture).max(0)
    rows, columns = (np.flatnonzero(size.max(axis) > least * size.max()) for axis in (1, 0))
    if not len(rows):
        return picture
    top, bottom = max(rows[0] - margin, 0), rows[-1] + margin + 1
    return picture[:, top:bottom, max(columns[0] - margin, 0) : columns[-1] + margin + 1]


def _stored(study: str, command: str, parameter: str) -> Run | None:
    """A stored run, or how to make one; `pick_run` alone would end the other tabs too."""
    if not Store().runs(study):
        st.info(f"No run of {study} yet. Make one:")
        st.code(f"interp linearscope {command}", language="bash")
        return None
    return pick_run(study, parameter.capitalize(), parameter)


def _made(config: Study) -> Run:
    with st.spinner("computing …"):
        return run_or_load(config)


def _kept(name: str, content: bytes) -> Path:
    """The file of an uploaded picture, beside the runs so that the command line finds it too."""
    folder = Store().root / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(content).hexdigest()[:12]}{Path(name).suffix.lower()}"
    path.write_bytes(content)
    return path


def _metrics(run: Run) -> None:
    rows = [{"metric": name, "value": str(value)} for name, value in run.metrics.items()]
    st.dataframe(pd.DataFrame(rows), hide_index=True)


def _reproduced(run: Run, command: str, usual: Study) -> None:
    reproduce(*study_call(run.study, run.config))
