"""What is no study, on the pretended device."""

import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def found(tmp_path_factory, dog_model):
    folder = tmp_path_factory.mktemp("pretended")
    command = [sys.executable, "-W", "ignore", "-m", "tests.devices.answers", dog_model, folder]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-2000:]
    return [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]


def test_a_kernel_that_does_not_run_there_is_refused_in_one_line(found):
    refused, chosen, *_ = found
    assert len(refused["found"]) == 3
    assert "impl='triton'" in refused["found"][0]
    for line in refused["found"]:
        assert "\n" not in line
        assert "use '" in line or "pip install" in line
    assert chosen["found"] == ["naive", True]


def test_latents_that_fire_on_a_text(found):
    here, there = (each["results"] for each in found[2:])
    assert here
    values = [[row.pop("value") for row in rows] for rows in (here, there)]
    assert here == there
    assert values[0] == pytest.approx(values[1], rel=1e-4)
