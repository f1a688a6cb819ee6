"""What a run will take, from what runs like it took."""

import json
from types import SimpleNamespace

import pytest
from safetensors.numpy import load_file

from interp.neurons.atlas import AtlasConfig
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
    assert estimate(AtlasConfig(), runs) == "Took 74 s and 1.1 GiB here, with k 20."
    assert estimate(AtlasConfig(k=20), runs) == "Took 74 s and 1.1 GiB here."
    assert estimate(AtlasConfig(k=20, seed=3), runs) == "Took 74 s and 1.1 GiB here."
    assert estimate(AtlasConfig(norm="mlp"), runs) == "Took 2 min and 900 MiB here, with k 20."


def test_else_the_shipped_figures_and_else_a_guess_by_parameters(elsewhere):
    assert estimate(AtlasConfig(), []) == "About 20 s and 1.0 GiB on 2 cores."
    assert estimate(AtlasConfig(k=9), []) == "About 20 s and 1.0 GiB on 2 cores, with the usual k."
    assert estimate(AtlasConfig("x"), [], 1000) == (
        "A guess, by the number of parameters from smollm2-135m on 2 cores: about 3 min and "
        "10.0 GiB."
    )
    assert estimate(AtlasConfig("x"), [took(9, 9)]) == "Took 9 s and 9 MiB here, of smollm2-135m."
    assert estimate(AtlasConfig("x"), []) == UNKNOWN
    assert estimate(TarsConfig(), []) == UNKNOWN


def test_the_table_has_the_plainest_run_of_each_study_and_model(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_counted", lambda model: 7 if model == "smollm2-135m" else 0)
    runs = [
        took(9, 1, k=20), took(30, 2), took(20, 3), took(1, 1, model="gone"), took(1, 1, lens="/x"),
        took(5, 5, study="no.such"),
    ]  # fmt: skip
    made = json.loads(table(runs, "mine"))
    row = {"model": "smollm2-135m", "settings": {}, "seconds": 20.0, "bytes": 3 << 20}
    assert made == {"machine": "mine", "studies": {"neurons.atlas": [{**row, "parameters": 7}]}}


def test_the_shipped_table_is_such_a_one():
    machine, studies = shipped()
    assert "cores" in machine
    assert studies["neurons.atlas"][0].seconds > 0
    assert all(row.seconds >= 0 and row.bytes > 0 for rows in studies.values() for row in rows)
    assert estimate(AtlasConfig(), []).startswith("About ")


def test_parameters_are_counted_without_reading_them(model_folder):
    folder = model_folder("llama")
    tensors = load_file(folder / "model.safetensors").values()
    assert parameters_of(folder) == sum(tensor.size for tensor in tensors) > 0
    assert parameters_of(folder / "none") == 0
