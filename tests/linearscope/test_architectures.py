"""The interpreter's identities on architectures of timm and torchvision, against the docs' table.

.venv/bin/pip install -c constraints.txt -e '.[architectures]'
.venv/bin/pytest -m slow tests/linearscope/test_architectures.py
"""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from interp.errors import UserError
from interp.linearscope.architectures import Errors, Row, architectures, measure, random_network

PAGE = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
LINES = [line.strip("|\n").split("|") for line in PAGE.read_text().splitlines() if line[:1] == "|"]
HEAD, TABLE = (
    [cell.strip() for cell in LINES[0]],
    {row.architecture: row for row in (Row(*(c.strip() for c in line)) for line in LINES[2:])},
)
LIMITS = {torch.float64: Errors(1e-13, 1e-13, 1e-13), torch.float32: Errors(1e-5, 1e-5, 1e-5)}
ROUNDED = ("timm efficientvit_b0",)
"""They compute in float32 inside, whatever the input: their value has no more digits."""
ALL = pytest.mark.parametrize("one", architectures(), ids=lambda one: one.name)
INSTALLED = pytest.mark.skipif(
    not (find_spec("timm") and find_spec("torchvision")),
    reason="timm and torchvision are not installed: pip install -c constraints.txt "
    "-e '.[architectures]'",
)


def test_the_table_has_them_all():
    assert list(Row._fields) == HEAD
    assert list(TABLE) == [one.name for one in architectures()]
    followed = [row for row in TABLE.values() if not row.refused]
    assert len(followed) >= 120
    assert all(row.value and row.adjoint and row.jacobian for row in followed)
    assert all(
        " in " in row.refused for row in TABLE.values() if row not in followed
    )  # a unit and its place


@pytest.mark.slow
@INSTALLED
@ALL
def test_the_identities(one):
    row, errors = measure(one)
    assert row.refused == TABLE[one.name].refused
    for dtype, found in errors.items():
        limit = LIMITS[dtype]
        rounded = one.name in ROUNDED and dtype == torch.float64
        assert found.value <= (1e-7 if rounded else limit.value)
        assert found.adjoint <= limit.adjoint
        assert (found.jacobian <= limit.jacobian) == one.piecewise


@pytest.mark.slow
@INSTALLED
def test_weights_and_statistics_are_random_and_the_same_each_time():
    one = next(one for one in architectures() if one.name == "timm coat_lite_tiny")
    first, second = (dict(random_network(one).state_dict()) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    one = next(one for one in architectures() if one.name == "torchvision resnet18")
    tensors = random_network(one).state_dict()
    assert all(float(t.float().std()) > 0.01 for t in tensors.values() if t.numel() > 1)


def test_without_the_packages_the_command_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for one in (architectures()[0], architectures()[-1]):
        with pytest.raises(UserError, match=r"pip install 'interp-workbench\[architectures\]'"):
            measure(one)
