"""Agreement of atlases: with itself, with an unrelated model, with a model of another shape."""

import json

import numpy as np
import pandas as pd
import pytest

from interp.cli import main
from interp.errors import UserError
from interp.neurons.agree import _Layers, agreement, compared, summary
from interp.neurons.atlas import AtlasConfig
from interp.neurons.index import contents
from interp.runs.store import Store
from interp.runs.study import run_or_load
from interp.runs.workers_task import Workers


@pytest.fixture(scope="module")
def atlases(model_folder, tmp_path_factory):
    folders, store = (
        map(model_folder, ("llama", "mistral", "gpt2")),
        tmp_path_factory.mktemp("runs"),
    )
    return [run_or_load(AtlasConfig(model=str(f), k=4), Store(store)) for f in folders]


def first(run):
    """The atlas's rows, with their first tokens."""
    rows = pd.concat(map(pd.read_parquet, sorted((run.path / "neurons").glob("*.parquet"))))
    return rows.assign(token=rows["tokens"].str[0])


def test_with_itself(atlases):
    found = summary(atlases[0], atlases[0])
    assert list(found["kind"]) == ["all", "down", "gate", "up"]
    assert (found[["agreement", "agreement_low", "agreement_high"]] == 1.0).all(axis=None)


def test_an_unrelated_model_agrees_by_chance(atlases):
    found = summary(atlases[0], atlases[1]).iloc[0]
    rows = 2 * 2 * 3 * 48
    # within four standard errors of what independent choices would give
    assert abs(found["agreement"] - found["chance"]) < 4 * (found["chance"] / rows) ** 0.5
    assert 0 < found["chance"] < 0.05


def test_against_counting_by_hand(atlases):
    table = agreement(*atlases[:2])
    a, b = map(first, atlases[:2])
    keys = ["layer", "kind", "side"]
    both = a.merge(b, on=[*keys, "neuron"])
    want = (both["token_x"] == both["token_y"]).groupby([both[k] for k in keys]).mean()
    got = table.set_index(keys)
    for key, value in want.items():
        assert got.loc[key, "agreement"] == pytest.approx(value)
        pa, pb = (
            x[(x[keys] == list(key)).all(axis=1)]["token"].value_counts(normalize=True)
            for x in (a, b)
        )
        assert got.loc[key, "chance"] == pytest.approx((pa * pb).sum())


def test_intervals_resample_neurons(atlases):
    """Neuron by neuron, with all its rows together."""

    a, b = map(first, atlases[:2])
    both = a.merge(b, on=["layer", "kind", "side", "neuron"])
    same = (both["token_x"] == both["token_y"]).groupby([both["layer"], both["neuron"]]).sum()
    drawn = np.random.default_rng(5).choice(same.to_numpy(), (4000, len(same))).mean(1) / 6
    row = summary(*atlases[:2]).iloc[0]
    assert (row["neurons"], row["unit"]) == (96, "neuron")
    ends = np.quantile(drawn, [0.025, 0.975])
    np.testing.assert_allclose(
        row[["agreement_low", "agreement_high"]].astype(float), ends, atol=2e-3
    )
    table = agreement(*atlases[:2])
    assert (table["agreement_low"] <= table["agreement"]).all()
    assert (table["agreement"] <= table["agreement_high"]).all()


def test_several_workers_count_the_same(atlases):
    one, two = (compared(*atlases[:2], Workers(number)) for number in (1, 2))
    for own, other in zip(one, two, strict=True):
        pd.testing.assert_frame_equal(own, other, check_exact=True)
    assert sorted(one.layers["layer"].unique()) == [0, 1]


def test_a_worker_that_finds_another_atlas_says_so(atlases):
    paths = tuple(str(run.path) for run in atlases[:2])
    hashes = tuple(map(contents, atlases[:2]))
    assert _Layers(paths, hashes).open()[1].path == atlases[1].path
    with pytest.raises(UserError, match="is another atlas here"):
        _Layers(paths, hashes[::-1]).open()


def test_other_shapes_are_refused(atlases):
    with pytest.raises(UserError, match=r"the models differ in d_mlp \(48 and 128\)"):
        agreement(atlases[0], atlases[2])


def test_other_norms_are_refused(model_folder, own_home, atlases):
    final = run_or_load(AtlasConfig(model=str(model_folder("llama")), k=4, norm="final"))
    with pytest.raises(UserError, match=r"different norms \(raw and final\)"):
        agreement(atlases[0], final)


def test_command(atlases, capsys):
    paths = [str(run.path) for run in atlases]
    assert main(["neurons", "agree", paths[0], paths[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["agreement"] == 1.0
    assert main(["neurons", "agree", paths[0], paths[0], "--workers", "none"]) == 2
    assert "--workers is a number" in capsys.readouterr().err
    assert main(["neurons", "agree", paths[0], paths[2]]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["neurons", "agree", paths[0], "/nowhere"]) == 2
