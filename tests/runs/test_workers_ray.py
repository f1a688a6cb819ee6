"""Parts on a Ray cluster of this machine: the same, each once, whatever dies."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from interp.darkmatter.measure import DarkMatterConfig
from interp.errors import UserError
from interp.latents.survey import SurveyConfig
from interp.neurons.atlas import AtlasConfig
from interp.runs.store import Store
from interp.runs.study import run_or_load
from interp.runs.workers import map_parts
from interp.runs.workers_task import RETRIES, Workers
from tests.darkmatter.planted import OTHELLO

from .parted import LONG, ROOT, Heard, Squares, begun, ended
from .test_workers import PARTS

ray = pytest.importorskip("ray")
RAY = Workers(0, "auto")
SAE = f"{OTHELLO['saes']}/topk-L2-S0"
READ = {**OTHELLO, "saes": SAE, "tokens": 59 * 20, "ridge": 1e-3}
ERRORS = DarkMatterConfig(**READ)
SURVEY = SurveyConfig(**{name: READ[name] for name in ("model", "saes", "corpus", "length")})


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As many as a worker of Ray has: the last digits of forward passes depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cluster():
    """A head, which makes no parts, and two nodes of a core each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        head = {"num_cpus": 0, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            made.add_node(num_cpus=1)
        made.wait_for_nodes()
        ray.init(address=made.address, log_to_driver=False)
        yield made
        ray.shutdown()
        made.shutdown()


def squares(results):
    found = [(part, result) for part, (result, _) in results]
    assert sorted(found) == [(n, n * n) for n in PARTS], "each once"
    return {pid for _, (_, pid) in results}


def test_parts_are_those_of_one_process(cluster, tmp_path):
    pids = squares(list(map_parts(Squares(str(tmp_path), seconds=0.2), PARTS, RAY)))
    assert os.getpid() not in pids
    assert len(pids) == 2


def test_they_come_in_order_where_they_add_up(cluster, tmp_path):
    task = Squares(str(tmp_path), dies=((2, 1),), slow=(0, 4))
    assert [part for part, _ in map_parts(task, PARTS, RAY, ordered=True)] == PARTS


def test_what_a_dead_worker_had_is_made_again(cluster, tmp_path):
    squares(list(map_parts(Squares(str(tmp_path), dies=((3, 1), (7, 2))), PARTS, RAY)))
    assert len((tmp_path / "7").read_text()) == 3


def test_a_node_that_is_lost_in_the_middle(cluster, tmp_path):
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    results = map_parts(Squares(str(tmp_path), seconds=0.3), PARTS, RAY)
    first = [next(results)]
    cluster.remove_node(node, allow_graceful=False)
    squares(first + list(results))


def test_a_part_that_kills_every_worker_and_one_that_raises(cluster, tmp_path):
    with pytest.raises(UserError, match="the workers of part 5 died"):
        list(map_parts(Squares(str(tmp_path), dies=((5, 100),)), PARTS, RAY))
    with pytest.raises(UserError, match="no square of 4"):
        list(map_parts(Squares(str(tmp_path), wrong=(4,)), PARTS, RAY))
    with pytest.raises(UserError, match=r"node .*: other weights here"):
        list(map_parts(Squares(str(tmp_path), fingerprint="other"), PARTS, RAY))


def test_an_atlas_is_the_same_to_the_byte(cluster, dog_model, tmp_path):
    runs = [
        run_or_load(AtlasConfig(model=str(dog_model), k=8, workers=w), Store(tmp_path / w))
        for w in ("1", "ray")
    ]
    one, two = ({n: part["sha256"] for n, part in r.manifest["files"].items()} for r in runs)
    assert one == two


@pytest.mark.slow
def test_smollm2_s_atlas_survives_a_lost_node(cluster, own_home, tmp_path, monkeypatch):
    """The real model on a head and two nodes, one of which is lost in the middle."""
    from interp.neurons import atlas

    monkeypatch.delenv("INTERP_HOME")
    node, kept = cluster.add_node(num_cpus=1), atlas.map_parts

    def losing(*given):
        for done, made in enumerate(kept(*given)):
            if done == 5:
                cluster.remove_node(node, allow_graceful=False)
            yield made

    one = run_or_load(AtlasConfig(), Store(tmp_path / "one"))
    monkeypatch.setattr(atlas, "map_parts", losing)
    two = run_or_load(AtlasConfig(workers="ray"), Store(tmp_path / "two"))
    assert one.manifest["files"] == two.manifest["files"]
