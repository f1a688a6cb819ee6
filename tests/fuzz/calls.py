"""What reads a file without a model: each takes the words after the command's name."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from ..manifests import seal_again


def resealed(arguments: list[str]) -> int:
    """A command over a stranger's runs: their manifests fit their key and seal, whatever they
    say."""
    from interp.cli import main

    for path in Path("runs").glob("*/*/manifest.json"):
        # some hold nothing that can be sealed
        with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
            seal_again(path.parent, json.loads(path.read_text()))
    return main(arguments)


def command_line(arguments: list[str]) -> int:
    """`interp` with the words of a file, one a line."""
    from interp.cli import main

    return main(Path(arguments[0]).read_text().split("\n"))


def home_page(arguments: list[str]) -> int:
    """The app's first page over such runs, which it shows whatever one of them is."""
    from streamlit.testing.v1 import AppTest

    resealed(["directions", "list"])
    shown = AppTest.from_function(_home, default_timeout=120).run()
    if shown.exception:
        raise RuntimeError(shown.exception[0].value)
    return 0


def _home() -> None:
    from interp.apps import home

    home.page()


def task(arguments: list[str]) -> int:
    from interp.obsprop.task_files import read_task

    print(read_task(arguments[0]))
    return 0


def pairs(arguments: list[str]) -> int:
    from interp.circuits.tasks import read_task

    print(read_task(arguments[0]))
    return 0


def concepts(arguments: list[str]) -> int:
    from interp.neurons.concepts import read_concepts

    print(read_concepts(Path(arguments[0])))
    return 0


def items(arguments: list[str]) -> int:
    from interp.knob.items import read_items

    print(len(read_items(arguments[1], Path(arguments[0]))))
    return 0


def corpus(arguments: list[str]) -> int:
    from interp.text.corpus import fingerprint, read_corpus

    print(sum(map(len, read_corpus(arguments[0]))), fingerprint(arguments[0]))
    return 0


def rows_of_ids(arguments: list[str]) -> int:
    from interp.text.corpus import id_rows

    print(sum(map(len, id_rows(arguments[0]))))
    return 0


def picture(arguments: list[str]) -> int:
    from interp.linearscope.pictures import middle_square, open_picture

    (path,) = Path().glob("picture.*")
    print(middle_square(open_picture(str(path)), 64).shape)
    return 0


def sketch(arguments: list[str]) -> int:
    from interp.linearscope.networks import open_network

    print(open_network("sketch", arguments[0]).kind)
    return 0


def weight_edit(arguments: list[str]) -> int:
    from interp.neurons.weight_edits import WeightEdit

    print(WeightEdit.load(Path(arguments[0])))
    return 0


def score(arguments: list[str]) -> int:
    """Directions and the scores of some activations."""
    import torch

    from interp.directions.sources import open_directions

    found = open_directions(arguments[0])
    print(found.read_as, found.scores(torch.ones(3, found.vectors.shape[1])).tolist())
    return 0
