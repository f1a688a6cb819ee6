"""The atlas on random models: every family against dense float64, a planted neuron, crashes."""

import itertools
import shutil
import signal
from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from interp.cli import main
from interp.errors import UserError
from interp.model.weights import Weights
from interp.neurons import search
from interp.neurons.atlas import AtlasConfig
from interp.neurons.concepts import word_tokens
from interp.progress import in_words
from interp.runs.study import plan, run_or_load

from ..conftest import FAMILY_CONFIGS
from ..forked import die, killed


def written(folder, layer):
    """What one unit of each neuron's activation adds, of the stored tensors; Gemma's stored gains
    are less by 1."""
    tensors, at = load_file(folder / "model.safetensors"), f"model.layers.{layer}"
    gain = tensors.get(f"{at}.post_feedforward_layernorm.weight")
    rows = Weights(folder).neurons("down", layer)
    return rows if gain is None else rows * (gain + 1)


def rows_of(run):
    return duckdb.sql(f"SELECT * FROM {run.sql('neurons')} ORDER BY layer, kind, neuron, side").df()


@pytest.mark.parametrize("family", FAMILY_CONFIGS)
def test_every_family_equals_dense_float64(family, model_folder, own_home):
    folder = model_folder(family)
    run = run_or_load(AtlasConfig(model=str(folder), k=8))
    weights = Weights(folder)
    readout = weights.W_U().double()
    rows = rows_of(run)
    kinds = weights.spec.kinds
    assert len(rows) == 2 * len(kinds) * weights.spec.n_layers * weights.spec.d_mlp
    for (layer, kind, side), part in rows.groupby(["layer", "kind", "side"]):
        vectors = written(folder, layer) if kind == "down" else weights.neurons(kind, layer)
        logits = (vectors := vectors.double()) @ readout.T * (1 if side == "top" else -1)
        ids = logits.argsort(dim=1, descending=True, stable=True)[:, :8]
        np.testing.assert_array_equal(np.stack(part["ids"]), ids)
        z = (logits.max(1).values - logits.mean(1)) / logits.std(1, correction=0)
        np.testing.assert_allclose(part["z"], z, rtol=1e-4)
        scaled = (logits - logits.mean(1, keepdim=True)) / logits.std(1, correction=0, keepdim=True)
        for name, want in (
            ("skewness", (scaled**3).mean(1)),
            ("kurtosis", (scaled**4).mean(1) - 3),
        ):
            np.testing.assert_allclose(part[name], want, rtol=1e-3, atol=1e-4)
        want = coherence_by_pairs(ids, readout)
        np.testing.assert_allclose(part["coherence"], want, atol=1e-3)
        np.testing.assert_allclose(part["norm"], vectors.norm(dim=1), rtol=1e-5)


def coherence_by_pairs(ids, readout):
    """Pair by pair in float64, with the inverse of the covariance itself; every token is a word."""
    centred = (readout - readout.mean(0)).numpy()
    inner = centred @ np.linalg.inv(centred.T @ centred / len(centred)) @ centred.T
    cosines = inner / np.sqrt(np.outer(inner.diagonal(), inner.diagonal()))
    pairs = list(itertools.combinations(range(ids.shape[1]), 2))
    return [np.mean([cosines[row[i], row[j]] for i, j in pairs]) for row in ids.numpy()]


def test_norm_readings(model_folder, own_home):
    folder = model_folder("gemma2")
    weights = Weights(folder)
    gains = {"raw": 1.0, "final": weights.gain("final"), "mlp": weights.gain("mlp", 1)}
    for norm, gain in gains.items():
        rows = rows_of(run_or_load(AtlasConfig(model=str(folder), norm=norm, k=4)))
        part = rows[(rows["layer"] == 1) & (rows["kind"] == "up") & (rows["side"] == "top")]
        logits = (weights.neurons("up", 1) * gain).double() @ weights.W_U().double().T
        np.testing.assert_array_equal(part["ids"].str[0], logits.argmax(1))


def test_planted_neuron_is_found_by_its_token(model_folder, own_home, tmp_path):
    folder = tmp_path / "planted"
    shutil.copytree(model_folder("llama"), folder)
    tensors = load_file(folder / "model.safetensors")
    target = tensors["lm_head.weight"][123]
    tensors["model.layers.1.mlp.down_proj.weight"][:, 17] = -10 * target / target.norm()
    save_file(tensors, folder / "model.safetensors")
    run = run_or_load(AtlasConfig(model=str(folder), k=8))
    best = search.find(run, "#123").iloc[0]
    assert (best["name"], best["side"], best["rank"]) == ("1.down.17", "bottom", 1)
    assert best["score"] == pytest.approx(best["z"] + best["margin"], rel=1e-4)


def test_a_model_without_a_tokenizer_says_so(model_folder, own_home, caplog):
    folder = model_folder("llama")
    run = run_or_load(AtlasConfig(model=str(folder), k=8, random=2))
    assert f"{folder} has no tokenizer: its tokens are written #0, #1, …" in caplog.text
    with pytest.raises(
        UserError, match="this model has no tokenizer, .* its tokens are #0 to #210"
    ):
        search.find(run, "dog")
    with pytest.raises(UserError, match="this model has no tokenizer"):
        word_tokens(Weights(folder), "dog")


def test_margin_is_the_lead_over_another_word(model_folder, own_home, tmp_path):
    """Tokens 2 i and 2 i + 1 are one word, whose rows of the LM head nearly agree: with k = 2 no
    other word is left."""
    folder = tmp_path / "words"
    shutil.copytree(model_folder("llama"), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][1::2] = 0.99 * tensors["lm_head.weight"][:-1:2]
    save_file(tensors, folder / "model.safetensors")
    names = [a + b + "o" for a in "abcdefghijk" for b in "abcdefghij"]
    words = {word + "s" * (i % 2): i for i in range(211) for word in [names[i // 2]]}
    Tokenizer(WordLevel(words, unk_token="aao")).save(str(folder / "tokenizer.json"))
    logits = Weights(folder).neurons("down", 1).double() @ Weights(folder).W_U().double().T
    best = logits.sort(dim=1, descending=True)
    other = (best.indices[:, :8] // 2 != best.indices[:, :1] // 2).int().argmax(1)
    assert (other == 2).float().mean() > 0.5, "the second token is mostly the first's word"
    for k, rival in ((8, other), (2, torch.ones_like(other))):
        rows = rows_of(run_or_load(AtlasConfig(model=str(folder), weights=("down",), k=k)))
        rows = rows[(rows["layer"] == 1) & (rows["side"] == "top")]
        lead = best.values[:, 0] - best.values.gather(1, rival[:, None])[:, 0]
        np.testing.assert_allclose(rows["margin"], lead / logits.std(1, correction=0), rtol=1e-3)


SCALES = {4: 1e-33, 6: 1e-20, 7: 1e-10, 8: 1e11, 9: 1e36}
"""How many times longer than neuron 40 some neurons are; neuron 5 is a row of zeros."""


@pytest.fixture(scope="module")
def lengths_folder(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lengths") / "model"
    shutil.copytree(model_folder("llama"), folder)
    tensors = load_file(folder / "model.safetensors")
    rows = tensors["model.layers.0.mlp.up_proj.weight"]
    rows[5] = 0
    for neuron, scale in SCALES.items():
        rows[neuron] = (rows[40].double() * scale).float()
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def lengths_atlas(lengths_folder, tmp_path_factory):
    config = AtlasConfig(model=str(lengths_folder), k=8, random=200)
    return run_or_load(config, out=tmp_path_factory.mktemp("lengths_run") / "run")


def test_a_row_spells_the_same_at_any_length(lengths_folder, lengths_atlas):
    run, weights = lengths_atlas, Weights(lengths_folder)
    want = search.show(run, "0.up.40")
    for neuron in SCALES:
        got = search.show(run, f"0.up.{neuron}")
        np.testing.assert_array_equal(np.stack(got["ids"]), np.stack(want["ids"]))
        for name in ("z", "margin", "coherence", "skewness", "kurtosis", "p", "q"):
            np.testing.assert_allclose(got[name], want[name], rtol=1e-3, err_msg=f"{neuron} {name}")
        row = weights.neurons("up", 0)[neuron].double()
        logits = (weights.W_U().double() @ row).sort(descending=True).values
        np.testing.assert_allclose(got["logits"].iloc[0], logits[:8], rtol=1e-5)
        np.testing.assert_allclose(got["norm"], float(row.norm()), rtol=1e-6)
        np.testing.assert_allclose(got["std"], float(logits.std(correction=0)), rtol=1e-5)
    found = search.find(run, want["tokens"].iloc[0][0], limit=1000)
    scores = found[found["name"].isin([f"0.up.{n}" for n in (*SCALES, 40)])]["score"]
    assert len(scores) == len(SCALES) + 1
    np.testing.assert_allclose(scores, scores.iloc[0], rtol=1e-3)


def test_a_row_of_zeros_spells_nothing(lengths_atlas):
    run = lengths_atlas
    rows = search.show(run, "0.up.5")
    spelled = ["z", "margin", "coherence", "skewness", "kurtosis", "p", "q", "coherence_p"]
    assert rows[spelled].isna().all(axis=None)
    assert (rows["norm"] == 0).all()
    assert (rows["std"] == 0).all()
    stored = run.table("neurons/L000")
    assert stored["z"].isna().sum() == 2
    nulls = f"SELECT count(*) FROM {run.sql('neurons')} WHERE z IS NULL"
    assert duckdb.sql(nulls).fetchall() == [(2,)], "null, which SQL ranks last; NaN comes first"
    for by in ("score", "coherence"):
        best = search.top(run, limit=len(rows_of(run)), by=by)
        assert set(best["name"].tail(2)) == {"0.up.5"}
        assert "0.up.5" not in set(search.find(run, "#0", limit=1000, by=by)["name"])


def test_logits_beyond_float32_are_refused(lengths_folder, own_home, tmp_path):
    folder = tmp_path / "beyond"
    shutil.copytree(lengths_folder, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] *= 1e6
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match="length or logits are beyond float32's 3.4e38"):
        run_or_load(AtlasConfig(model=str(folder)))


def test_weights_option(model_folder, own_home):
    run = run_or_load(AtlasConfig(model=str(model_folder("llama")), weights=("down",)))
    assert set(rows_of(run)["kind"]) == {"down"}
    with pytest.raises(UserError, match="has no 'gate' neurons, only up, down"):
        run_or_load(AtlasConfig(model=str(model_folder("gpt2")), weights=("up", "gate")))


@pytest.mark.parametrize("k", [1, 212])
def test_k_out_of_range(k, model_folder, own_home):
    with pytest.raises(UserError, match="k must be between 2 and the vocabulary's 211"):
        run_or_load(AtlasConfig(model=str(model_folder("llama")), k=k))


def test_absent_device(model_folder, own_home):
    with pytest.raises(UserError, match="device 'nonsense' cannot be used"):
        run_or_load(AtlasConfig(model=str(model_folder("llama")), device="nonsense"))


def test_nan_in_a_late_layer_keeps_what_was_finished(model_folder, own_home, tmp_path):
    folder = tmp_path / "nan"
    shutil.copytree(model_folder("llama"), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][5, 5] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"layers.1.mlp.up_proj.weight' .* holds a NaN"):
        run_or_load(AtlasConfig(model=str(folder)), out=tmp_path / "out")
    assert [p.name for p in (tmp_path / "out" / "neurons").iterdir()] == ["L000.parquet"]


@pytest.fixture(scope="module")
def deep(model_folder):
    """Deep enough to break off in the middle of."""
    return model_folder("llama", num_hidden_layers=6)


@pytest.fixture(scope="module")
def undisturbed(deep, tmp_path_factory):
    return run_or_load(AtlasConfig(model=str(deep)), out=tmp_path_factory.mktemp("whole") / "run")


def breaking_off(parts, stop):
    """A `write_bytes` that has half a file on the disk when it calls `stop`, after so many
    layers, inside the next one's table of neurons."""
    whole, calls = Path.write_bytes, []

    def write(path, content):
        calls.extend([path] * path.name.endswith(".making"))
        if len(calls) == 1 + 2 * (parts + 1):  # the vocabulary is first; a layer has two tables
            whole(path, content[: len(content) // 2])
            stop()
        whole(path, content)

    return write


def finished_parts(out):
    return {p.name: p.stat().st_mtime_ns for p in (out / "neurons").glob("L*.parquet")}


def assert_resumes(deep, out, parts, undisturbed):
    before = finished_parts(out)
    assert sorted(before) == [f"L{i:03d}.parquet" for i in range(parts)]
    assert list(out.rglob(".*.making")), "it broke off inside a part"
    run = run_or_load(AtlasConfig(model=str(deep)), out=out)
    assert run.metrics["layers_resumed"] == parts
    after = finished_parts(out)
    assert {name: after[name] for name in before} == before, "a finished layer was written again"
    assert not list(out.rglob(".*.making"))
    assert run.manifest["files"] == undisturbed.manifest["files"]
    assert rows_of(run).equals(rows_of(undisturbed))


@pytest.mark.parametrize("parts", [0, 3, 5])
def test_interrupted_and_resumed_is_identical(
    parts, deep, undisturbed, own_home, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "interrupted"
    with monkeypatch.context() as patched:
        interrupt = breaking_off(parts, lambda: signal.raise_signal(signal.SIGINT))
        patched.setattr(Path, "write_bytes", interrupt)
        code = main(["neurons", "atlas", "--model", str(deep), "--out", str(out), "--json"])
    printed, complaint = capsys.readouterr()
    assert (code, printed) == (130, "")
    # the vocabulary comes first, and of the layer in the making the random directions are whole
    kept = f"resumes with {1 + 2 * parts + 1} finished files"
    assert complaint.splitlines()[-1].startswith(f"interp: interrupted; the same command {kept}")
    assert_resumes(deep, out, parts, undisturbed)


def dies(model, out):
    """An atlas that is killed amid its third layer."""
    Path.write_bytes = breaking_off(2, die)
    main(["neurons", "atlas", "--model", str(model), "--out", str(out)])


def test_killed_and_resumed_is_identical(deep, undisturbed, own_home, tmp_path, one_thread):
    killed(dies, deep, tmp_path / "killed")
    assert_resumes(deep, tmp_path / "killed", 2, undisturbed)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.01, "1 s"), (40, "40 s"), (400, "7 min"), (9000, "2 h")]
)
def test_an_estimate_is_said_roughly(seconds, words):
    assert in_words(seconds) == words


def test_key_ignores_the_device(model_folder, own_home):
    config = AtlasConfig(model=str(model_folder("llama")))
    elsewhere = AtlasConfig(model=str(model_folder("llama")), device="cuda")
    assert plan(config)["key"] == plan(elsewhere)["key"]


def test_naive_kernel_gives_the_same_atlas(model_folder, own_home, monkeypatch):
    """What a device other than the CPU would run."""
    from interp import kernels

    folder = model_folder("qwen3")
    fused = rows_of(run_or_load(AtlasConfig(model=str(folder), k=4)))
    monkeypatch.setattr(
        kernels, "project_topk", lambda x, w, k: kernels.project.project_topk(x, w, k, impl="naive")
    )
    naive = rows_of(run_or_load(AtlasConfig(model=str(folder), k=4), fresh=True))
    assert (np.stack(fused["ids"]) == np.stack(naive["ids"])).mean() > 0.999
    for name in ("z", "margin", "kurtosis", "coherence"):
        np.testing.assert_allclose(fused[name], naive[name], rtol=2e-3, atol=1e-4)
