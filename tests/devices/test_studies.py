"""Every study, and what is none, on a pretended GPU: the CPU's numbers, nothing on the wrong
device, and no more that crosses than has to."""

import json
import subprocess
import sys
from dataclasses import fields
from functools import cache
from typing import Any

import pytest

from ..runs.small_studies import kinds

TAKES = [name for name, kind in kinds().items() if "device" in {f.name for f in fields(kind)}]
QUICK = (
    *("neurons.atlas", "directions.tokens", "lens.tune", "lens.show", "lens.compare"),
    *("circuits.head", "circuits.patch", "saes.survey", "linearscope.tokens"),
    *("linearscope.explain", "linearscope.bias", "linearscope.impulse"),
)
SLOW = tuple(name for name in TAKES if name not in QUICK)
OFTEN = 3.0
"""A line of ours may cross so often a pass of the model, and as OPENED says besides."""
OPENED = 60
"""What checking a model as it is opened costs: once a site, and once a weight."""


@pytest.fixture(scope="module")
def found(tmp_path_factory, dog_model):
    """What `studies.py` prints of the quick or of the slow ones, by study or name; what the command
    line answers, on the CPU and there, in a list."""

    @cache
    def of(slow):
        names = [name for name in TAKES if (name in SLOW) == slow]
        folder = tmp_path_factory.mktemp("pretended")
        command = [sys.executable, "-W", "ignore", "-m", "tests.devices.studies", dog_model, folder]
        process = subprocess.run([*command, *names], capture_output=True, text=True)
        assert process.returncode == 0, process.stderr[-2000:]
        lines = (line for line in process.stdout.splitlines() if line.startswith("{"))
        made = dict[str, Any](answered=[])
        for each in map(json.loads, lines):
            if each.get("study") == "saes.search":
                made["answered"].append(each["results"])
            else:
                made[each.get("name") or each["study"]] = each
        return made

    return of


def test_the_pretended_device_refuses_what_cuda_refuses(found):
    assert found(False)["rules"]["fault"] == ""


def test_a_kernel_that_does_not_run_there_is_refused_in_one_line(found):
    refused = found(False)["refused"]["found"]
    assert len(refused) == 3
    assert "impl='triton'" in refused[0]
    for line in refused:
        assert "\n" not in line
        assert "use '" in line or "pip install" in line
    assert found(False)["impl"]["found"] == ["naive", True]


def test_latents_that_fire_on_a_text(found):
    here, there = found(False)["answered"]
    assert here
    values = [[row.pop("value") for row in rows] for rows in (here, there)]
    assert here == there
    assert values[0] == pytest.approx(values[1], rel=1e-4)


@pytest.mark.parametrize(
    "study",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in TAKES],
)
def test_a_study_is_the_same_there(study, found):
    made = found(study in SLOW)[study]
    assert not made["fault"], made["fault"]
    assert not made["differs"]
    often = OPENED + OFTEN * made["passes"]
    assert not [each for each in made["moved"] if each[-1] > often]
