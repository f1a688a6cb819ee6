"""Parts on a Ray cluster of this machine: the same, each once, whatever dies."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from functools import cache

import pytest

from interp.darkmatter.measure import DarkMatterConfig
from interp.darkmatter.run_pass import ErrorPass
from interp.errors import UserError
from interp.latents.survey import SHIPPED, SurveyConfig
from interp.neurons.atlas import AtlasConfig
from interp.runs.store import Store
from interp.runs.study import run_or_load
from interp.runs.workers import map_parts
from interp.runs.workers_task import RETRIES, Workers
from tests.darkmatter.planted import OTHELLO
from tests.latents.conftest import OTHELLO as SURVEYED

from .parted import LONG, ROOT, Heard, Squares, begun, ended, resumed_after_a_kill, until
from .test_workers import PARTS
from .test_workers_lent import Sums

ray = pytest.importorskip("ray")
RAY = Workers(0, "auto")
SAE = f"{OTHELLO['saes']}/saes/topk-L2-S0"
ERRORS = DarkMatterConfig(**{**OTHELLO, "saes": SAE, "tokens": 59 * 20, "ridge": 1e-3})
SURVEY = replace(SURVEYED, tokens=59 * 300)
ATLAS_2 = AtlasConfig(weights=("down",))
ERRORS_2 = DarkMatterConfig(saes=str(SHIPPED), tokens=6000, downstream=2)
SURVEY_2 = SurveyConfig(tokens=10_000)
"""Of SmolLM2."""
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cluster():
    """A head, which makes no parts, and two nodes of a core each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        patch.setenv("RAY_worker_niceness", "0")  # 15 by default: other tests would starve them
        head = {"num_cpus": 0, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            made.add_node(num_cpus=1)
        made.wait_for_nodes()
        ray.init(address=made.address, log_to_driver=False)
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture(scope="module")
def second(cluster, tmp_path_factory):
    """Adds a node with a home of its own, and room for two workers by the GPUs, once it is asked
    for; returns the home."""
    home = tmp_path_factory.mktemp("second")
    node = cache(
        lambda: cluster.add_node(
            num_cpus=2, num_gpus=1, node_name="second", env_vars={"INTERP_HOME": str(home)}
        )
    )
    yield lambda: node() and home
    cluster.remove_node(node())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of a study by this process alone, made once."""
    store = Store(tmp_path_factory.mktemp("alone"))
    return lambda study: run_or_load(study, store)


def squares(results):
    found = [(part, result) for part, (result, *_) in results]
    assert sorted(found) == [(n, n * n) for n in PARTS], "each once"
    return {pid for _, (_, pid, _) in results}


def said(caplog):
    """Ray says much of its own."""
    return [record.getMessage() for record in caplog.records if record.name == "interp"]


def files(run):
    assert len(run.manifest["files"]) > 2
    return {name: part["sha256"] for name, part in run.manifest["files"].items()}


def test_parts_are_those_of_one_process(cluster, tmp_path):
    heard = Heard()
    pids = squares(list(map_parts(Squares(str(tmp_path), seconds=0.2), PARTS, RAY, heard)))
    assert os.getpid() not in pids
    assert len(pids) == 2
    assert heard.workers == [(2, 0)] * len(PARTS)


def test_they_come_in_order_where_they_add_up(cluster, tmp_path):
    task = Squares(str(tmp_path), dies=((2, 1),), slow=(0, 4))
    assert [part for part, _ in map_parts(task, PARTS, RAY, ordered=True)] == PARTS


def test_what_a_dead_worker_had_is_made_again(cluster, tmp_path, caplog):
    heard, task = Heard(), Squares(str(tmp_path), dies=((3, 1), (7, 2)))
    squares(list(map_parts(task, PARTS, RAY, heard)))
    assert [len(begun(tmp_path, n)) for n in PARTS] == [1, 1, 1, 2, 1, 1, 1, 3, 1]
    assert sorted(said(caplog)) == [f"a worker died: part {n} is made again" for n in (3, 7, 7)]
    assert heard.workers[-1] == (2, 3)


def test_a_part_that_kills_every_worker_and_one_that_raises(cluster, tmp_path):
    with pytest.raises(UserError, match=f"the workers of part 5 died {RETRIES + 1} times, at last"):
        list(map_parts(Squares(str(tmp_path), dies=((5, 100),)), PARTS, RAY))
    assert len(begun(tmp_path, 5)) == RETRIES + 1
    with pytest.raises(UserError, match="no square of 4"):
        list(map_parts(Squares(str(tmp_path), wrong=(4,)), PARTS, RAY))
    assert len(begun(tmp_path, 4)) <= 2, "not tried again; it was begun above, maybe"


def test_ctrl_c_ends_the_workers(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    driver = [sys.executable, "-c", LONG, str(tmp_path), "ray"]
    assert "KeyboardInterrupt" in ended(driver, signal.SIGINT, tmp_path)
    assert len(begun(tmp_path)) == 2


def test_an_atlas_is_the_same_to_the_byte(cluster, alone, dog_model, tmp_path):
    config = AtlasConfig(model=str(dog_model), k=8)
    assert files(run_or_load(replace(config, workers="ray"), Store(tmp_path))) == files(
        alone(config)
    )


@pytest.mark.parametrize(
    "study",
    [
        pytest.param(ERRORS, id="a pass over errors"),
        # of two workers tests/latents/test_survey.py tells
        pytest.param(SURVEY, id="a survey", marks=pytest.mark.slow),
    ],
)
def test_what_adds_up_is_the_same_to_the_byte(cluster, alone, study, tmp_path):
    assert files(run_or_load(replace(study, workers="ray"), Store(tmp_path))) == files(alone(study))


def test_a_driver_that_is_killed_goes_on_where_it_was(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    resumed_after_a_kill("ray", tmp_path)


def test_room_is_counted_node_by_node():
    from interp.runs.workers_ray import held

    node = {"CPU": 8.0, "GPU": 2.0, "memory": 24 * 2.0**30}
    assert held(node, Workers(0, "auto")) == 8
    assert held(node, Workers(0, "auto", memory=5 * 2**30)) == 4
    assert held(node, Workers(0, "auto", gpus=0.5)) == 4
    assert held(node, Workers(0, "auto", memory=25 * 2**30)) == 0
    assert held({"CPU": 8.0}, Workers(0, "auto", gpus=1)) == 0


def test_a_worker_that_no_node_has_room_for_is_said(cluster, tmp_path, caplog):
    from interp.runs.workers_ray import OnRay

    crew = OnRay(Squares(str(tmp_path)), Workers(0, "auto", gpus=1))
    assert crew.room() == 1
    crew.end([])
    assert caplog.messages == [
        "no node of the cluster has room for a worker (1 core, 1 GPUs): waiting for one that has; "
        "Ctrl-C, and ask for less"
    ]


def test_what_is_lent_is_made_once(cluster, tmp_path):
    found = dict(map_parts(Sums(str(tmp_path)), range(4), RAY))
    assert [found[part][0] for part in range(4)] == [3.0, 12.0, 21.0, 30.0]
    assert (tmp_path / "made").read_text().split() == [str(os.getpid())]


def test_a_node_that_is_lost_in_the_middle(cluster, second, tmp_path, caplog):
    """It takes the parts that it makes, and a finished one that nobody has fetched yet."""
    node = cluster.add_node(num_cpus=2, num_gpus=1)
    cluster.wait_for_nodes()
    heard, task = Heard(), Squares(str(tmp_path), hangs=(2, 3), size=10**6)
    results = map_parts(task, PARTS, Workers(0, "auto", gpus=0.5), heard, ordered=True)
    first = [next(results)]
    until(lambda: len(begun(tmp_path)) == 4)
    cluster.remove_node(node, allow_graceful=False)
    second()
    squares(first + list(results))
    assert [len(begun(tmp_path, n)) for n in PARTS] == [1, 2, 2, 2, 1, 1, 1, 1, 1]
    assert sorted(said(caplog)) == [
        "a node was lost with a result: part 1 is made again",
        "a node was lost: part 2 is made again",
        "a node was lost: part 3 is made again",
    ]
    assert heard.workers[-1][1] == 3


def test_a_node_with_other_weights_is_named(second, dog_model, model_folder, own_home, monkeypatch):
    """Two homes have two models of one name; the second is that of one node."""
    for home, model in ((own_home / "home", dog_model), (second(), model_folder("llama"))):
        home.mkdir(exist_ok=True)
        (home / "models.json").write_text(json.dumps({"ours": str(model)}))
    line = r"^node [\w.-]+ \(second\): ours has another model here than where the run was started"
    with pytest.raises(UserError, match=line):
        run_or_load(AtlasConfig(model="ours", k=8, workers="ray", gpus_per_worker=1))


@pytest.mark.slow
def test_smollm2_s_atlas_survives_a_lost_node(
    cluster, alone, own_home, tmp_path, monkeypatch, caplog
):
    """The real model on a head and three nodes, one of which is lost in the middle."""
    from interp.neurons import atlas

    monkeypatch.delenv("INTERP_HOME")
    whole = files(alone(ATLAS_2))
    node, kept = cluster.add_node(num_cpus=1), atlas.map_parts

    def losing(*given):
        for done, made in enumerate(kept(*given)):
            if done == 5:
                cluster.remove_node(node, allow_graceful=False)
            yield made

    monkeypatch.setattr(atlas, "map_parts", losing)
    run = run_or_load(replace(ATLAS_2, workers="ray"), Store(tmp_path))
    assert files(run) == whole
    assert "a node was lost" in " ".join(said(caplog))


@pytest.mark.slow
@pytest.mark.parametrize("study", [ERRORS_2, SURVEY_2], ids=["a pass over errors", "a survey"])
def test_what_adds_up_over_smollm2_is_the_same_to_the_byte(
    cluster, alone, study, tmp_path, own_home, monkeypatch
):
    monkeypatch.delenv("INTERP_HOME")
    assert files(run_or_load(replace(study, workers="ray"), Store(tmp_path))) == files(alone(study))


KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from interp.darkmatter.run_pass import ErrorPass
from interp.runs import checkpoint
from interp.runs.store import Store
from interp.runs.study import run_or_load
from tests.runs.test_workers_ray import ERRORS_2

checkpoint.SECONDS, checkpoint.SHARE, take, calls = 0, 0, ErrorPass._take, []

def dying(errors, number, made):
    calls.append(number)
    if len(calls) == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    take(errors, number, made)

ErrorPass._take = dying
run_or_load(replace(ERRORS_2, workers="ray"), Store(Path(sys.argv[1])))
"""


@pytest.mark.slow
def test_smollm2_s_errors_are_counted_once_though_the_driver_is_killed(
    cluster, alone, tmp_path, own_home, monkeypatch
):
    """Killed at the eighth of its 13 parts: seven are in the checkpoint."""
    monkeypatch.delenv("INTERP_HOME")
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    driver = [sys.executable, "-c", KILLED, str(tmp_path)]
    ended = subprocess.run(driver, capture_output=True, check=False, cwd=ROOT)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    take, taken = ErrorPass._take, []
    monkeypatch.setattr(
        ErrorPass, "_take", lambda errors, *given: taken.append(given) or take(errors, *given)
    )
    resumed = run_or_load(replace(ERRORS_2, workers="ray"), Store(tmp_path))
    assert len(taken) == 6
    assert files(resumed) == files(alone(ERRORS_2))


@pytest.mark.parametrize("how", ["environment", "setting"])
def test_a_cluster_that_does_not_answer_is_one_line_at_once(how, monkeypatch):
    """Ray itself tries for minutes, and logs each time."""
    from interp.runs.workers_ray import OnRay

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address if how == "environment" else "")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    workers = RAY if how == "environment" else Workers(0, f"ray://{address}")
    with pytest.raises(UserError, match=f"{address} does not answer: Connection refused"):
        OnRay(Squares(""), workers)


def test_a_cluster_that_asks_for_a_token_says_how_it_is_given(monkeypatch):
    from interp.runs.workers_ray import OnRay

    def refused(**options):
        raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")

    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refused)
    with pytest.raises(UserError, match="cluster 'auto' .Failed .* set RAY_AUTH_MODE=token"):
        OnRay(Squares(""), RAY)
