"""`interp jobs`: one JSON object, one line a mistake."""

import json
import time

import pytest

from interp.runs import queue
from interp.runs.jobs import LOG, find_job, new_folder

from .test_cli import run


@pytest.fixture
def root(own_home, monkeypatch):
    """A store where nothing is really started."""

    def started(root, words, title=""):
        return find_job(root, new_folder(root, words, title).name)

    monkeypatch.setattr(queue, "start", started)
    return own_home / "runs"


def test_a_job_is_added_listed_read_started_again_and_removed(root, capsys):
    words = ["neurons", "atlas", "--model", "smollm2-135m", "--k", "3"]
    code, out, err = run("jobs", "add", "--json", "--title", "mine", "--", *words, capsys=capsys)
    added = json.loads(out)
    assert (code, err, added["words"], added["title"]) == (0, "", words, "mine")
    (root / ".jobs" / added["id"] / LOG).write_text("one\ntwo\x1b[2J\n")
    code, out, _ = run("jobs", "list", "--json", capsys=capsys)
    listed = json.loads(out)
    assert [job["id"] for job in listed["results"]] == [added["id"]]
    assert listed["metrics"] == {"jobs": 1, "waiting": 0, "running": 0, "stopped": 1}
    code, out, _ = run("jobs", "list", capsys=capsys)
    assert "mine" in out
    code, out, _ = run("jobs", "log", added["id"][-4:], capsys=capsys)
    assert out == "one\ntwo\\x1b[2J\n"
    time.sleep(0.01)
    code, out, _ = run("jobs", "again", added["id"], "--json", capsys=capsys)
    again = json.loads(out)
    assert again["id"] != added["id"]
    code, out, _ = run("jobs", "remove", "--json", capsys=capsys)
    assert json.loads(out)["id"] == again["id"]
    assert run("jobs", "log", capsys=capsys)[0] == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["add", "--", "app"], "is no study"),
        (["add", "--", "neurons", "search", "dog"], "is no study"),
        (["add", "--", "neurons", "atlas", "--k", "many"], "--k"),
        (["add", "--", "neurons", "atlas", "--out", "x"], "leave --out out"),
        (["cancel", "x"], "there is no job 'x'"),
        (["run", "x"], "there is no job 'x'"),
    ],
)
def test_a_mistake_is_one_line(root, capsys, words, says):
    code, out, err = run("jobs", *words, capsys=capsys)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1, err


def test_an_app_with_no_number_of_jobs_is_one_line(own_home, monkeypatch, capsys):
    monkeypatch.setenv("INTERP_JOBS", "none")
    code, _, err = run("app", "--port", "8766", capsys=capsys)
    assert code == 2
    assert "$INTERP_JOBS is a number" in err
