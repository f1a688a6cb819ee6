"""What a run will take, from what runs like it took."""

import json
from types import SimpleNamespace

import pytest
from safetensors.numpy import load_file

from interp.neurons.atlas import AtlasConfig
from interp.neurons.clamp import ClampConfig
from interp.neurons.tars import TarsConfig
from interp.runs import estimate as module
from interp.runs.estimate import UNKNOWN, Measured, estimate, parameters_of, shipped, table


def took(seconds, mib, study="neurons.atlas", **config):
    manifest = {"wall_s": seconds, "peak_memory_bytes": mib << 20}
    config = {"model": "smollm2-135m", "k": 16, **config}
    return SimpleNamespace(study=study, manifest=manifest, config=config)


@pytest.fixture
def elsewhere(monkeypatch):
    """The shipped table."""
    rows = [Measured("smollm2-135m", {}, 20.0, 1 << 30, 100)]
    monkeypatch.setattr(module, "shipped", lambda: ("2 cores", {"neurons.atlas": rows}))


def test_a_run_here_with_the_fewest_other_settings_is_named(elsewhere):
    runs = [took(100, 900, k=20, norm="mlp"), took(74, 1126, k=20), took(9, 9, model="other")]
    assert (
        estimate(AtlasConfig(), runs) == "Took 74 s here, with k 20; its process peaked at 1.1 GiB."
    )
    assert estimate(AtlasConfig(k=20), runs) == "Took 74 s here; its process peaked at 1.1 GiB."
    assert (
        estimate(AtlasConfig(k=20, seed=3), runs)
        == "Took 74 s here; its process peaked at 1.1 GiB."
    )
    assert estimate(AtlasConfig(norm="mlp"), runs) == (
        "Took 2 min here, with k 20; its process peaked at 900 MiB."
    )


def test_else_the_shipped_figures_and_else_a_guess_by_parameters(elsewhere):
    assert estimate(AtlasConfig(), []) == "About 20 s on 2 cores; its process peaked at 1.0 GiB."
    assert estimate(AtlasConfig(k=9), []) == (
        "About 20 s on 2 cores, with the usual k; its process peaked at 1.0 GiB."
    )
    assert estimate(AtlasConfig("x"), [], 1000) == (
        "A guess, by the number of parameters from smollm2-135m on 2 cores: about 3 min; its "
        "process may peak at about 10.0 GiB."
    )
    assert estimate(AtlasConfig("x"), [took(9, 9)]) == (
        "Took 9 s here, of smollm2-135m; its process peaked at 9 MiB."
    )
    assert estimate(AtlasConfig("x"), []) == UNKNOWN
    assert estimate(TarsConfig(), []) == UNKNOWN


def test_more_workers_are_no_more_work(elsewhere):
    said = estimate(AtlasConfig(workers=4), [took(9, 9, workers=2)])
    assert said == "Took 9 s here, with workers 2; its process peaked at 9 MiB."


def of_clamp(prompts, seconds=4, **config):
    usual = {"neuron": "29.down.808", "k": None, "prompt": [f"q{n}" for n in range(prompts)]}
    return took(seconds, 800, "neurons.clamp", **usual, **config)


def test_more_work_than_a_run_had_is_said(monkeypatch):
    monkeypatch.setattr(module, "shipped", lambda: ("2 cores", {}))
    many = ClampConfig(neuron="29.down.808", prompt=tuple(f"q{n}" for n in range(200)), tokens=60)
    said = estimate(many, [of_clamp(2)])
    assert said == (
        "Took 4 s here; its process peaked at 800 MiB. Yours is more work: prompt 200, not 2; "
        f"tokens 60, not {ClampConfig().tokens}."
    )
    few = ClampConfig(neuron="29.down.808", prompt=("q0",))
    assert "more work" not in estimate(few, [of_clamp(2)])
    assert "more work" not in estimate(AtlasConfig(seed=9), [took(9, 9)])


def test_a_run_of_as_much_work_is_nearer_than_one_with_fewer_other_settings(monkeypatch):
    monkeypatch.setattr(module, "shipped", lambda: ("2 cores", {}))
    runs = [of_clamp(2), of_clamp(300, 80, where="all", word="dog")]
    many = ClampConfig(neuron="29.down.808", prompt=tuple(f"q{n}" for n in range(200)))
    assert estimate(many, runs).startswith("Took 80 s here")


def test_a_run_on_another_device_is_not_quoted_without_saying_so(elsewhere):
    runs = [took(9, 1024, device="cuda"), took(74, 1024, device="cpu")]
    assert estimate(AtlasConfig(), runs).startswith("Took 74 s here;")
    assert estimate(AtlasConfig(device="cuda"), runs).startswith("Took 9 s here;")
    assert "It ran on" not in estimate(AtlasConfig(device="cuda"), runs)
    moved = estimate(AtlasConfig(device="cuda"), [])
    assert moved.endswith("1.0 GiB. It ran on cpu, and yours runs on cuda.")


def test_the_table_has_the_plainest_run_of_each_study_and_model(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_counted", lambda model: 7 if model == "smollm2-135m" else 0)
    runs = [
        took(9, 1, k=20), took(30, 2), took(20, 3), took(1, 1, model="gone"), took(1, 1, lens="/x"),
        took(5, 5, study="no.such"),
    ]  # fmt: skip
    made = json.loads(table(runs, "mine"))
    row = {
        "model": "smollm2-135m",
        "settings": {},
        "seconds": 20.0,
        "bytes": 3 << 20,
        "device": "cpu",
    }
    assert made == {"machine": "mine", "studies": {"neurons.atlas": [{**row, "parameters": 7}]}}


def test_the_shipped_table_is_such_a_one():
    machine, studies = shipped()
    assert "cores" in machine
    assert "shared" in machine
    assert studies["neurons.atlas"][0].seconds > 0
    assert all(row.seconds >= 0 and row.bytes > 0 for rows in studies.values() for row in rows)
    assert estimate(AtlasConfig(), []).startswith("About ")


def test_parameters_are_counted_without_reading_them(model_folder):
    folder = model_folder("llama")
    tensors = load_file(folder / "model.safetensors").values()
    assert parameters_of(folder) == sum(tensor.size for tensor in tensors) > 0
    assert parameters_of(folder / "none") == 0
