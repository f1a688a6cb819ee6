"""A tiny OthelloGPT with random weights, its autoencoders, its comparison and its board edit."""

from __future__ import annotations

from pathlib import Path

import pytest

from interp.othello.compare import CompareConfig
from interp.othello.edit import EditConfig
from interp.othello.sae import SaeConfig
from interp.othello.settings import TrainConfig
from interp.runs.study import run_or_load

COMPARE = {"choose_games": 50, "score_games": 50, "passes": 3}
EDIT = {"positions": 20, "scale": (0.0, 4.0)}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model of 2 layers, d 32."""
    from interp.othello.train import build_model

    folder = tmp_path_factory.mktemp("othello") / "tiny"
    config = TrainConfig(out=folder, n_layers=2, d_model=32, n_heads=2)
    build_model(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def saes(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of two sets of small autoencoders on it."""
    out = tmp_path_factory.mktemp("saes") / "run"
    config = SaeConfig(str(tiny), tokens=20_000, d_sae=48, k=4, seeds=(0, 1), batch=512)
    return run_or_load(config, out=out).path


@pytest.fixture(scope="session")
def store(tiny: Path, saes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one comparison and one board edit."""
    root = tmp_path_factory.mktemp("store")
    config = CompareConfig(str(tiny), str(saes), **COMPARE)
    made = run_or_load(config, out=root / "othello.compare" / "tiny")
    run_or_load(EditConfig(str(made.path), **EDIT), out=root / "othello.edit" / "tiny")
    return root
