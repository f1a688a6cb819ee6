"""The queue: who comes first, how a job ends, what a stranger's folder may not do."""

import json
import os
import resource
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from interp.errors import UserError
from interp.runs import fit, queue
from interp.runs.jobs import (
    CANCELLED,
    LOCK,
    RESULT,
    STARTED,
    active,
    all_jobs,
    check_words,
    find_job,
    log_tail,
    new_folder,
    open_job,
)
from interp.runs.store import Store, open_run
from interp.runs.watched import FILE

STUDY = '''
"""A study that takes its time."""
import time
from dataclasses import dataclass
from typing import ClassVar

from interp.analyses import Analysis


@dataclass(frozen=True)
class SlowConfig:
    """Count slowly."""

    n: int = 6
    """How far."""
    wait: float = 0.2
    """Seconds a number."""

    STUDY: ClassVar[str] = "slow.count"
    VERSION: ClassVar[int] = 1

    def fingerprints(self):
        return {}

    def check(self):
        pass

    def run(self, out):
        def make(some):
            time.sleep(self.wait)
            return [{"n": n, "square": n * n} for n in some]

        out.table("rows", out.in_pieces("rows", range(self.n), make, 1, "counting", "numbers"))
        return {"n": self.n}


ENTRY = Analysis("slow", "Count slowly.", studies=("slow_study:SlowConfig",))
'''


@dataclass(frozen=True)
class SlowConfig:
    """What this process has to know of it."""

    STUDY = "slow.count"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder in which the study is, as an installed package."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "slow_study.py").write_text(STUDY)
    about = folder / "slow_study-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-study\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[interp.analyses]\nslow = slow_study:ENTRY\n")
    return folder


@pytest.fixture
def root(installed, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.setattr(
        fit, "_lookups", [lambda study: SlowConfig if study == "slow.count" else None]
    )
    monkeypatch.delenv("INTERP_JOBS", raising=False)
    return tmp_path / "runs"


def until(true, seconds=120):
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def ended(job):
    return until(lambda: None if (now := open_job(job.folder)).alive else now)


def count(*options):
    return ("slow", "count", *options)


def put(root, title="", **made):
    """A job that nobody works off, as it would lie in a store."""
    folder = new_folder(root, count(), title)
    for name, content in made.items():
        (folder / name.replace("_", ".")).write_text(json.dumps(content))
    return folder


def hold(folder):
    lock = queue._taken(folder / LOCK)
    assert lock >= 0
    return lock


def test_how_a_job_stands_is_what_its_folder_says(root):
    waiting, running, stopped, finished, failed, cancelled, left = (put(root) for _ in range(7))
    locks = [hold(folder) for folder in (waiting, running, left)]
    for folder in (running, stopped):
        (folder / STARTED).write_text('{"time": 1.0, "pid": 1}')
    for folder, code in ((finished, 0), (failed, 2), (cancelled, 130)):
        result = {"code": code, "time": 2.0, "line": "no model 'x'", "run": None}
        (folder / RESULT).write_text(json.dumps(result))
    (left / CANCELLED).write_text("{}")
    (running / FILE).write_text('{"pid": 1, "step": {"label": "a", "done": 1, "total": 2}}')
    states = {job.folder: job.state for job in all_jobs(root)[0]}
    assert states == {
        waiting: "waiting", running: "running", stopped: "stopped", finished: "finished",
        failed: "failed", cancelled: "cancelled", left: "cancelled",
    }  # fmt: skip
    assert [job.folder for job in active(root)] == [waiting, running]
    assert open_job(running).step.total == 2
    assert open_job(failed).line == "no model 'x'"
    for lock in locks:
        os.close(lock)
    assert open_job(waiting).state == open_job(running).state == "stopped"
    assert active(root) == []


def worked(root, folder, order, busy=0.15):
    """Work a job off in a thread of this process, without a study."""

    def command(words):
        order.append(("begins", folder.name))
        time.sleep(busy)
        order.append(("ends", folder.name))
        return 0, ""

    lock = hold(folder)
    thread = threading.Thread(target=lambda: queue.work(root, folder.name, lock, command))
    thread.start()
    return thread


@pytest.mark.parametrize("together", [1, 2])
def test_jobs_run_in_their_order_and_so_many_at_once(root, together, monkeypatch):
    monkeypatch.setenv("INTERP_JOBS", str(together))
    monkeypatch.setattr(queue, "PATIENCE", 0.01)
    folders, order = [put(root) for _ in range(4)], []
    full = [queue._taken(root / ".jobs" / f".slot-{n}") for n in range(together)]
    threads = [worked(root, folder, order) for folder in reversed(folders)]
    time.sleep(0.1)
    assert [job.folder for job in active(root)] == folders
    for slot in full:
        os.close(slot)
    for thread in threads:
        thread.join(120)
    assert [name for what, name in order if what == "begins"] == [each.name for each in folders]
    running, most = 0, 0
    for what, _ in order:
        running += 1 if what == "begins" else -1
        most = max(most, running)
    assert most == together
    assert {job.state for job in all_jobs(root)[0]} == {"finished"}


def test_a_job_is_cancelled_resumed_and_has_the_same_tables(root, tmp_path):
    first = queue.start(root, count("--n", "6"))
    second = queue.start(root, count("--n", "1"))
    assert second.state == "waiting"
    until(lambda: (step := open_job(first.folder).step) and step.done >= 2)
    assert "counting" in log_tail(first)
    queue.cancel(second)
    assert open_job(second.folder).state == "cancelled"
    queue.cancel(open_job(first.folder))
    stopped = ended(first)
    assert stopped.state == "cancelled"
    assert "the same command resumes with" in stopped.line
    with pytest.raises(UserError, match="has ended already"):
        queue.cancel(stopped)
    done = ended(queue.again(stopped))
    assert done.state == "finished", log_tail(done)
    assert not stopped.folder.exists(), "the new one takes its place"
    run = open_run(done.run, "slow.count")
    alone = ended(queue.start(tmp_path / "other", count("--wait", "0")))
    assert alone.run.name != run.path.name
    other = open_run(alone.run)
    assert run.part("rows.parquet").read_bytes() == other.part("rows.parquet").read_bytes()
    assert run.path.parents[1] == root
    queue.remove(done)
    assert run.path.exists()
    assert [job.id for job in all_jobs(root)[0]] == [second.id]


def test_a_killed_job_is_stopped_and_goes_on(root):
    job = queue.start(root, count("--n", "4"))
    until(lambda: (step := open_job(job.folder).step) and step.done >= 1)
    os.kill(open_job(job.folder).pid, signal.SIGKILL)
    gone = ended(job)
    assert (gone.state, gone.step) == ("stopped", None)
    assert "killed" in gone.line
    assert ended(queue.again(gone)).state == "finished"
    assert len(Store(root).runs("slow.count")) == 1


def test_a_second_cancel_kills(root):
    job = queue.start(root, count("--n", "1", "--wait", "60"))
    until(lambda: (step := open_job(job.folder).step) and step.label)
    (job.folder / CANCELLED).write_text("{}")  # as if it had not heard of the first
    assert open_job(job.folder).cancelling
    queue.cancel(open_job(job.folder))
    assert ended(job).state == "cancelled"


def test_a_mistake_is_the_jobs_line(root):
    job = ended(queue.start(root, count("--n", "many")))
    assert job.state == "failed"
    assert "--n" in job.line
    assert "\n" not in job.line


def test_threads_are_shared_out(monkeypatch):
    monkeypatch.setattr(queue, "cores", lambda: 16)
    monkeypatch.delenv("INTERP_JOBS", raising=False)
    assert queue.slots() == 4
    monkeypatch.setattr(queue, "cores", lambda: 2)
    assert queue.slots() == 1
    for wrong in ("0", "x", "-1", "1e3"):
        monkeypatch.setenv("INTERP_JOBS", wrong)
        with pytest.raises(UserError, match="INTERP_JOBS"):
            queue.slots()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "is no study"),
        (("app",), "is no study"),
        (("jobs", "add"), "is no study"),
        (("rm", "-rf"), "is no study"),
        (count("--out", "/tmp/x"), "leave --out out"),
        (count("--runs=/tmp/x"), "leave --runs out"),
        (count("--model", "os:system"), "is code"),
        (count("--model=os:system"), "is code"),
        (count("x" * 200_000), "more than a command has"),
    ],
)
def test_only_a_studys_command_is_a_job(root, words, says):
    with pytest.raises(UserError, match=says):
        check_words(words)
    with pytest.raises(UserError, match=says):
        queue.start(root, words)
    assert not list(root.glob(".jobs/*"))


GOOD = {"words": ["slow", "count"], "title": "x", "created": 1.0}


@pytest.mark.parametrize(
    "note",
    [
        "", "[]", "{}", json.dumps({**GOOD, "words": ["app", "--address", "0.0.0.0"]}),
        json.dumps({**GOOD, "words": "slow count"}), json.dumps({**GOOD, "words": [1, 2]}),
        json.dumps({**GOOD, "created": None}), json.dumps({**GOOD, "created": 1e300}),
        json.dumps({**GOOD, "title": ["x"]}), '{"words": [], "words": []}',
        json.dumps({**GOOD, "words": ["slow", "count", "--out", "/etc"]}),
    ],
)  # fmt: skip
def test_a_strangers_job_is_one_line(root, note):
    folder = put(root)
    (folder / "job.json").write_text(note)
    found, complaints = all_jobs(root)
    assert found == []
    assert len(complaints) == 1
    assert "\n" not in complaints[0]
    with pytest.raises(UserError):
        queue.work(root, folder.name, -1, lambda words: pytest.fail("it was started"))


def test_a_job_that_cannot_be_written_leaves_no_folder_and_promises_nothing(root, monkeypatch):
    """The disk is full at the job's first file, and at its log."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*\(no job is made\)"):
            queue.start(root, ("slow", "count"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("subprocess.Popen", full)
    with pytest.raises(UserError, match=r"free some space \(no job is made\)"):
        queue.start(root, ("slow", "count"))
    assert all_jobs(root) == ([], [])
    assert not [path for path in (root / ".jobs").iterdir() if path.is_dir()]


def test_links_and_other_folders_are_no_jobs(root, tmp_path):
    folder = put(root)
    elsewhere = tmp_path / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    (root / ".jobs" / "no job").mkdir()
    (root / ".jobs" / ".slot-0").write_text("")
    found, complaints = all_jobs(root)
    assert found == []
    assert len(complaints) == 2
    (root / ".jobs").rename(tmp_path / "jobs")
    (root / ".jobs").symlink_to(tmp_path / "jobs")
    with pytest.raises(UserError, match="is a link"):
        queue.start(root, count())


def test_a_strangers_result_leads_to_no_folder_outside(root):
    for run in ("/etc", "..", "../../x", "x", "a" * 12):
        folder = put(root, result_json={"code": 0, "time": 1.0, "line": "", "run": run})
        job = open_job(folder)
        assert job.run == (root / "slow.count" / run if run == "a" * 12 else None)


def test_a_process_that_is_not_the_jobs_is_left_alone(root, monkeypatch):
    folder = put(root)
    lock = hold(folder)
    (folder / STARTED).write_text(json.dumps({"time": 1.0, "pid": os.getpid()}))
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("it was killed"))
    monkeypatch.setattr(os, "killpg", lambda *_: pytest.fail("it was killed"))
    queue.cancel(open_job(folder))
    os.close(lock)


def test_a_job_is_found_by_the_end_of_its_id(root):
    first, second = put(root), put(root)
    assert find_job(root, first.name[-4:]).folder == first
    assert find_job(root, "").folder == max(first, second)
    with pytest.raises(UserError, match="there is no job 'zz'"):
        find_job(root, "zz")


def test_a_job_that_runs_is_not_removed(root):
    folder = put(root)
    lock = hold(folder)
    with pytest.raises(UserError, match="cancel it first"):
        queue.remove(open_job(folder))
    os.close(lock)
    queue.remove(open_job(folder))
    assert not Path(folder).exists()
