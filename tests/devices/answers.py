"""Run by `test_commands`, in a process of its own: what is no study on the pretended device.

    python -m tests.devices.answers MODEL FOLDER

Prints one JSON object a line, with `name` and what it found.
"""

import json
import sys
from pathlib import Path

from . import pretend


def main() -> None:
    pretend.install()
    import torch

    from interp.cli import main as interp
    from interp.cli.common import say
    from interp.kernels import project_topk
    from interp.latents.survey import SurveyConfig
    from interp.runs.store import Store
    from interp.runs.study import run_or_load

    from ..runs.small_studies import settings

    model, folder = map(Path, sys.argv[1:])
    x, w = torch.ones(2, 4, device=pretend.DEVICE), torch.ones(9, 4, device=pretend.DEVICE)
    refusals = []
    for impl in ("triton", "tiled", "screened8"):
        try:
            project_topk(x, w, 3, impl=impl)
        except ValueError as refused:
            refusals.append(str(refused))
    say(json.dumps({"name": "refused", "found": refusals}))
    given, own = (project_topk(a, b, 3) for a, b in ((x, w), (x.cpu(), w.cpu())))
    say(json.dumps({"name": "impl", "found": [given.impl, own.top.ids.equal(given.top.ids.cpu())]}))
    survey = SurveyConfig(**settings(folder, model)["saes.survey"]())
    run = run_or_load(survey, Store(folder / "runs"))
    for device in ("cpu", pretend.DEVICE):
        asked = ["saes", "search", "--text", "w1 dog w5", "--survey", str(run.path), "--json"]
        interp([*asked, "--device", device])


if __name__ == "__main__":
    main()
