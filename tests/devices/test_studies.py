"""Every study on a pretended GPU: the CPU's numbers, nothing on the wrong device, and no more that
crosses than has to."""

import json
import subprocess
import sys
from dataclasses import fields
from functools import cache

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
    """What `studies.py` prints of the quick or of the slow ones, by study."""

    @cache
    def of(slow):
        names = [name for name in TAKES if (name in SLOW) == slow]
        folder = tmp_path_factory.mktemp("pretended")
        command = [sys.executable, "-W", "ignore", "-m", "tests.devices.studies", dog_model, folder]
        process = subprocess.run([*command, *names], capture_output=True, text=True)
        assert process.returncode == 0, process.stderr[-2000:]
        lines = (line for line in process.stdout.splitlines() if line.startswith("{"))
        return {each["study"]: each for each in map(json.loads, lines)}

    return of


def test_the_pretended_device_refuses_what_cuda_refuses(found):
    assert found(False)["rules"]["fault"] == ""


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
