"""What workers are lent is made once, is the same for all, and is gone when they are."""

import os
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest

from interp.errors import UserError
from interp.neurons.atlas import AtlasConfig
from interp.neurons.making import Slices
from interp.runs import workers_lent
from interp.runs.workers import map_parts
from interp.runs.workers_task import Workers

from ..workers import sent
from .parted import ROOT


@dataclass(frozen=True)
class Sums:
    """Sums of rows of an array that is lent; each time it is made leaves a line."""

    folder: str

    def lend(self):
        with Path(self.folder, "made").open("a") as file:
            file.write(f"{os.getpid()}\n")
        return {"rows": np.arange(12.0).reshape(4, 3), "half": np.ones(2, np.float16)}

    def open(self, lent=None):
        return workers_lent.tensor((lent or self.lend())["rows"])

    def make(self, opened, part):
        return float(opened[part].sum()), os.getpid()


@pytest.fixture(autouse=True)
def found_by_workers(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(workers_lent, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def sums(folder, workers):
    found = dict(map_parts(Sums(str(folder)), range(4), workers))
    assert [found[part][0] for part in range(4)] == [3.0, 12.0, 21.0, 30.0]
    return {pid for _, pid in found.values()}


@pytest.mark.parametrize("number", [1, 2])
def test_it_is_made_once_by_the_process_that_asks(number, tmp_path):
    pids = sums(tmp_path, Workers(number))
    assert (tmp_path / "made").read_text().split() == [str(os.getpid())]
    assert (os.getpid() in pids) == (number == 1)
    assert not list(tmp_path.glob("interp-lent-*")), "nothing is left"


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_stays(tmp_path):
    left = tmp_path / "interp-lent-dead"
    left.mkdir()
    (left / "rows.npy").write_bytes(b"x")
    used = workers_lent.LentFiles(Sums(str(tmp_path)))
    assert not left.exists()
    other = workers_lent.LentFiles(Sums(str(tmp_path)))
    assert sorted(p.name for p in Path(used.path).iterdir()) == ["half.npy", "lock", "rows.npy"]
    used.remove()
    other.remove()


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*given, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match=r"cannot write what the workers share .*No space.*TMPDIR"):
        list(map_parts(Sums(str(tmp_path)), range(4), Workers(2)))
    assert not list(tmp_path.glob("interp-lent-*"))


def test_a_task_is_sent_as_settings_alone(dog_model):
    """What it has opened to lend is of this machine's files: a worker elsewhere opens its own, and
    would else find the same model whatever it has."""
    task = Slices.of(AtlasConfig(model=str(dog_model), k=8))
    task.lend()
    assert "stored_weights" in vars(task.config)
    other = sent(task)
    assert other == task
    assert set(vars(other.config)) == {field.name for field in fields(other.config)}
