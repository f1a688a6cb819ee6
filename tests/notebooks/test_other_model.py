"""The notebooks name their model once, and run with another one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import plotly.graph_objects as go
import pytest
import torch

from interp.model.catalog import resolve

from ..conftest import make_model

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
MODEL = re.compile(r'^MODEL = "[\w.-]+"', re.MULTILINE)
WORDS = (
    *("dog", "Python", "Monday", "California", "music", "doctor", "water"),
    *("school", "money", "war", "church", "king", "blood", "cow"),
)
"""Words that the notebooks look for; a neuron of the other model's last layer stands for each."""
OTHER = {
    "01_neuron_atlas": slice(None),
    "02_acting": slice(None),
    "03_obsprop": slice(None),
    "07_linearscope": slice(-1, None),  # the rest is of picture networks
}
"""The code cells, beside the first, in which another language model can stand."""


def code_of(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_model_is_named_once_and_no_neuron_by_number(notebook: Path) -> None:
    first, *rest = code_of(notebook)
    assert len(MODEL.findall(first)) == 1
    name = MODEL.findall(first)[0].partition('"')[2].strip('"')
    assert "".join([first, *rest]).count(name) == 1
    assert not re.findall(r'"\d+\.(?:up|gate|down)\.\d+"', "".join(rest))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Qwen3, with SmolLM2's vocabulary and no chat template, in whose last layer a neuron
    reads and writes each word."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(resolve("smollm2-135m"))
    tokenizer.chat_template = None
    model = make_model(
        "qwen3",
        vocab_size=len(tokenizer),
        tie_word_embeddings=False,
        intermediate_size=400,
        max_position_embeddings=512,
    )
    with torch.no_grad():
        mlp = model.model.layers[-1].mlp
        for neuron, word in enumerate(WORDS):
            (token,) = tokenizer.encode(f" {word}", add_special_tokens=False)
            unit = torch.nn.functional.normalize(model.lm_head.weight[token], dim=0)
            mlp.up_proj.weight[neuron] = mlp.gate_proj.weight[neuron] = unit
            mlp.down_proj.weight[:, neuron] = unit
    folder = tmp_path_factory.mktemp("other") / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER)
def test_another_model_runs_through(
    name: str, other: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("INTERP_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(go.Figure, "show", lambda figure: None)
    first, *rest = code_of(next(path for path in NOTEBOOKS if path.stem == name))
    with_other = MODEL.sub(lambda _: f"MODEL = {str(other)!r}", first)
    scope: dict[str, object] = {}
    for cell in (with_other, *rest[OTHER[name]]):
        exec(cell, scope)
    assert list((tmp_path / "runs").rglob("manifest.json"))
