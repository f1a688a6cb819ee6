"""The studies and commands on a tiny model, and what ships."""

import dataclasses
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sae_lens import SAE
from safetensors.numpy import load_file, save_file

from interp.cli import main
from interp.data import FOLDER
from interp.directions import Directions
from interp.errors import UserError
from interp.model.files import sha256
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.othello import findings, read_board
from interp.othello.board_labels import STATES, TILES
from interp.othello.compare import CompareConfig
from interp.othello.edit import EditConfig, _sweeps
from interp.othello.evaluate import evaluate
from interp.othello.games import random_games
from interp.othello.interventions import flip_vectors
from interp.othello.position import move_probabilities, parse_moves, position_after
from interp.othello.sae import SAES, SaeConfig
from interp.othello.train import EVAL_SEED
from interp.probes import fvu
from interp.runs.store import Store, open_run
from interp.runs.study import plan, run_or_load
from interp.saes import open_sae

from ..figures import figure_names
from ..manifests import seal_again
from .conftest import COMPARE

SHIPPED = FOLDER / "othello"


@pytest.fixture
def run(store):
    return open_run(store / "othello.compare" / "tiny")


def test_autoencoders_are_what_the_table_says(saes) -> None:
    table = open_run(saes).table("saes")
    assert len(table) == 2 * 2 * 2
    for row in table.to_dict("records"):
        sae = open_sae(saes / "saes" / row["name"])
        assert (sae.d_in, sae.d_sae, sae.site) == (32, 48, f"{row['layer']}.resid_post")
        if row["arch"] == "topk":
            assert row["l0"] <= 4
    assert (table["fvu"] < 1).all()
    again = table.pivot_table(index=["arch", "layer"], columns="seed", values="fvu")
    assert (again[0] != again[1]).all()


def test_a_damaged_autoencoder_is_trained_again_as_it_was(tiny, saes, tmp_path) -> None:
    again = tmp_path / "again"
    shutil.copytree(saes, again)
    parts = [again / "saes" / n / "sae_weights.safetensors" for n in ("topk-L1-S0", "l1-L0-S0")]
    whole = [part.read_bytes() for part in parts]
    for part in parts:
        part.write_bytes(part.read_bytes()[:-8])
    config = SaeConfig(str(tiny), tokens=20_000, d_sae=48, k=4, seeds=(0, 1), batch=512)
    run_or_load(config, out=again)
    assert [part.read_bytes() for part in parts] == whole


def test_comparison_has_every_measure_of_every_reader(run) -> None:
    scores = run.table("scores")
    readers = {"probe", "topk", "l1", "neurons", "random directions", "majority", "ply",
               "occupied", "random model probe", "random model neurons"}  # fmt: skip
    assert set(scores["reader"]) == readers
    assert set(scores["layer"]) == {0, 1}
    per_reader = scores.groupby("reader")["measure"].agg(set)
    assert {"accuracy", "accuracy_colour", "auroc_sound"} <= per_reader["probe"]
    assert {"coverage", "cosine_probe", "fvu", "probe_through"} <= per_reader["topk"]
    assert all({"coverage", "f1_own"} <= per_reader[name] for name in ("ply", "occupied"))
    assert scores.groupby(["reader", "layer", "measure"]).size()["topk"].eq(2).all()
    bounded = scores[scores["low"].notna()]
    assert (bounded["low"] <= bounded["value"]).all()
    assert (bounded["value"] <= bounded["high"]).all()
    assert (scores["low"].notna() == (scores["unit"] == "game")).all()
    assert run.metrics["sound_stable_turned"] == 0
    shares = scores[scores["measure"].str.startswith(("accuracy", "auroc", "f1", "coverage"))]
    assert shares["value"].between(0, 1).all()


def test_latents_in_the_tables_are_the_autoencoders_latents(run, saes) -> None:
    best = run.table("latents/L1")
    mine = best[(best["reader"] == "topk") & (best["seed"] == 1)].reset_index(drop=True)
    found = Directions.load(run.path / "directions" / "topk-L1-S1")
    assert found.site == Site("resid_post", 1)
    assert found.index["latent"].tolist() == mine["latent_auroc"].tolist()
    decoder = open_sae(saes / "saes" / "topk-L1-S1").W_dec
    assert torch.equal(found.vectors, decoder[mine["latent_auroc"].tolist()])
    auroc = read_board.latent_map(run, "topk", 1, 1, "auroc")
    row = mine[mine["name"] == "own c4"].iloc[0]
    assert auroc[:, 64 + row["tile"]].argmax() == row["latent_auroc"]


def test_a_position_is_read_as_the_comparison_reads_it(run, tiny) -> None:
    subject = open_subject(str(tiny))
    position = position_after(random_games(1, 3)[0, :20])
    x = read_board.residual(subject, position.tokens, 1)
    probe = Directions.load(run.path / "directions" / "probe-L1")
    logits = probe.vectors @ x + torch.tensor(probe.index["constant"])
    by_name = dict(zip(probe.index["name"], logits.tolist(), strict=True))
    for name, state in zip(TILES, read_board.probe_board(run, 1, x), strict=True):
        assert by_name[f"{STATES[state]} {name}"] == max(by_name[f"{s} {name}"] for s in STATES)
    sae = read_board.compared_sae(run, "l1", 1, 0)
    z = sae.encode(x[None])[0]
    rng = np.random.default_rng(0)
    latent = rng.integers(0, sae.d_sae, 150)
    columns = {"latent": latent, "tile": rng.integers(0, 64, 150)}
    thresholds = z.numpy()[latent] + rng.choice([-0.1, 0.1], 150)
    rules = pd.DataFrame(
        {**columns, "kind": rng.choice(["own", "enemy"], 150), "threshold": thresholds}
    ).drop_duplicates(["latent", "tile", "kind"])
    seen = read_board.latent_board(sae, rules, x)
    assert set(seen) == {0, 1, 2, 3}
    for tile in range(64):
        own_rules = rules[rules["tile"] == tile]
        claims = {r.kind for r in own_rules.itertuples() if float(z[r.latent]) > r.threshold}
        assert seen[tile] == ("own" in claims) + 2 * ("enemy" in claims)
    every = run.table("rules/L1")
    own_rules = every[(every["reader"] == "l1") & (every["seed"] == 0)]
    stored = read_board.latent_rules(run, "l1", 1, 0)
    assert stored["latent"].tolist() == own_rules["latent"].tolist()
    present = int(position.relative[27])
    nothing = read_board.flip_disc(run, "topk", 0, [0], 27, present, 0.0)
    before = move_probabilities(subject, position.tokens)
    assert (move_probabilities(subject, position.tokens, *nothing) == before).all()
    moved = read_board.flip_disc(run, "probe", 0, [0], 27, present, 5.0)
    assert (move_probabilities(subject, position.tokens, *moved) != before).any()


def test_findings_are_sentences_with_the_runs_numbers(run) -> None:
    scores = run.table("scores")
    found = findings.sentences(scores, run.metrics)
    assert all(sentence.endswith(".") for sentence in found)
    first = scores[(scores["reader"] == "probe") & (scores["measure"] == "accuracy")]
    assert f"{100 * first['value'].iloc[0]:.1f}" in found[0]
    rows = findings.table(scores)
    topk = rows[(rows["reader"] == "topk") & (rows["measure"] == "coverage")].iloc[0]
    assert topk["least"] <= topk["mean"] <= topk["most"]


MISTAKES = {
    "not a square": (["play", "f5 z9"], "'z9' is not a square"),
    "illegal": (
        ["play", "f5 f6 a1"],
        "move 3, a1, is not legal after f5 f6: legal are d3, c4, e6, f7",
    ),
    "too long": (["play", "--plies", "60"], "--plies must be between 1 and 59"),
    "other SAEs": (["compare", "--model", "{tiny}"], "these SAEs are of another model"),
    "no SAEs": (["compare", "--saes", "/nowhere"], "holds no run (there is no such folder)"),
    "no OthelloGPT": (
        ["probe", "--model", "{llama}"],
        "is not an OthelloGPT: its vocabulary has 211",
    ),
    "no comparison": (["edit"], "make one with `interp othello compare`"),
    "bad k": (["sae", "--k", "0"], "--k must be at least 1 and less"),
    "no zero": (["edit", "--compare", "{compare}", "--scale", "1"], "--scale must include 0"),
    "no such layer": (["edit", "--compare", "{compare}", "--layers", "7"], "between 0 and 1"),
    "a layer twice": (
        ["edit", "--compare", "{compare}", "--layers", "0", "0"],
        "--layers has the same number twice",
    ),
    "a scale twice": (
        ["edit", "--compare", "{compare}", "--scale", "0", "3", "3"],
        "--scale has the same",
    ),
    "edit's seed": (
        ["edit", "--compare", "{compare}", "--seed", "-1"],
        "--seed must be at least 0",
    ),
    "play's seed": (["play", "--seed", "-1"], "--seed must be at least 0"),
    "play a language model": (["play", "--model", "{llama}"], "is not an OthelloGPT"),
    "device": (["probe", "--device", "nowhere"], "device 'nowhere' cannot be used here"),
    "few games": (["compare", "--choose-games", "1"], "--score-games must be at least 5"),
    "no ridge": (["compare", "--ridge", "0"], "--ridge must be above 0"),
    "the probe's ridge": (["probe", "--ridge", "0"], "--ridge must be above 0"),
    "seeds twice": (["sae", "--seeds", "0", "0"], "must be different numbers"),
    "no batch": (["sae", "--batch", "0"], "--batch must be between 1"),
    "rate": (["sae", "--lr", "-1"], "--lr must be above 0"),
    "no game to score": (["train", "--out", "{out}", "--eval-games", "0"], "--eval-games must be"),
    "no step": (["train", "--out", "{out}", "--games", "5"], "is less than one --batch of 128"),
    "heads": (["train", "--out", "{out}", "--n-heads", "3"], "must be a multiple of --n-heads 3"),
    "a file there": (["train", "--out", "{file}/model"], "cannot write"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake, tiny, store, model_folder, own_home, capsys) -> None:
    arguments, says = MISTAKES[mistake]
    places = {
        "tiny": tiny, "llama": model_folder("llama"), "compare": store / "othello.compare" / "tiny",
        "out": own_home / "out", "file": tiny / "config.json",
    }  # fmt: skip
    code = main(["othello", *(argument.format(**places) for argument in arguments)])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1, err


def test_play(capsys) -> None:
    assert main(["othello", "play", "f5 d6 c3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["othello", "play", "f5", "d6", "c3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert found["metrics"]["next"] == "white"
    assert found["metrics"]["black"] + found["metrics"]["white"] == 7
    assert found["metrics"]["probability_legal"] > 0.5
    assert sum(row["legal"] for row in found["results"]) <= found["metrics"]["legal"]
    assert main(["othello", "play", "--seed", "3"]) == 0
    assert "a b c d e f g h" in capsys.readouterr().out


def test_commands_report_their_runs(tiny, saes, store, own_home, tmp_path, capsys) -> None:
    settings = ["--choose-games", "50", "--score-games", "50", "--passes", "3"]
    folder = str(store / "othello.compare" / "tiny")
    picture = tmp_path / "layers.html"
    of = ["--model", str(tiny), "--saes", str(saes), "--out", folder]
    command = ["othello", "compare", *of, *settings]
    assert main([*command, "--json", "--picture", str(picture)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["study"] == "othello.compare"
    assert len(found["findings"]) > 8
    assert "plotly" in picture.read_text()[:100_000]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "accuracy_colour" in out
    assert "- Linear probes label" in out
    edit = ["othello", "edit", "--compare", folder, "--positions", "20", "--scale", "0", "4"]
    assert main([*edit, "--out", str(store / "othello.edit" / "tiny")]) == 0
    assert "unedited" in capsys.readouterr().out
    assert figure_names(open_run(Path(folder))) == {"layers"}
    assert figure_names(open_run(store / "othello.edit" / "tiny")) == {"edits"}
    probe = ["othello", "probe", "--model", str(tiny), "--fit-games", "20", "--score-games", "20"]
    assert main([*probe, "--passes", "3", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert 0.3 < metrics["accuracy_probe_0.resid_pre"] < 0.9
    assert {"accuracy_probe_1.resid_post", "accuracy_majority"} <= set(metrics)


def test_an_edit_is_of_the_comparison_and_the_model_it_names(tiny, store, own_home) -> None:
    """The newest one of the same store; and the model must still be the one compared."""
    config = EditConfig(positions=4, scale=(0.0, 3.0))
    with pytest.raises(UserError, match="make one with `interp othello compare`"):
        run_or_load(config)
    made = run_or_load(config, Store(store))
    assert (
        made.manifest["fingerprints"]["compare"]
        == Store(store).runs(CompareConfig.STUDY)[0].manifest["key"]
    )
    copy, model = own_home / "compare", own_home / "model"
    shutil.copytree(store / "othello.compare" / "tiny", copy)
    shutil.copytree(tiny, model)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["config"]["model"] = str(model)
    seal_again(copy, manifest)
    config = dataclasses.replace(config, compare=str(copy))
    before = plan(config)["key"]
    weights = load_file(model / "model.safetensors")
    save_file({name: x * 1.5 for name, x in weights.items()}, model / "model.safetensors")
    assert plan(config)["key"] != before
    with pytest.raises(UserError, match="has changed since the comparison"):
        run_or_load(config)


def test_a_seed_of_its_own_for_the_random_directions(run) -> None:
    sweeps = list(_sweeps(run, (0,), 2, 5))
    assert ("random", 5, (0,)) in sweeps
    vectors = [flip_vectors(run.path, "random", seed, 0, [None] * 3, 32) for seed in (0, 5)]
    assert not torch.equal(*vectors)


def test_a_damaged_part_of_a_comparison_is_made_again(tiny, saes, store, tmp_path) -> None:
    damaged = tmp_path / "compare"
    shutil.copytree(store / "othello.compare" / "tiny", damaged)
    part = damaged / "directions" / "probe-L1" / "vectors.safetensors"
    whole = part.read_bytes()
    part.write_bytes(whole[:-8])
    run_or_load(CompareConfig(str(tiny), str(saes), **COMPARE), out=damaged)
    assert part.read_bytes() == whole


def test_train_command(tmp_path, capsys) -> None:
    small = ["--games", "128", "--n-layers", "1", "--d-model", "16", "--n-heads", "1", "--batch",
             "32", "--eval-games", "20", "--ckpt", str(tmp_path / "c")]  # fmt: skip
    out = tmp_path / "model"
    assert main(["othello", "train", "--out", str(out), *small, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"]["n_games"] == 20
    assert main(["othello", "train", "--out", str(out), *small[:-2], *small[-2:], "--lr", "1"]) == 2
    assert "other settings (lr)" in capsys.readouterr().err


def test_shipped_model_is_as_good_as_its_card() -> None:
    card = json.loads((SHIPPED / "gpt-4x128" / "card.json").read_text())["held_out"]
    assert card["legality"] >= 0.975
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(SHIPPED / "gpt-4x128")
    score = evaluate(model, random_games(300, EVAL_SEED, split="held_out"))
    assert abs(score.legality - card["legality"]) < 0.006
    assert abs(score.loss_above_floor - card["loss_above_floor"]) < 0.02


def test_shipped_autoencoders_are_as_good_as_their_table() -> None:
    for name, part in open_run(SAES).manifest["files"].items():
        assert sha256(SAES / name) == part["sha256"]
    table = open_run(SAES).table("saes").set_index("name")
    assert len(table) == 24
    subject = open_subject("othello-gpt")
    assert open_run(SAES).manifest["fingerprints"]["model"] == SaeConfig().fingerprints()["model"]
    games = torch.from_numpy(random_games(100, 51, split="held_out")[:, :-1].astype(np.int64))
    for name in ("topk-L2-S0", "l1-L1-S2"):
        sae = open_sae(SAES / "saes" / name)
        x = subject.capture(games, [sae.site])[Site.parse(sae.site)][games != 0]
        assert fvu(x, sae.decode(sae.encode(x))) == pytest.approx(table["fvu"][name], rel=0.1)
    assert SAE.load_from_disk(SAES / "saes" / "topk-L0-S0").cfg.d_sae == 1024


def test_what_ships_is_small_and_the_games_are_the_generators() -> None:
    size = sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file())
    assert size < 16.3e6
    games = load_file(SHIPPED / "games.safetensors")["games"]
    assert (games == random_games(len(games), EVAL_SEED, split="held_out")).all()


def test_games_are_made_fast_enough() -> None:
    start = time.perf_counter()
    random_games(20_000, 61)
    assert 20_000 / (time.perf_counter() - start) * 60 > 50_000


def test_settings_are_part_of_the_key_and_places_are_not(tiny, saes, store) -> None:
    from interp.runs.study import plan

    one = plan(CompareConfig(str(tiny), str(saes)))["key"]
    assert plan(CompareConfig(str(tiny), str(saes), ridge=1e-3))["key"] != one
    comparison = str(store / "othello.compare" / "tiny")
    assert plan(EditConfig(comparison))["key"] != plan(EditConfig(comparison, seed=1))["key"]


def test_moves_are_read_as_people_write_them() -> None:
    assert (parse_moves("F5, d6  c3") == parse_moves("f5 d6 c3")).all()
    with pytest.raises(UserError, match="'d4' is not a square"):
        parse_moves("d4")


def test_other_kinds_join_the_comparison(tiny, tmp_path) -> None:
    """On the same games, with the same initial weights as TopK's."""
    kinds = ("topk", "batchtopk", "jumprelu")
    config = SaeConfig(str(tiny), tokens=10_000, d_sae=48, k=4, kinds=kinds, seeds=(0,), batch=512)
    saes = run_or_load(config, out=tmp_path / "saes")
    assert saes.table("saes").groupby("arch").size().to_dict() == dict.fromkeys(kinds, 2)
    compare = CompareConfig(str(tiny), str(saes.path), **COMPARE)
    made = run_or_load(compare, out=tmp_path / "compare")
    assert made.manifest["kinds"] == list(kinds)
    scores = made.table("scores")
    assert set(kinds) < set(scores["reader"])
    assert not {"l1", "gated"} & set(scores["reader"])
    assert {"coverage_batchtopk", "coverage_jumprelu"} < set(made.metrics)
    said = " ".join(findings.sentences(scores, made.metrics))
    assert all(f"The {kind} latents have a coverage" in said for kind in kinds)
    swept = {reader for reader, *_ in _sweeps(made, (0,), 2, 0)}
    assert swept == {"probe", "means", "random", *kinds}


def test_a_kind_twice_is_refused() -> None:
    with pytest.raises(UserError, match="--kinds at least one kind, each once"):
        SaeConfig(kinds=("topk", "topk")).check()
