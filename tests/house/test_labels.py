"""Names that a run gives are no tags, entities or formulas in figures: plotly reads all three."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from interp.bench import figures as bench
from interp.circuits import figures as circuits
from interp.circuits import figures_heads as heads
from interp.circuits.groups import grouped
from interp.circuits.picked import Graph, named
from interp.darkmatter import figures as darkmatter
from interp.directions import figures as directions
from interp.knob import figures as knob
from interp.linearscope import figures as linearscope
from interp.neurons import figures as neurons
from interp.obsprop import figures as obsprop
from interp.othello import figures as othello
from interp.plots import label, literal

from ..circuits.planted import tables

EVIL = '<a href="http://evil.example">x</a> $x^2$ &#60;b\u202e'
COLUMNS = {
    "name": EVIL, "side": EVIL, "tokens": [EVIL], "logits": [1.0], "ids": [1], "kind": EVIL,
    "agreement": 0.5, "layer": 0, "value": 1.0, "probability": 0.5, "concept": EVIL,
    "neighbour": EVIL, "a": EVIL, "b": EVIL, "head": EVIL, "coupling": 0.1, "prompts_slope": 0.2,
    "observable": 0.1, "score": 0.2, "positive": True, "text": EVIL, "sae": EVIL, "group": EVIL,
    "context": 0, "position": 1, "error": 1.0, "low": 0.0, "high": 2.0, "d_sae": 8,
    "measure": "r2", "nonlinear": 0.1, "linear": 0.1, "absent": 0.1, "encoder": 0.1,
    "setting": EVIL, "probe": 0, "source": 0.1, "layers": [0], "model": EVIL, "part": EVIL,
    "direction": EVIL, "pair_acc": 0.5, "pair_acc_low": 0.4, "pair_acc_high": 0.6, "c": 1.0,
    "nats": 1.0, "separation": 1.0, "shots": 1, "format": EVIL, "step": 1.0, "module": EVIL,
    "picture": EVIL, "label": EVIL, "share": 0.5, "black_share": 0.5, "logit": EVIL,
    "contribution": 1.0, "token": EVIL, "before": 0.1, "after": 0.2, "shape": EVIL, "ratio": 1.0,
    "variant": "naive", "ratio_max": 1.0, "ratio_min": 1.0,
    "query": 0, "key": 0, "query_token": EVIL, "key_token": EVIL, "weight": 0.5, "moved": 0.5,
    "other": EVIL,
    "gain": 1.0, "control_mean": 0.1, "control_max": 0.2, "edits": 1, "neurons": EVIL,
}  # fmt: skip
"""A table of one row that has every column of every table."""
PICTURE = np.full((1, 2, 2), 0.5)


def table(**changes: object) -> pd.DataFrame:
    return pd.DataFrame([{**COLUMNS, **changes}])


def rows(column: str, *values: object, **changes: object) -> pd.DataFrame:
    return pd.concat([table(**changes, **{column: value}) for value in values], ignore_index=True)


def circuit() -> Graph:
    made = tables([EVIL] * 5, (EVIL, EVIL))
    nodes, edges = grouped(made["nodes"], made["edges"], {EVIL: [8, 9]})
    return Graph(named(nodes), edges, (EVIL,) * 5, {"target": EVIL}, 1.0)


FIGURES = {
    "circuit": lambda: circuits.graph_figure(circuit(), 1, 1),
    "largest": lambda: circuits.largest(circuit()),
    "kinds": lambda: circuits.by_layer(table(absolute=1.0, attribution=1.0, nodes=1)),
    "neuron": lambda: neurons.neuron_tokens(rows("side", "top", "bottom")),
    "standing": lambda: neurons.standing(pd.Series([1.0, 2.0]), {EVIL: 1.5}, "score", EVIL),
    "clamp": lambda: neurons.clamp_curve(rows("value", None, 1.0), EVIL, EVIL),
    "agreement": lambda: neurons.agreement_map(table()),
    "coupling": lambda: obsprop.coupling_scatter(table()),
    "matrix": lambda: obsprop.coupling_matrix(table(), EVIL),
    "measures": lambda: darkmatter.error_measures(table(), {"r2": "R²"}),
    "bands": lambda: darkmatter.error_bands(table()),
    "tokens": lambda: darkmatter.token_scatter(table(), EVIL, EVIL, "error"),
    "search": lambda: knob.knob_search(table(), table()),
    "bars": lambda: knob.knob_bars(table(), EVIL),
    "curve": lambda: knob.knob_curve(
        rows("step", None, 1.0, direction=EVIL, p_told=0.1, p_prior=0.2), EVIL
    ),
    "cost": lambda: knob.knob_text_cost(rows("c", None, 1.0, tokens=5)),
    "positions": lambda: knob.knob_positions(rows("c", None, 1.0), EVIL),
    "separation": lambda: knob.knob_separation(table(), 0.5),
    "answers": lambda: knob.knob_answers([EVIL], [0.5]),
    "votes": lambda: linearscope.vote_maps(PICTURE[None], PICTURE[0], [EVIL]),
    "layers": lambda: linearscope.layer_constants(table(), EVIL),
    "shares": lambda: linearscope.bias_shares(table()),
    "strip": lambda: linearscope.picture_strip(PICTURE[None], [EVIL], "title"),
    "logits": lambda: linearscope.token_contributions(table()),
    "next": lambda: directions.next_tokens(table()),
    "gains": lambda: directions.gains(table(), [EVIL], "latents"),
    "tiles": lambda: othello.tile_maps({EVIL: np.zeros(64)}, "title"),
    "attention": lambda: heads.pattern(table()),
    "patched": lambda: heads.patched(table(head=-1, token="x")),
    "ratios": lambda: bench.kernel_ratios(table()),
}


def texts(part: object) -> list[str]:
    """Every text in a figure that plotly reads: not its sentences, which pages show as they are."""
    if isinstance(part, str):
        return [part]
    if isinstance(part, dict):
        return [text for name, each in part.items() if name != "meta" for text in texts(each)]
    if isinstance(part, list | tuple | np.ndarray):
        return [text for each in part for text in texts(each)]
    return []


@pytest.mark.parametrize("name", FIGURES)
def test_what_a_run_names_is_shown_as_it_is(name):
    figure: go.Figure = FIGURES[name]()
    shown = texts(figure.to_dict()["data"]) + texts(figure.to_dict()["layout"])
    evil = [text for text in shown if "evil" in text]
    assert evil
    for text in evil:
        assert not [sign for sign in ("<a", "$", "\u202e") if sign in text]
        assert "&amp;#60;b" in text


def test_the_texts_are_escaped_in_html_too():
    shown = directions.coloured_tokens(table(token=EVIL + "\n\x1b"))
    assert "<a" not in shown
    assert "\u202e" not in shown
    assert r"⏎<br>\x1b" in shown


def test_a_label_is_literal_and_shows_its_spaces():
    assert literal("a b<i>&$\x9b") == r"a b&lt;i>&amp;&#36;\x9b"
    assert label(" <b>\n") == "␣&lt;b>⏎"
