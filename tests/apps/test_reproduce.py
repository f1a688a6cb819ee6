"""What the pages give to reproduce them: the command parses, the notebook call runs."""

import shlex

import pytest
import yaml
from streamlit.testing.v1 import AppTest

from interp.bench.kernels import KernelBenchConfig
from interp.cli import parse
from interp.neurons.atlas import AtlasConfig
from interp.neurons.clamp import ClampConfig
from interp.neurons.tars import TarsConfig
from interp.runs.store import Store
from interp.runs.study import run_or_load

from ..figures import figure_names
from .views import in_each


@pytest.fixture(scope="module")
def store(dog_model, tmp_path_factory):
    """A small run of every study that the pages show, with settings that are not the defaults."""
    root, model = tmp_path_factory.mktemp("store"), str(dog_model)
    entry = {"describe": "w1 w2 w3", "prompts": ["w4 w5"]}
    entry["neighbour"] = {"word": "w9", "prompts": ["w7 w8"]}
    (root / "concepts.yaml").write_text(yaml.safe_dump({"dog": entry}))
    (root / "text.txt").write_text("w1 w2 w3 w4 " * 20)
    held = {"neuron": "1.down.17", "prompt": ("w1 w2",), "value": (-5.0, 50.0), "tokens": 2}
    files = {"file": str(root / "concepts.yaml"), "corpus": str(root / "text.txt")}
    sizes = {"d": 16, "vocabulary": 300, "rows": 20, "repeats": 1, "accuracy_rows": 0}
    for study in (
        AtlasConfig(model, k=8),
        AtlasConfig(model, k=9),  # to compare with
        ClampConfig(model, **held, chat=False),
        TarsConfig(model, **files, edits=(0, 2), tokens=40),
        KernelBenchConfig(**sizes, others=()),
    ):
        run_or_load(study, Store(root))
    return root


def card_of_a_neuron(shown, dog_model):
    shown.session_state["?neuron"] = "1.down.17"


def directions_of(shown, dog_model):
    shown.session_state["of model"] = str(dog_model)
    for key in ("neurons ", "neurons other"):
        shown.session_state[key] = "1.down.17,1.down.3"


VIEWS = {
    "atlas": ("Neurons", "Layers"),
    "directions": ("Through the LM head", "Against another set"),
}
"""Tabs of pages that have some."""
PAGES = {
    "atlas": ("atlas", card_of_a_neuron, 4),
    "agree": ("agree", lambda *_: None, 1),
    "clamp": ("clamp", lambda *_: None, 1),
    "tars": ("tars", lambda *_: None, 1),
    "bench": ("bench", lambda *_: None, 1),
    "directions": ("directions", directions_of, 2),
}


def test_every_run_s_figures_are_drawn(store):
    names = {run.study: figure_names(run) for run in Store(store).runs()}
    assert names == {
        "neurons.atlas": {"density", "shares"},
        "neurons.clamp": {"curve"},
        "neurons.tars": {"removal-dog"},
        "bench.kernels": {"ratios", "roofline"},
    }


@pytest.mark.parametrize("page", PAGES)
def test_a_page_s_command_parses_and_its_call_runs(page, store, dog_model, monkeypatch):
    monkeypatch.setenv("INTERP_RUNS", str(store))
    name, prepare, boxes = PAGES[page]
    shown = AppTest.from_string(f"from interp.apps.{name} import page\npage()", default_timeout=120)
    prepare(shown, dog_model)
    shown.run()
    runs = len(list(store.rglob("manifest.json")))
    code = {"bash": [], "python": []}
    for view in in_each(shown, *VIEWS.get(page, ())):
        assert not view.exception
        assert not view.error
        for block in view.code:
            code[block.language].append(block.value)
    assert len(code["bash"]) == boxes
    of_stored = [call for call in code["python"] if call.startswith("import interp\nrun = ")]
    assert len(code["python"]) - len(of_stored) == boxes
    assert len(of_stored) == boxes * (page in ("clamp", "tars", "bench")), "a page of one run"
    for command in code["bash"]:
        parse(shlex.split(command)[1:])
    for call in code["python"]:
        exec(call, {})
    assert len(list(store.rglob("manifest.json"))) == runs, "the call is of another run"
