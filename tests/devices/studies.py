"""Run by `test_studies`, in a process of its own: small runs on the CPU and on a pretended device.

    python -m tests.devices.studies MODEL FOLDER STUDY …

Prints one JSON object for the rules, those of `answers`, and one a study: `fault` (why it did not
run there, or empty), `differs` (what of it are other numbers), `moved` (what crossed between device
and CPU: kind, line of ours, times) `passes` (batches that the model read on the device) and
`seconds` of the processor.
"""

import json
import os
import sys
from pathlib import Path

from . import pretend


def main() -> None:
    pretend.install()
    from interp.cli.common import say

    from ..runs.small_studies import made_small, settings
    from .answers import answers
    from .compared import compared
    from .rules import broken

    model, folder, *names = sys.argv[1:]
    made_small()
    os.chdir(folder)  # where a network of one's own is looked up
    sys.path.insert(0, folder)
    asked = settings(Path(folder), Path(model))
    say(json.dumps({"study": "rules", "fault": "; ".join(broken())}))
    for answer in answers(Path(folder), asked["saes.survey"]()):
        say(json.dumps(answer))
    for name in names:
        say(json.dumps(compared(name, asked[name]())))


if __name__ == "__main__":
    main()
