"""Files that the workbench or a user writes: manifests, tables, directions, items, pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from PIL import Image
from safetensors.torch import save_file

from interp.data import FOLDER
from interp.directions import Directions
from interp.directions.reading import Product, Scale
from interp.lens.files import export
from interp.lens.lens import Lens
from interp.linearscope.sketch import SketchNet
from interp.model.neuron import parse_neuron
from interp.model.site import Site
from interp.model.weights import open_weights
from interp.neurons.weight_edits import WeightEdit

from ..conftest import make_model
from ..manifests import finish_by_hand
from .harness import Target

CALLS = "tests.fuzz.calls"


def _found(norm: Scale | None = None) -> Directions:
    index = pd.DataFrame({"name": ["a", "b"], "constant": [0.0, 1.5]})
    return Directions(Site.parse("1.resid_post"), torch.eye(2, 32), index, reading=Product(norm))


def _directions(folder: Path) -> None:
    """A run of two directions, and another that stays as it is."""
    for study in ("a.b", "a.c"):
        _found().save(folder / "finds")
        made = {f"finds/{p.name}": p.rename for p in (folder / "finds").iterdir()}
        finish_by_hand(folder / "runs", study, {"model": "m"}, made=made)


def _free_directions(folder: Path) -> None:
    """Without hashes, as earlier versions wrote them: damage reaches what reads the files."""
    _found(Scale(True, 1e-5)).save(folder / "finds")
    note = folder / "finds" / "directions.json"
    about = {
        name: value for name, value in json.loads(note.read_text()).items() if name != "sha256"
    }
    note.write_text(json.dumps(about))


def _model(folder: Path) -> Path:
    """A tiny model, in the folder `model`."""
    make_model("llama", num_hidden_layers=1).save_pretrained(folder / "model")
    return folder / "model"


def _vectors(save: Callable[[Path], object], name: str, folder: Path) -> None:
    _model(folder)
    save(folder / name)


def _import(name: str, save: Callable[[Path], object]) -> Target:
    """`interp directions import` of a file of one vector."""
    options = ("--site", "0.resid_post", "--source", "x", "--model", "model", "--runs", "made")
    return Target(
        f"import {name}",
        partial(_vectors, save, name),
        (name,),
        ("directions", "import", name, *options),
    )


def _write(name: str, text: str, folder: Path) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)


def _reads(call: str, name: str, make: Callable[[Path], None], *more: str, at: str = "") -> Target:
    """A call that reads a file, or a folder `at` that the file is in."""
    label = " ".join((call, name, *more))
    return Target(label, make, (name,), (at or name, *more), f"{CALLS}:{call}")


PAIRS = """about: Which pronoun the model expects
tried: 1
pairs:
  - ["I met Anna because", "I met James because", " she", " he"]
  - ["I met John because", "I met Mary because", " he", " she"]
"""
TASK = """about: Which pronoun the model expects
observable: {" she": 1, " he": -1}
pair:
  - So, Anna is a friend, isn't
  - So, John is a friend, isn't
templates:
  - So, [WORD] is a friend, isn't
  - Man, [WORD] is so funny, isn't
words:
  - [Anna, Mary]
  - [John, Tom]
"""
CONCEPTS = """dog:
  describe: The pet that barks is a
  prompts:
    - The animal that barks is the
  neighbour:
    word: cat
    prompts: [The animal that purrs is the]
"""
FACTS = {
    "relations": {
        "capital": {
            "query": "The capital of {} is",
            "facts": {"France": "Paris", "Italy": "Rome", "Spain": "Madrid"},
        }
    }
}
FAKEPEDIA = [
    {
        "query": "The capital of France is",
        "object": "Rome",
        "fact_paragraph": "",
        "fact_parent": {"rel_p_id": "P36", "subject": "France", "object": "Paris"},
    }
] * 2
TEXTS = ["a text of some words", "another, with ü and 漢", ""]


def _dataset(folder: Path) -> None:
    """As `datasets.Dataset.save_to_disk` writes one, with columns of several kinds."""
    out = folder / "texts"
    out.mkdir()
    (out / "dataset_info.json").write_text("{}")
    parts = [{"filename": "data-00000-of-00001.arrow"}]
    (out / "state.json").write_text(json.dumps({"_data_files": parts}))
    table = pa.table({"text": TEXTS * 20, "n": [[1, 2], None, [3]] * 20, "label": TEXTS * 20})
    with pa.ipc.new_stream(out / parts[0]["filename"], table.schema) as writer:
        writer.write_table(table, max_chunksize=20)


def _parquet(folder: Path) -> None:
    pd.DataFrame({"text": TEXTS * 20, "n": range(60)}).to_parquet(folder / "t.parquet")


def _ids(folder: Path) -> None:
    save_file({"ids": torch.arange(60).reshape(6, 10)}, folder / "ids.safetensors")


def _picture(suffix: str, mode: str, folder: Path) -> None:
    """A picture that is no even square, its colours in all of their range."""
    grey = np.arange(24 * 36, dtype=np.uint32).reshape(24, 36) * 37 % 256
    colours = np.stack([grey, grey.T.reshape(24, 36), 255 - grey], 2).astype(np.uint8)
    image = Image.fromarray(colours).convert(mode)
    image.save(folder / f"picture.{suffix}", **({"exif": _turned()} if suffix == "jpg" else {}))


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _pictures() -> list[Target]:
    kinds = (
        "png RGBA",
        "jpg RGB",
        "gif P",
        "webp RGB",
        "bmp RGB",
        "tiff RGB",
        "ppm RGB",
        "avif RGB",
    )
    targets = []
    for suffix, mode in map(str.split, kinds):
        make = partial(_picture, suffix, mode)
        targets.append(Target(f"picture {suffix}", make, ("picture.*",), (), f"{CALLS}:picture"))
    return targets


def _lens(name: str) -> Target:
    """A fitted lens that a direction is decoded through."""

    def make(folder: Path) -> None:
        weights = open_weights(str(_model(folder)))
        export(Lens(weights, "jacobian", {0: torch.eye(32)}, 2), folder / name)

    words = ("directions", "decode", "0.down.1", "--model", "model", "--lens", name)
    return Target(name, make, (name,), words)


def _sketch(folder: Path) -> None:
    save_file(SketchNet().state_dict(), folder / "net.safetensors")


def _edit(folder: Path) -> None:
    neurons = (parse_neuron("0.down.1"), parse_neuron("0.down.2"))
    WeightEdit(neurons, torch.ones(2, 8), torch.zeros(2, 8), {"from": "x"}).save(
        folder / "edit.safetensors"
    )


def _added(folder: Path) -> None:
    models = {"mine": str(_model(folder)), "yours": "org/name"}
    _write("home/models.json", json.dumps(models), folder)


COMMANDS = (
    "directions list --runs runs --json",
    "directions compare finds finds --limit 3",
    "directions compare 0.down.1,0.down.2 0.up.1 --model model",
    "directions decode finds --model model --lens final --limit 2 --json",
    "directions import v.npy --site 0.resid_post --source me --model model --name n",
    "neurons atlas --model model --weights down --runs made --json",
    "models info model --json",
    "models add mine model",
    "obsprop tasks --schema --json",
    "cite a.b --runs runs",
)


def _command(number: int, folder: Path) -> None:
    _directions(folder)
    _free_directions(folder)
    _model(folder)
    np.save(folder / "v.npy", np.ones(32, np.float32))
    (folder / "words.argv").write_text("\n".join(COMMANDS[number].split()))


def _commands() -> list[Target]:
    return [
        Target(
            f"command line {number}",
            partial(_command, number),
            ("words.argv",),
            ("words.argv",),
            f"{CALLS}:command_line",
        )
        for number in range(len(COMMANDS))
    ]


MANIFESTS = ("runs/a.b/*/manifest.json",)
VECTOR = torch.linspace(-1, 1, 32)
TARGETS = [
    Target("manifest", _directions, MANIFESTS, ("directions", "list")),
    Target(
        "manifest resealed", _directions, MANIFESTS, ("directions", "list"), f"{CALLS}:resealed"
    ),
    Target("home page", _directions, MANIFESTS, (), f"{CALLS}:home_page"),
    _reads("score", "finds/*", _free_directions, at="finds"),
    _import("v.npy", lambda path: np.save(path, VECTOR.numpy())),
    _import("v.pt", lambda path: torch.save({"v": VECTOR}, path)),
    _import("v.safetensors", lambda path: save_file({"v": VECTOR}, path)),
    _reads("task", "task.yaml", partial(_write, "task.yaml", TASK)),
    _reads("pairs", "pairs.yaml", partial(_write, "pairs.yaml", PAIRS)),
    _reads("concepts", "concepts.yaml", partial(_write, "concepts.yaml", CONCEPTS)),
    _reads("items", "facts.json", partial(_write, "facts.json", json.dumps(FACTS)), "facts"),
    _reads("items", "fake.json", partial(_write, "fake.json", json.dumps(FAKEPEDIA)), "facts"),
    _reads(
        "items",
        "shipped.json",
        partial(_write, "shipped.json", (FOLDER / "knob" / "facts.json").read_text()),
        "two-hop",
    ),
    _reads("corpus", "t.txt", partial(_write, "t.txt", "\n".join(TEXTS))),
    _reads(
        "corpus",
        "t.jsonl",
        partial(_write, "t.jsonl", "\n".join(json.dumps({"text": text}) for text in TEXTS)),
    ),
    _reads("corpus", "t.parquet", _parquet),
    _reads("corpus", "texts/*", _dataset, at="texts"),
    _reads("rows_of_ids", "ids.safetensors", _ids),
    *_pictures(),
    _lens("lens.pt"),
    _lens("lens.safetensors"),
    _reads("sketch", "net.safetensors", _sketch),
    _reads("weight_edit", "edit.safetensors", _edit),
    Target("models.json", _added, ("home/models.json",), ("models", "list")),
    *_commands(),
]
