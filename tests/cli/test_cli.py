"""The command line's contract: where things are printed, exit codes, one line a mistake."""

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.cli import main


def run(*arguments, capsys):
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def atlas(model_folder, own_home, capsys):
    code, out, _ = run(
        "neurons", "atlas", "--model", model_folder("llama"), "--json", capsys=capsys
    )
    assert code == 0
    return json.loads(out)


def test_json_is_one_object_with_the_promised_keys(atlas, own_home):
    assert atlas["study"] == "neurons.atlas"
    assert atlas["run"].startswith(str(own_home / "runs"))
    assert atlas["metrics"]["vectors"] == 2 * 3 * 48


def test_search_show_top(atlas, capsys):
    code, out, err = run("neurons", "search", "#7", "--json", "--limit", 3, capsys=capsys)
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert len(found["results"]) <= 3
    name = found["results"][0]["name"]
    assert 7 in found["results"][0]["ids"]
    code, out, _ = run("neurons", "show", name, "--json", capsys=capsys)
    assert [r["side"] for r in json.loads(out)["results"]] == ["top", "bottom"]
    code, out, _ = run("neurons", "top", "--layer", 1, "--kind", "down", "--json", capsys=capsys)
    assert {r["name"].rsplit(".", 1)[0] for r in json.loads(out)["results"]} == {"1.down"}
    code, out, _ = run("neurons", "search", "#7", capsys=capsys)
    assert name in out
    assert "'#7'" in out, "tokens are shown one by one, not as an array"
    assert "['" not in out


def test_several_models_in_one_call(model_folder, own_home, capsys, tmp_path):
    models = [model_folder("gpt2"), model_folder("qwen2")]
    code, out, _ = run(
        "neurons", "atlas", "--model", *models, "--out", tmp_path / "out", capsys=capsys
    )
    assert code == 0
    assert len(list((tmp_path / "out").glob("*/manifest.json"))) == 2
    code, out, _ = run("neurons", "atlas", "--model", *models, "--json", capsys=capsys)
    assert len(json.loads(out)["runs"]) == 2
    code, out, err = run("neurons", "atlas", "--model", *models, "nope", "--json", capsys=capsys)
    assert (code, out) == (2, "")


MISTAKES = {
    "unknown model": (["neurons", "atlas", "--model", "nope"], "no model 'nope'"),
    "no model": (["neurons", "atlas", "--model"], "needs at least one model"),
    "bad number": (["neurons", "atlas", "--k", "x"], "--k"),
    "unknown option": (["neurons", "atlas", "--wights", "up"], "--wights"),
    "unknown command": (["neurons", "sarch"], "sarch"),
    "nothing": ([], "Expected one of"),
    "empty search": (["neurons", "search", ""], "the search is empty"),
    "no words at all": (["neurons", "search", "a\nb"], "this model has no tokenizer"),
    "not a neuron": (["neurons", "show", "29/808"], "names no neuron"),
    "no such neuron": (["neurons", "show", "9.up.1"], "layers 0..1, kinds up, gate, down"),
    "limit": (["neurons", "top", "--limit", "0"], "--limit must be at least 1"),
    "no such layer": (["neurons", "top", "--layer", "7"], "no layer 7 in this atlas"),
    "bad port": (["app", "--port", "99999"], "--port must be between"),
    "bad address": (["app", "--address", "256.1.1.1"], "cannot listen on"),
    "atlas folder missing": (
        ["neurons", "search", "x", "--atlas", "/nowhere"],
        "there is no run '/nowhere'",
    ),
    "bad bench": (["bench", "kernels", "--repeats", "0"], "must be at least 1"),
    "unwritable": (["neurons", "atlas", "--out", "/proc/x"], "cannot write /proc/x"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_code_2(mistake, atlas, model_folder, capsys):
    arguments, says = MISTAKES[mistake]
    if mistake == "unwritable":
        arguments = [*arguments, "--model", str(model_folder("llama"))]
    code, out, err = run(*arguments, capsys=capsys)
    assert code == 2
    assert out == ""
    assert says in err
    assert err.count("\n") == 1, err


def test_no_atlas_yet(own_home, capsys):
    code, _, err = run("neurons", "search", "dog", capsys=capsys)
    assert code == 2
    assert "make one with `interp neurons atlas`" in err


def test_damaged_atlas_is_one_line(atlas, capsys):
    from pathlib import Path

    part = Path(atlas["run"]) / "neurons" / "L000.parquet"
    good = part.read_bytes()
    for damaged, says in (
        (good[:100], "is missing or damaged"),
        (b"x" * len(good), "is not what the run wrote"),
    ):
        part.write_bytes(damaged)
        folder = ["--atlas", atlas["run"]]
        code, _, err = run("neurons", "search", "#7", *folder, capsys=capsys)
        assert code == 2
        assert says in err
        assert "run" in err
        assert err.count("\n") == 1
    model = json.loads((Path(atlas["run"]) / "run.json").read_text())["config"]["model"]
    assert run("neurons", "atlas", "--model", model, capsys=capsys)[0] == 0
    assert part.read_bytes() == good


def test_an_interrupt_that_c_code_turned_into_another_error(own_home, monkeypatch, capsys):
    """torch's constructors make a ValueError of a KeyboardInterrupt raised inside them."""

    def constructor(*_):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ValueError("could not determine the shape of object type") from error

    monkeypatch.setattr("interp.neurons.search.open_atlas", constructor)
    before = signal.getsignal(signal.SIGINT)
    code, _, err = run("neurons", "search", "x", capsys=capsys)
    assert signal.getsignal(signal.SIGINT) is before
    assert (code, err) == (130, "interp: interrupted\n")


def test_a_number_that_does_not_exist_is_null(capsys):
    from interp.cli.common import answered

    assert answered(True, "a.study", {"r2": float("nan"), "rows": [1.5, float("inf")]})
    printed = json.loads(capsys.readouterr().out)
    assert printed == {
        "study": "a.study", "run": None, "metrics": {"r2": None, "rows": [1.5, None]},
    }  # fmt: skip


def test_json_keeps_every_digit_of_a_table(capsys):
    """Of numbers that a fixed number of decimals makes 0, and of every type that a column has."""
    from interp.cli.common import print_frame

    small, single = 1.2345678901234567e-20, np.float32(1) / 3
    rows = pd.DataFrame({
        "p": [small, np.nan], "z": np.array([single, -np.inf], np.float32),
        "rank": pd.array([2**53 + 1, None], "Int64"), "is": [True, False],
        "logits": [np.array([single, 0], np.float32), [small]], "name": ["a", None],
    })  # fmt: skip
    print_frame("a.b", rows, json=True)
    first, second = json.loads(capsys.readouterr().out)["results"]
    assert first == {
        "p": small, "z": float(single), "rank": 2**53 + 1, "is": True,
        "logits": [float(single), 0.0], "name": "a",
    }  # fmt: skip
    assert list(second.values()) == [None, None, None, False, [small], None]


def test_json_has_the_text_of_what_it_has_no_type_for(capsys):
    from interp.cli.common import print_frame

    rows = pd.DataFrame({"t": pd.to_datetime(["2020-01-02"]), "where": [Path("a/b")]})
    print_frame("a.b", rows, json=True, chance=np.float32(0.5))
    printed = json.loads(capsys.readouterr().out)
    assert printed["chance"] == 0.5
    assert printed["results"] == [{"t": "2020-01-02 00:00:00", "where": "a/b"}]


def test_models(model_folder, own_home, capsys):
    assert run("models", "add", "mine", model_folder("gpt2"), capsys=capsys)[0] == 0
    code, out, _ = run("models", "list", "--json", capsys=capsys)
    assert [m["name"] for m in json.loads(out)["models"]] == [
        *("smollm2-135m", "gemma3-270m", "othello-gpt", "mine")
    ]
    code, out, _ = run("models", "info", "mine", "--json", capsys=capsys)
    assert json.loads(out)["metrics"]["kinds"] == ["up", "down"]
    assert run("models", "list", capsys=capsys)[0] == 0
    assert run("models", "info", "mine", capsys=capsys)[0] == 0


def test_bench_reports_ratios_with_their_spread(own_home, capsys):
    sizes = ["--d", 32, "--vocabulary", 3000, "--rows", 300, "--repeats", 3]
    less = ["--others", "topk", "--accuracy-rows", 0]
    code, out, _ = run("bench", "kernels", *sizes, *less, "--json", capsys=capsys)
    metrics = json.loads(out)["metrics"]
    assert code == 0
    for name in ("fp32_ratio", "naive_ratio"):
        assert 0 < metrics[f"{name}_min"] <= metrics[name] <= metrics[f"{name}_max"]


NO_TORCH = ("torch", "transformers", "transformer_lens")
NO_BROWSER = (*NO_TORCH, "scipy", "sklearn", "numba", "plotly", "streamlit")
NO_FRAMES = (*NO_BROWSER, "numpy", "pandas", "pyarrow", "interp.model.families")
NO_TABLES = (*NO_FRAMES, "duckdb")
NO_MODEL = (*NO_TABLES, "interp.model", "interp.runs.store")
ANY = 10_000
EVERY_GROUP = """
from interp.analyses import VERBS, analyses, load
for entry in (analyses() | VERBS).values():
    load(entry.commands) if entry.commands else entry.configs()
"""


@pytest.mark.parametrize(
    ("code", "without", "most"),
    [
        ("from interp.cli import main; main(['--help'])", NO_MODEL, 340),
        ("from interp.cli import main; main(['models', 'list'])", NO_TABLES, 480),
        ("from interp.cli import main; main(['jobs', 'list'])", NO_TABLES, 480),
        ("from interp.cli import main; main(['neurons', 'search', '#7'])", NO_FRAMES, 640),
        ("from interp.cli import main; main(['neurons', 'layers'])", NO_BROWSER, 1050),
        (EVERY_GROUP, NO_BROWSER, 1150),
        ("import interp.apps.atlas, interp.apps.home, interp.apps.prompt", NO_TORCH, ANY),
        ("import interp.apps.jobs, interp.apps.new; interp.apps.form.studies()", NO_TORCH, ANY),
    ],
)
def test_what_is_not_used_is_not_imported(code, without, most, atlas):
    script = (
        f"{code}\nimport sys\n"
        f"print([m for m in {without} if m in sys.modules], len(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, _, count = done.stderr.splitlines()[-1].rpartition(" ")
    assert found == "[]"
    assert int(count) <= most


def test_calling_twice_in_a_process_leaves_no_handler(own_home, capsys):
    before = list(logging.getLogger("interp").handlers)
    run("models", "list", capsys=capsys)
    run("neurons", "search", "dog", capsys=capsys)
    assert logging.getLogger("interp").handlers == before
