"""What a run gives to a paper: figures as files, and what to cite."""

import json
import os

import plotly.graph_objects as go
import pytest

from interp import citing, plots
from interp.cli import main
from interp.errors import UserError
from interp.neurons.clamp import ClampConfig
from interp.papers import Paper
from interp.runs.store import Run, Store
from interp.runs.study import run_or_load

from ..manifests import finish_by_hand


@pytest.fixture(scope="module")
def store(dog_model, tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    held = {"neuron": "1.down.17", "prompt": ("w1 w2",), "tokens": 1, "chat": False}
    for value in (5.0, 9.0):
        run_or_load(ClampConfig(str(dog_model), **held, value=(value,)), Store(root))
    return root


def told(capsys, *arguments):
    code = main(list(map(str, arguments)))
    out, err = capsys.readouterr()
    return code, out, err


def test_a_run_is_found_by_folder_key_and_study(store):
    newest, other = Store(store).runs("neurons.clamp")
    assert Store(store).find("neurons.clamp").path == newest.path
    assert Store(store).find(str(other.path)).path == other.path
    assert Store(store).find(other.path.name[:8]).path == other.path
    with pytest.raises(UserError, match=r"there is no run 'zzz'.* has neurons.clamp "):
        Store(store).find("zzz")
    with pytest.raises(UserError, match="there is no run ''"):
        Store(store).find("")
    with pytest.raises(UserError, match=r"no run 'x': .* has none"):
        Store(store / "empty").find("x")


def test_keys_that_begin_alike_are_several(tmp_path):
    keys = [finish_by_hand(tmp_path, "a.b", version=version).name for version in range(17)]
    first = max(keys, key=lambda key: [k[0] for k in keys].count(key[0]))[0]
    said = f"{[k[0] for k in keys].count(first)} runs have keys that begin with '{first}'"
    with pytest.raises(UserError, match=rf"{said}.*has a\.b {first}"):
        Store(tmp_path).find(first)


@pytest.mark.browser
def test_a_figure_is_saved_in_every_format(store, tmp_path, capsys):
    if reason := plots.undrawable():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    where = ["neurons.clamp", "curve", "--runs", store]
    starts = {"svg": b"<svg", "pdf": b"%PDF", "png": b"\x89PNG"}
    for kind, start in starts.items():
        code, out, _ = told(capsys, "figure", *where, "--out", tmp_path / f"a.{kind}")
        assert (code, out) == (0, f"{tmp_path}/a.{kind}\n")
        assert (tmp_path / f"a.{kind}").read_bytes().startswith(start)
    assert "dog" in (tmp_path / "a.svg").read_text()


def test_figures_are_listed_and_mistakes_are_a_line(store, tmp_path, capsys):
    where = ["neurons.clamp", "--runs", store]
    assert told(capsys, "figure", *where)[:2] == (0, "curve\n")
    code, out, _ = told(capsys, "figure", *where, "--json")
    assert json.loads(out)["names"] == ["curve"]
    for more, says in (
        (["curves"], "no figure 'curves': it has curve"),
        (["curve", "--out", tmp_path / "a.gif"], "saved as svg, pdf, png, not as 'gif'"),
        (["curve", "--out", tmp_path / "a"], "not as ''"),
        (["curve", "--width", 5], "100 to 10,000 pixels wide"),
        (["curve", "--out", tmp_path / "no" / "a.svg"], "there is no folder"),
    ):
        code, _, err = told(capsys, "figure", *where, *more)
        taken, told_of, *rest = err.splitlines()
        assert (code, rest) == (2, []), err
        assert "taken: run " in taken
        assert told_of.startswith("interp: ")
        assert says in err


def test_what_cannot_draw_is_named_with_its_fix(tmp_path, monkeypatch):
    figure = go.Figure(go.Bar(y=[1]))
    with monkeypatch.context() as patch:
        patch.setattr(plots, "find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"pip install 'interp-workbench\[figures\]'"):
            plots.save_figure(figure, tmp_path / "a.svg")
    from choreographer.browsers import chromium

    monkeypatch.setenv("BROWSER_PATH", "/nowhere/chrome")
    monkeypatch.setattr(chromium, "get_chrome_download_path", lambda **_: None)
    monkeypatch.setattr(chromium, "get_old_chrome_download_path", lambda **_: None)
    with pytest.raises(UserError, match=r"in a Chrome or Chromium, and none is found: install"):
        plots.save_figure(figure, tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())


def test_a_citation_names_method_model_workbench_and_run(store, capsys):
    run = Store(store).find("neurons.clamp")
    code, out, _ = told(capsys, "cite", run.path)
    assert code == 0
    assert out == citing.citation(run)
    entries = [entry.partition(",")[0] for entry in out.split("\n\n")]
    model = entries[1].removeprefix("@misc{model-")
    assert model.endswith("-model")  # the folder's name
    assert [entries[0], *entries[2:]] == [
        "@misc{davies2025decoding", "@software{interp-workbench", f"@misc{{run-{run.path.name}",
    ]  # fmt: skip
    assert run.manifest["fingerprints"]["model"] in out
    assert run.manifest["packages"]["interp-workbench"] in out
    assert out.count("{") == out.count("}")


def test_papers_are_those_of_the_study():
    def keys(study):
        return [paper.key for paper in citing.papers(study)]

    assert keys("neurons.tars") == ["davies2025decoding", "davies2024tars"]
    assert keys("neurons.atlas") == ["davies2025decoding"]
    assert keys("knob.learn") == ["minder2025knob"]
    assert keys("bench.kernels") == []
    assert keys("nothing.at.all") == []


def test_what_tex_reads_as_its_own_is_escaped():
    entry = citing._entry("misc", "k", title="50% of a_b & {c}", note="", year=2026)
    brace = r"\textbraceleft{}c\textbraceright{}"
    assert (
        entry == f"@misc{{k,\n  title = {{{{50\\% of a\\_b \\& {brace}}}}},\n  year = {{2026}}\n}}"
    )
    paper = citing._paper(Paper("k", "Doe, J.", "T", 2020, booktitle="B"))
    assert paper.startswith("@inproceedings{k,\n  title = {{T}},\n  author = {Doe, J.}")


def test_a_run_of_an_unknown_study_and_version_is_cited(tmp_path):
    manifest = {"study": "own.thing", "key": "abc", "config": {}, "finished": "2025-01-01"}
    out = citing.citation(Run(tmp_path, manifest))
    assert "of a workbench whose version it does not record" in out
    assert "model-" not in out
