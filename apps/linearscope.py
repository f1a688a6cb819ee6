"""The LinearScope page: votes and biases, singular vectors, responses, and a prompt's tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import streamlit as st

from interp.apps import pool
from interp.apps.address import bound
from interp.apps.columns import shown_table
from interp.apps.common import cached, errors_in_place, in_tabs, table
from interp.apps.offering import offer_run
from interp.apps.picking import pick_run
from interp.apps.shown import charts
from interp.apps.uploads import LARGEST
from interp.apps.words import listed, plain
from interp.errors import UserError
from interp.linearscope import figures
from interp.linearscope.explain import BiasConfig, ExplainConfig
from interp.linearscope.pictures import open_picture
from interp.linearscope.responses import ImpulseConfig, SvdConfig
from interp.linearscope.tokens import TokensConfig
from interp.plain_tensors import read_arrays
from interp.runs.fit import rebuilt
from interp.runs.store import Run, Store
from interp.runs.study import Study

TYPES = ["png", "jpg", "jpeg", "webp", "bmp"]


@cached
def tensors(run: Run, name: str) -> dict[str, np.ndarray]:
    return read_arrays(run.part(f"{name}.safetensors"))


class View(NamedTuple):
    """A tab."""

    config: type[Study]
    parameter: str
    """The part of the URL that names the stored run."""
    main: str
    """The run's table that can be downloaded."""
    show: Callable[[Run], None]
    """Draws a run."""
    ask: Callable[[Run | None], Study | None] = lambda _: None
    """What the visitor wants instead of the stored run, if anything."""


@errors_in_place()
def page() -> None:
    st.title("LinearScope")
    st.caption(
        "For one input, a network with frozen decisions is exactly A x + r. An output is the sum "
        "of what every pixel or token adds to it and of what the biases add."
    )
    in_tabs({title: partial(_view, title, view) for title, view in VIEWS.items()})


def _view(title: str, view: View) -> None:
    study = view.config.STUDY
    run = pick_run(study, title, view.parameter) if Store().runs(study) else None
    if asked := view.ask(run):
        with st.spinner("computing …"):
            run = pool.run(asked)
    run = run or pick_run(study)  # without any run it says how to make one
    view.show(run)
    offer_run(table(run, view.main), view.main, run)


def _uploaded(_: Run | None) -> Study | None:
    label = "A picture of your own, for EfficientNet-Lite0"
    given = st.file_uploader(plain(label), TYPES, max_upload_size=LARGEST)
    if given is None:
        return None
    return ExplainConfig(image=str(_kept(given.name, given.getvalue())))


def _kept(name: str, content: bytes) -> Path:
    """An uploaded picture's file, beside the runs so that the command line finds it too. What is
    no picture leaves nothing there."""
    file = f"{hashlib.sha256(content).hexdigest()[:12]}{Path(name).suffix.lower()}"
    with TemporaryDirectory() as elsewhere:
        tried = Path(elsewhere) / file
        tried.write_bytes(content)
        open_picture(str(tried))
    folder = Store().root / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file
    path.write_bytes(content)
    return path


def _votes(run: Run) -> None:
    classes, maps = table(run, "classes"), tensors(run, "maps")
    named = zip(classes["label"], classes["probability"], strict=True)
    titles = [f"{name} {chance:.0%}" for name, chance in named]
    charts("votes", figures.vote_maps(maps["votes"], maps["picture"], titles))
    shown_table(classes, "classes", run.study)
    # by number: ImageNet has two classes "crane" and two "maillot"
    names = dict(zip(classes["class"], classes["label"], strict=True))
    if not names:
        raise UserError(f"{run.path} cannot be shown: it explains no class")
    label = "The class whose bias r is split by layer"
    place = bound("class", next(iter(names), None), names, int)
    which = st.selectbox(
        plain(label), list(names), key=place, format_func=lambda c: listed(f"{names[c]} ({c})")
    )
    if which not in names:
        raise UserError(f"this run has no class {which}")
    chosen = table(run, "layers").query("`class` == @which")
    charts("layers", figures.layer_constants(chosen, f"r of {names[which]}, layer by layer"))


def _biases(run: Run) -> None:
    pictures = table(run, "pictures")
    middle = pictures["share"].median()
    st.caption(f"Median share of the biases over {len(pictures):,} pictures: {middle:.2f}.")
    charts("shares", figures.bias_shares(pictures))
    shown_table(pictures, "pictures", run.study)


def _svd(run: Run) -> None:
    values, vectors = table(run, "values"), tensors(run, "vectors")
    left, right = st.columns([1, 3])
    left.image(vectors["picture"], caption=plain(f"{run.config['model']}: {run.config['image']}"))
    with right:
        charts("values", figures.singular_values(values))
    shown_table(values, "singular", run.study)
    titles = [f"{value:.3g}" for value in values["value"]]
    sides = {"right": "Right singular vectors: the input patterns that pass best"}
    if vectors["left"].ndim == 4:
        sides["left"] = "Left singular vectors: the output patterns that they become"
    for side, title in sides.items():
        charts(side, figures.picture_strip(vectors[side], titles, title))
    _metrics(run)


def _another_pixel(stored: Run | None) -> Study | None:
    if stored is None:
        return None
    if ":" in stored.config["model"]:  # from wherever the run is: its code is not run here
        st.caption("The network is your own code: the command below computes another pixel.")
        return None
    typed = st.text_input("Another pixel of the output, as y,x (runs the network)", key="another")
    return rebuilt(ImpulseConfig, stored.config, at=(typed,)) if typed else None


def _impulse(run: Run) -> None:
    places, responses = table(run, "places"), tensors(run, "responses")
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
            charts(title, figures.picture_strip(picture[None], [""], title, columns=1))
    shown_table(places, "places", run.study)
    _metrics(run)


def _prompted(_: Run | None) -> Study | None:
    with st.form("prompt"):
        prompt = st.text_input("Prompt", "The capital of France is")
        left, right = st.columns(2)
        words = left.text_area("Tokens to explain, one per line, with spaces", " Paris\n London")
        site = right.text_input("Site", "0.resid_pre")
        if not st.form_submit_button("Split the logits"):
            return None
    return TokensConfig(prompt=prompt, site=site, words=tuple(filter(None, words.split("\n"))))


def _tokens(run: Run) -> None:
    st.caption(plain(f"{run.config['model']}, {run.config['site']}: {run.config['prompt']}"))
    charts("tokens", figures.token_contributions(table(run, "tokens")))
    shown_table(table(run, "logits"), "logits", run.study)
    st.caption(
        "The rows are directions at the site: the Directions page decodes and compares them."
    )


VIEWS = {
    "Votes": View(ExplainConfig, "votes", "classes", _votes, _uploaded),
    "Biases of many pictures": View(BiasConfig, "biases", "pictures", _biases),
    "Singular vectors": View(SvdConfig, "svd", "values", _svd),
    "Responses": View(ImpulseConfig, "impulse", "places", _impulse, _another_pixel),
    "Tokens": View(TokensConfig, "tokens", "tokens", _tokens, _prompted),
}
"""The tabs by their titles."""


def _metrics(run: Run) -> None:
    facts = [f"{name}: {value:.4g}" for name, value in run.metrics.items() if _is_number(value)]
    st.markdown(plain("; ".join(facts)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _crop(picture: np.ndarray, margin: int = 4, least: float = 0.02) -> np.ndarray:
    """A picture [c, h, w] cut to where it is above `least` of its maximum, with a margin."""
    size = np.abs(picture).max(0)
    rows, columns = (np.flatnonzero(size.max(axis) > least * size.max()) for axis in (1, 0))
    if not len(rows):
        return picture
    top, bottom = max(rows[0] - margin, 0), rows[-1] + margin + 1
    return picture[:, top:bottom, max(columns[0] - margin, 0) : columns[-1] + margin + 1]
