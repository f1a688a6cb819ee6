"""A survey of one of OthelloGPT's SAEs, made once a session."""

import pytest

from interp.data import FOLDER
from interp.latents.survey import SurveyConfig
from interp.runs.store import Store
from interp.runs.study import run_or_load

OTHELLO = SurveyConfig(
    model="othello-gpt",
    saes=str(FOLDER / "othello" / "saes" / "saes" / "topk-L2-S0"),
    corpus=str(FOLDER / "othello" / "games.safetensors"),
    tokens=59 * 340,
    length=59,
    top=6,
    k=5,
    neighbours=4,
    neurons=3,
)
"""20,060 tokens in 340 games, an SAE of 1,024 latents."""


@pytest.fixture(scope="session")
def surveyed(tmp_path_factory):
    return run_or_load(OTHELLO, Store(tmp_path_factory.mktemp("surveyed")))
