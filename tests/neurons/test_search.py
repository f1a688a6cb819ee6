"""Scores and figures over a hand-made atlas."""

import numpy as np
import pandas as pd
import pytest

from interp.errors import UserError
from interp.neurons import figures, search
from interp.runs.store import open_run

from ..manifests import finish_by_hand


@pytest.fixture
def atlas(tmp_path):
    """Two neurons over a vocabulary of four; the logits are easy to check by hand. As version 2
    left it: without random directions and coherence."""
    rows = []
    for neuron, order in ((0, [0, 1, 2, 3]), (1, [2, 0, 3, 1])):
        for side, ids in (("top", order), ("bottom", order[::-1])):
            logits = [3.0, 2.0, -2.0, -3.0] if side == "top" else [-3.0, -2.0, 2.0, 3.0]
            rows.append(
                {"layer": 0, "kind": "up", "neuron": neuron, "side": side, "ids": ids,
                 "tokens": [" <b>&", "dog", " cat", " \n"], "logits": logits, "std": 2.0,
                 "z": 1.5, "margin": 2.5 if (neuron, side) == (0, "top") else 0.5,
                 "skewness": 0.0, "kurtosis": 0.0, "entropy": 1.0, "max_prob": 0.5,
                 "norm": 1.0 + neuron}
            )  # fmt: skip
    words = {
        "id": range(4),
        "token": [" dog", "Dogs", " cat", "\n"],
        "word": ["dog", "dog", "cat", ""],
    }
    made = {
        "neurons/L000.parquet": pd.DataFrame(rows).to_parquet,
        "vocabulary/tokens.parquet": pd.DataFrame(words).to_parquet,
    }
    about = {"model": {"n_layers": 1, "d_mlp": 2}, "kinds": ["up"]}
    config = {"k": 4, "model": "m"}
    return open_run(finish_by_hand(tmp_path, "neurons.atlas", config, made=made, **about))


def test_score_is_z_plus_lead_over_other_words(atlas):
    rows = search.find(atlas, "dogs").set_index(["neuron", "side"])
    # neuron 0, top: dog first (z 1.5); first other word is cat at -2, (3 + 2) / 2 behind
    assert rows.loc[(0, "top"), "score"] == pytest.approx(1.5 + 2.5)
    # neuron 1, top: cat leads, dog second at logit 2, half a deviation behind
    assert rows.loc[(1, "top"), "rank"] == 2
    assert rows.loc[(1, "top"), "score"] == pytest.approx(1.0 - 0.5)
    assert list(rows["score"]) == sorted(rows["score"], reverse=True)


@pytest.mark.parametrize(
    ("word", "exact", "says"),
    [
        ("zzz", False, "no single token stands for 'zzz'"),
        ("zzz", True, "no token is exactly 'zzz'"),
        ("a\nb", False, "no single token stands for"),
        ("'s", False, "no single token stands for ''s'"),
        ("␣cats", False, "write it as text, ' cats'"),
    ],
)
def test_a_word_that_no_token_stands_for(atlas, word, exact, says):
    with pytest.raises(UserError, match=says):
        search.word_ids(atlas, word, exact)


def test_exact_matches_one_token(atlas):
    family, exact = search.find(atlas, "dog"), search.find(atlas, " dog", exact=True)
    assert family.iloc[0]["score"] != exact.iloc[0]["score"] or len(family) >= len(exact)
    row = exact[(exact["neuron"] == 0) & (exact["side"] == "top")].iloc[0]
    assert row["lead"] == pytest.approx(0.5)  # 'Dogs' is now a rival


def test_density_counts_every_row(atlas):
    for statistic in search.statistics(atlas):
        assert search.density(atlas, statistic)["count"].sum() == 4


def test_figures_draw_odd_tokens_and_constant_statistics(atlas):
    rows = search.show(atlas, "0.up.1")
    figure = figures.neuron_tokens(rows)
    assert figure.data[0].y[0] == "1  ␣&lt;b>&amp;"
    assert "⏎" in figure.data[0].y[3]
    assert list(figure.data[1].x) == [-3.0, -2.0, 2.0, 3.0]
    first, second = figure.layout.xaxis.range, figure.layout.xaxis2.range
    assert first == second == pytest.approx((-3.09, 3.09))  # one scale
    assert len(figures.layer_density(search.density(atlas, "z"), "z").data) == 1
    values = search.values_in_layer(atlas, "0.up.1", "norm")
    figure = figures.standing(values, {"top": 2.0, "bottom": 2.0}, "norm", "layer 0")
    assert "above 50.0%" in figure.data[1].name
    assert sum(figure.data[0].y) == len(values)


def test_an_older_atlas_opens_without_p(atlas):
    for rows in (search.find(atlas, "dog"), search.show(atlas, "0.up.1"), search.top(atlas)):
        assert "score" in rows
        assert not {"p", "q", "coherence"} & set(rows)
    assert "so no p and q" in search.chance_note(atlas)
    assert "coherence" not in search.statistics(atlas)
    for ask in (lambda: search.find(atlas, "dog", by="coherence"),
                lambda: search.top(atlas, by="coherence")):  # fmt: skip
        with pytest.raises(UserError, match="an earlier version made this atlas"):
            ask()
    with pytest.raises(UserError, match="no statistic 'coherence' in this atlas"):
        search.density(atlas, "coherence")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kinds": ["gate"]}, "no kind gate in this atlas: it has up"),
        ({"kinds": "up"}, "no kind up in this atlas"),
        ({"layer": 1}, "no layer 1 in this atlas: it has layers 0..0"),
        ({"up_to": -1}, "no layer -1 in this atlas"),
        ({"limit": 0}, "the limit must be at least 1, not 0"),
        ({"limit": -1}, "the limit must be at least 1, not -1"),
        ({"word": "\udcff"}, "half of a character"),
    ],
)
def test_what_no_row_can_be_is_said(atlas, changes, says):
    with pytest.raises(UserError, match=says):
        search.find(atlas, **{"word": "dog"} | changes)


def test_numbers_of_a_frame_may_be_asked_with(atlas):
    own = search.find(atlas, "dog", limit=np.int64(1), layer=np.int16(0), up_to=np.int64(0))
    assert own.equals(search.find(atlas, "dog", limit=1))
    assert len(search.top(atlas, np.int64(2), layer=np.int64(0))) == 2


@pytest.mark.parametrize("typed", ["▁dog", "Ġdog", "␣dog"])
def test_a_token_as_a_file_or_a_table_spells_it_gets_a_hint(atlas, typed):
    for exact in (True, False):
        with pytest.raises(UserError, match=f"'{typed}': write it as text, ' dog'"):
            search.find(atlas, typed, exact)
