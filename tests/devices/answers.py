"""What is no study, on the pretended device; run by `studies.py`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from interp.cli import main as interp
from interp.kernels import project_topk
from interp.latents.survey import SurveyConfig
from interp.runs.store import Store
from interp.runs.study import run_or_load

from . import pretend


def answers(folder: Path, survey: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Lines of `name` and what it found; the command line prints two more, of the CPU and of the
    device.

    Args:
        survey: settings of a survey.
    """
    x, w = torch.ones(2, 4, device=pretend.DEVICE), torch.ones(9, 4, device=pretend.DEVICE)
    refusals = []
    for impl in ("triton", "tiled", "screened8"):
        try:
            project_topk(x, w, 3, impl=impl)
        except ValueError as refused:
            refusals.append(str(refused))
    yield {"name": "refused", "found": refusals}
    given, own = (project_topk(a, b, 3) for a, b in ((x, w), (x.cpu(), w.cpu())))
    yield {"name": "impl", "found": [given.impl, own.top.ids.equal(given.top.ids.cpu())]}
    run = run_or_load(SurveyConfig(**survey), Store(folder / "runs"))
    for device in ("cpu", pretend.DEVICE):
        asked = ["saes", "search", "--text", "w1 dog w5", "--survey", str(run.path), "--json"]
        interp([*asked, "--device", device])
