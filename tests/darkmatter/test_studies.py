"""The studies on the shipped OthelloGPT and its SAEs: real, and small enough for every test run."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.darkmatter import error_saes
from interp.darkmatter.enough import cautions
from interp.darkmatter.error_saes import ErrorSaesConfig
from interp.darkmatter.measure import DarkMatterConfig, PursuitConfig
from interp.darkmatter.results import COLUMNS, intervals, summary
from interp.darkmatter.synthetic import SyntheticConfig
from interp.errors import UserError
from interp.model.edits import patch
from interp.model.site import Site
from interp.runs.store import Store
from interp.runs.study import run_or_load
from interp.runs.writer import RunWriter
from interp.saes import open_sae
from interp.text.contexts import ContextStream

from .planted import OTHELLO, value

SITE = Site("resid_post", 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = DarkMatterConfig(
        **OTHELLO, earlier=(f"1.resid_post={OTHELLO['saes']}/saes/topk-L1-S0",)
    )
    return run_or_load(config, Store(tmp_path_factory.mktemp("runs")))


def test_measures_of_real_saes(run):
    names = run.manifest["names"]
    assert len(names) == 6
    assert {name.split("-")[1] for name in names} == {"L2"}
    for name in names:
        assert 0 < value(run, name, "fvu_nonlinear") < value(run, name, "fvu") < 1
        assert 0 < value(run, name, "r2_vector_weighted") < 1
        assert value(run, name, "r2_norm x") <= 1
        assert 1 <= value(run, name, "l0") < 1024
    shrunk = [value(run, name, "scale") for name in names if name.startswith("l1")]
    kept = [value(run, name, "scale") for name in names if name.startswith("topk")]
    assert min(shrunk) > max(kept), "an L1 penalty shrinks, TopK does not"
    table = run.table("measures")
    assert set(table["unit"]) == {"document"}
    known = table.dropna()
    assert (known["low"] <= known["value"] + 1e-12).all()
    assert (known["value"] <= known["high"] + 1e-12).all()


def test_the_main_regression_is_among_the_variants(run):
    variants = run.table("variants")
    own = variants[variants["intercept"] & (variants["ridge"] == 0)].set_index("sae")
    for name in run.manifest["names"]:
        for measure in ("r2_vector", "r2_vector_weighted", "fvu_nonlinear"):
            assert own.loc[name, measure] == pytest.approx(value(run, name, measure), rel=1e-6)


def test_downstream_is_anchored_at_both_ends(run):
    costs = run.table("downstream")
    original = costs[costs["setting"] == "original"]["ce"].item()
    mean = costs[costs["setting"] == "mean"]["ce"].item()
    assert (costs[costs["setting"] == "sae"]["ce"] < mean).all()
    assert summary(run)["loss recovered"].between(0, 1).all()
    assert (costs[costs["setting"] == "sae"]["recovered"] == 0).all()
    assert (costs[costs["setting"] == "sae"]["ce"] > original).all()
    linear = costs[costs["setting"] == "sae + linear"].set_index("sae")["recovered"]
    assert (linear < 100).all()
    assert (linear[[name for name in linear.index if name.startswith("l1")]] > 50).all()


def test_giving_the_whole_error_back_is_the_model_itself(othello):
    """Both parts at once are x: what `downstream` does, with the sum of the parts."""
    stream = ContextStream(othello, [SITE], OTHELLO["corpus"], 59, longest=0.0)
    part, tokens = stream.read(next(stream.contexts(stream.rows(3), 3, 3)))
    x = tokens.x
    source = torch.zeros(*part.batch.ids.shape, x.shape[1])
    source[part.chosen] = x
    plain = othello.logits(part.batch)
    with othello.edited(patch(SITE, source, part.chosen)):
        assert torch.equal(othello.logits(part.batch), plain)
    losses = part.losses(plain)
    assert losses.isfinite().sum() == int(part.batch.mask.sum()) - 3


def test_stored_maps_give_the_stored_tokens(run):
    tokens = run.table("tokens")
    maps = load_file(run.path / "fits.safetensors")
    assert maps["weights"].shape == (6, 128, 128)
    assert maps["intercept"].shape == maps["e_mean"].shape == (6, 128)
    assert (tokens["nonlinear"] >= 0).all()
    assert set(tokens["sae"]) == set(run.manifest["names"])
    assert tokens["position"].min() == 1, "the first position is left out"


def test_earlier_saes_explain_a_share(run):
    earlier = run.table("earlier")
    assert list(earlier["sae"]) == run.manifest["names"]
    assert earlier["r2"].between(-1, 1).all()


def test_summary(run):
    table = summary(run)
    assert bool(cautions(run)) == table.filter(like="recovers").isna().any(axis=None)
    assert list(table["sae"]) == run.manifest["names"]
    assert set(COLUMNS.values()) < set(table)
    assert "(" in intervals(run, ["fvu"])["fvu"][0]


def test_pursuit_lowers_the_error(own_home):
    for kind in ("l1", "topk"):
        shutil.copytree(f"{OTHELLO['saes']}/saes/{kind}-L2-S0", own_home / "saes" / kind)
    given = {**OTHELLO, "saes": str(own_home / "saes"), "tokens": 59 * 10, "downstream": 0}
    made = run_or_load(PursuitConfig(**given, ridge=1e-3))
    assert made.manifest["names"] == ["l1", "topk", "l1 pursued", "topk pursued"]
    for name in ("l1", "topk"):
        assert value(made, f"{name} pursued", "fvu") < value(made, name, "fvu")
        assert value(made, f"{name} pursued", "l0") <= value(made, name, "l0")


def test_planted_noise_is_nonlinear_and_adds_up(own_home):
    config = SyntheticConfig(
        **{**OTHELLO, "downstream": 2},
        name="topk-L2-S0",
        absent=(0.0, 0.3),
        noise=(0.0, 0.05),
    )
    made = run_or_load(config)
    costs = made.table("downstream").set_index(["sae", "setting"])
    name = "absent 0, noise 0.05"
    assert value(made, name, "fvu") == pytest.approx(0.05, rel=0.1)
    assert value(made, name, "fvu_nonlinear") == pytest.approx(0.05, rel=0.1)
    alone = value(made, "absent 0.3, noise 0", "fvu_nonlinear")
    both = value(made, "absent 0.3, noise 0.05", "fvu_nonlinear")
    assert both == pytest.approx(alone + 0.05, rel=0.1)
    # the truth is the SAE's output, so without the noise it is the truth that is back
    assert costs.loc[name, "sae + nonlinear"]["recovered"] == pytest.approx(100, abs=15)


ERRORS = {name: given for name, given in OTHELLO.items() if name != "downstream"}
ERRORS |= {"name": "topk-L2-S0", "width": 64, "k": 8, "batch": 128, "tokens": 128 * 25}


def test_saes_of_the_error(own_home, monkeypatch):
    monkeypatch.setattr(error_saes, "FIT_TOKENS", 59 * 40)
    made = run_or_load(ErrorSaesConfig(**ERRORS))
    table = made.table("error_saes").set_index("part")
    assert list(table.index) == ["linear", "nonlinear"]
    assert (table["fvu"] < 1).all()
    sae = open_sae(made.path / "saes" / "linear")
    assert (sae.d_in, sae.reads) == (128, "linear error")
    with pytest.raises(UserError, match="linear is an SAE of the linear error"):
        run_or_load(DarkMatterConfig(**{**OTHELLO, "saes": str(made.path)}))


def test_the_ridge_of_the_error_is_that_of_the_run(othello, tmp_path, monkeypatch):
    monkeypatch.setattr(error_saes, "FIT_TOKENS", 59 * 40)
    monkeypatch.setattr(error_saes, "CHECKED", 1)
    saes = f"{OTHELLO['saes']}/saes/topk-L2-S0"
    none, one = (
        error_saes._PartStream(
            ErrorSaesConfig(**{**ERRORS, "saes": saes, "ridge": r}),
            othello,
            RunWriter(tmp_path / str(r), {}),
        )
        for r in (0.0, 1.0)
    )
    stream = ContextStream(othello, [SITE], OTHELLO["corpus"], 59)
    x = stream.activations(stream.rows(40), 40).double()
    centred = x - x.mean(0)
    error = x - torch.cat([x_hat for *_, x_hat in none._split.sae.reconstructions(x.float())])
    gram = centred.T @ centred / len(x)
    for stream, ridge in ((none, 0.0), (one, 1.0)):
        penalty = ridge * gram.trace() / 128 * torch.eye(128)
        expected = torch.linalg.solve(gram + penalty, centred.T @ error.double() / len(x))
        torch.testing.assert_close(stream._split.fit.weights, expected, rtol=1e-6, atol=1e-8)


def test_a_ridge_makes_up_for_tokens(own_home):
    """What the refusal recommends works; the variants without a ridge have no values."""
    saes = f"{OTHELLO['saes']}/saes/topk-L2-S0"
    changes = {"saes": saes, "length": 20, "tokens": 200, "downstream": 2, "ridge": 1e-6}
    made = run_or_load(DarkMatterConfig(**{**OTHELLO, **changes}))
    variants = made.table("variants")
    without = variants["ridge"] == 0
    assert variants[without]["fvu_nonlinear"].isna().all()
    assert variants[~without]["fvu_nonlinear"].notna().all()
    costs = made.table("downstream")
    assert costs["low"].isna().all(), "two contexts: no interval"
    *_, few, nan = cautions(made)
    assert few.startswith(
        "76 tokens fit maps of 128 inputs: the nonlinear parts come out too large"
    )
    assert few.endswith("by far; give --tokens 4000 or more")
    assert "no percentage of the loss (nan): 3 documents are the fewest" in nan
    assert "the costs are of 2;" in nan


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"site": "1.mlp_out"}, "holds no SAEs of 1.mlp_out, only of 0.resid_post"),
        ({"site": ""}, "holds SAEs of 0.resid_post, .*: give --site"),
        ({"saes": "nowhere"}, r"nowhere holds no SAEs \(there is no such folder\)"),
        ({"saes": "nowhere", "model": "no model"}, "nowhere holds no SAEs"),
        (
            {"saes": str(Path(__file__).parent)},
            "holds no SAEs: give a folder or file with cfg.json",
        ),
        ({"tokens": 300}, "300 tokens make 5 contexts of 59, too few to split"),
        ({"tokens": 200, "length": 20}, "do not determine a linear map of 128 numbers"),
        ({"corpus": __file__}, "has no tokenizer, so it reads no text"),
        ({"skip": 59}, "--skip 59 leaves too little of --length 59"),
        ({"ridge": -1.0}, "--ridge must be 0 or more, not -1"),
        ({"ridge": float("nan")}, "--ridge must be 0 or more, not nan"),
        ({"downstream": -1}, "--downstream must be 0 or more, not -1"),
        ({"longest": 0.01}, "--longest must be 0 or at least 1, not 0.01"),
        ({"longest": float("nan")}, "--longest must be 0 or at least 1, not nan"),
        ({"earlier": ("saes",)}, "site=source"),
        ({"earlier": ("9.resid_post=saes",)}, "saes holds no SAEs"),
    ],
)
def test_what_cannot_work_is_one_line(change, words, own_home):
    with pytest.raises(UserError, match=words):
        run_or_load(dataclasses.replace(DarkMatterConfig(**OTHELLO), **change))


def test_a_corpus_that_ends_early(own_home):
    ids = load_file(OTHELLO["corpus"])["games"]
    save_file({"ids": ids[:30]}, own_home / "ids.safetensors")
    config = DarkMatterConfig(**{**OTHELLO, "corpus": str(own_home / "ids.safetensors")})
    with pytest.raises(UserError, match="ended after 30 contexts: ask for fewer --tokens"):
        run_or_load(config)


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        (SyntheticConfig, {"noise": ()}, "nothing is planted"),
        (SyntheticConfig, {"absent": (0.0,), "noise": (0.0,)}, "nothing is planted"),
        (SyntheticConfig, {"absent": (0.1, 0.1)}, "--absent has a number twice"),
        (SyntheticConfig, {"noise": (0.5, 0.5 + 1e-9)}, "--noise has a number twice"),
        (SyntheticConfig, {"noise": (float("nan"),)}, "--noise variances of 0 or more"),
        (ErrorSaesConfig, {"batch": 0}, "a --batch of 1 or more"),
        (ErrorSaesConfig, {"lr": float("nan")}, "--lr must be above 0, not nan"),
    ],
)
def test_settings_that_cannot_work(kind, change, words):
    with pytest.raises(UserError, match=words):
        kind(**change).check()


def test_an_unknown_name(own_home):
    config = SyntheticConfig(**{**OTHELLO, "downstream": 0}, name="nobody")
    with pytest.raises(UserError, match="no SAE 'nobody' there: choose one of l1-L2-S0"):
        run_or_load(config)


def test_saes_of_another_width(own_home, model_folder):
    ids = own_home / "ids.safetensors"
    save_file({"ids": torch.randint(1, 61, (60, 30))}, ids)
    model = str(model_folder("llama", num_hidden_layers=3))
    config = DarkMatterConfig(
        **{**OTHELLO, "model": model, "corpus": str(ids), "length": 30, "tokens": 1800},
        anyway=True,
    )
    with pytest.raises(UserError, match="this SAE reads 128 numbers, these activations have 32"):
        run_or_load(config)


def test_a_model_with_a_nan(own_home, model_folder):
    folder = own_home / "broken"
    shutil.copytree(model_folder("llama", num_hidden_layers=3), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file({"ids": torch.randint(1, 61, (60, 30))}, own_home / "ids.safetensors")
    changes = {"model": str(folder), "corpus": str(own_home / "ids.safetensors"), "length": 30}
    config = DarkMatterConfig(**{**OTHELLO, **changes, "tokens": 1800})
    with pytest.raises(UserError, match="up_proj.weight. in .* holds a NaN or an infinity"):
        run_or_load(config)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_tokens(tmp_path):
    """In processes of their own: 400 against 4,000 contexts of stored ids."""
    ids = load_file(OTHELLO["corpus"])["games"]
    save_file({"ids": ids.repeat(8, 1)}, tmp_path / "ids.safetensors")
    peaks = []
    for count in (400, 4000):
        options = {**OTHELLO, "corpus": tmp_path / "ids.safetensors", "tokens": 59 * count}
        command = [sys.executable, "-m", "interp", "darkmatter", "run", "--json"]
        command += [text for name, given in options.items() for text in (f"--{name}", str(given))]
        printed = subprocess.run(
            [*command, "--runs", tmp_path], check=True, capture_output=True
        ).stdout
        run = json.loads(printed.splitlines()[-1])["run"]
        peaks.append(json.loads((Path(run) / "manifest.json").read_text())["peak_memory_bytes"])
    assert peaks[1] < peaks[0] + 2**26
