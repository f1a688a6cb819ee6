"""Small settings of every study that takes a device, for going through them with a split model and
on a pretended GPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from interp.analyses import analyses
from interp.darkmatter import error_saes
from interp.directions import Directions
from interp.knob.prompts import Prompter, rows_of
from interp.model.prompting import Prompting
from interp.model.weights import open_weights
from interp.saes import feed

from ..circuits.two_neurons import TASK as TWO
from ..darkmatter.planted import OTHELLO
from ..knob.planted import ANSWERS, SUBJECTS, items, planted, save, tokenizer
from ..latents.planted import write_sae
from ..obsprop.planted import CHEAP, make_planted, write_task

PROMPT, PAIR = "w3 dog w5", {"prompt": "w3 dog w5", "counterfactual": "w3 w9 w6"}
WORDS = {"target": "dog", "against": "w7"}
FILES, GRADIENTS, FROZEN = "an edit of it would be lost", "gradients keep", "a frozen network keeps"
REFUSED = {
    "neurons.tars": FILES,
    "lens.fit": GRADIENTS,
    "circuits.trace": FROZEN,
    "circuits.truth": FROZEN,
    "circuits.steer": FROZEN,
    "circuits.head": FROZEN,
    "linearscope.tokens": FROZEN,
    "knob.finetune": "trained is not split",
    "knob.run": "trained is not split",
    "knob.learn": GRADIENTS,
}
"""What a split model's studies are refused for where a part of it is left in its files."""
LONG = (
    *("obsprop.run", "obsprop.couple", "knob.search", "saes.train", "saes.effects", "saes.measure"),
    *("neurons.effects", "darkmatter.run", "darkmatter.pursuit", "darkmatter.synthetic"),
    *("darkmatter.errors", "darkmatter.ladder", "othello.sae", "othello.probe", "othello.compare"),
)
"""What takes seconds, twice."""
SMALL: dict[Any, dict[str, int]] = {
    feed: {"HELD_OUT": 4, "MEASURED": 4, "POOL": 400},
    error_saes: {"FIT_TOKENS": 59 * 8, "CHECKED": 2, "POOL": 400},
}
"""Sizes that are no settings."""
PICTURES = tuple(f"linearscope.{name}" for name in ("explain", "bias", "svd", "impulse", "sketch"))
"""Their networks are no models of text."""


def kinds() -> dict[str, Any]:
    """The configs of all studies by their names."""
    return {kind.STUDY: kind for each in analyses().values() for kind in each.configs()}


def made_small() -> None:
    """Less of what the settings do not say."""
    for module, sizes in SMALL.items():
        for name, value in sizes.items():
            setattr(module, name, value)


def settings(folder: Path, dog_model: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """By study, what makes its settings; files go to `folder`."""
    model = {"model": str(dog_model)}
    draws = torch.randint(1, 211, (900,), generator=torch.Generator().manual_seed(0)).tolist()
    corpus = folder / "text.txt"
    corpus.write_text(" ".join(f"w{i}" for i in draws))
    documents = folder / "documents.jsonl"
    texts = (" ".join(f"w{i}" for i in draws[n : n + 30]) for n in range(0, 900, 30))
    documents.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    text = {**model, "corpus": str(documents), "length": 12, "skip": 2}
    sae = str(write_sae(folder / "sae", dog_model))
    task = folder / "two.yaml"
    task.write_text(TWO)
    pairs = {**model, "least_gap": 1e-6}
    small = {**OTHELLO, "tokens": 59 * 20, "downstream": 0, "ridge": 1e-3}
    small["saes"] = f"{OTHELLO['saes']}/saes/topk-L2-S0"
    fed = {name: small[name] for name in ("model", "site", "corpus", "length")}
    games = {"model": "othello-gpt"}
    return {
        "prompt.look": lambda: {**model, "prompt": PROMPT, "k": 4},
        "neurons.atlas": lambda: {**model, "k": 4},
        "neurons.clamp": lambda: {
            **model, "neuron": "1.down.17", "prompt": ("w1 w2",), "chat": False, "tokens": 3
        },
        "neurons.effects": lambda: {
            **model, "words": ("Dogs",), "prompts": ("w1 w2", "w4"), "values": (50.0,),
            "controls": 2,
        },
        "neurons.tars": lambda: {**model, **_concepts(folder, corpus)},
        "directions.tokens": lambda: {**model, "layer": 0, "tokens": ("dog",), "lens": "final"},
        "obsprop.run": lambda: _observed(folder) | CHEAP,
        "obsprop.couple": lambda: _coupled(folder, corpus),
        "lens.fit": lambda: {**text, "prompts": 3, "batch_size": 2},
        "lens.tune": lambda: {**text, "prompts": 8, "held_out": 2, "positions": 4},
        "lens.show": lambda: {**model, "prompt": PROMPT, "k": 3},
        "lens.compare": lambda: {**text, "lenses": ("final",), "documents": 2, "after": 3},
        "circuits.trace": lambda: {**model, "prompt": PROMPT, "nodes": 5},
        "circuits.truth": lambda: {**pairs, "task": (str(task),), "counts": (1, 2), "random": 1},
        "circuits.steer": lambda: {**pairs, "task": str(task), "pairs": 1, "neurons": 1},
        "circuits.head": lambda: {**model, "prompt": PROMPT, "head": "1.2", "target": "dog"},
        "circuits.roles": lambda: {**model, "length": 5, "sequences": 2},
        "circuits.patch": lambda: {**model, **PAIR, **WORDS, "batch_size": 2},
        "saes.survey": lambda: {**text, "saes": sae, "tokens": 12 * 20, "top": 3},
        "saes.effects": lambda: {
            **model, "saes": sae, "latents": (7,), "k": 1, "prompts": ("w1 w2",), "values": (2.0,)
        },
        "saes.measure": lambda: {
            **text, "saes": sae, "tokens": 12 * 20, "spliced": 3, "longest": 0.0, "texts": 4,
            "words": 0, "classes": _classes(folder),
        },
        "saes.train": lambda: {
            **fed, "widths": (64,), "l0": (4,), "tokens": 1280, "batch": 128, "precision": "float32"
        },
        "saes.activations": lambda: {
            **{k: fed[k] for k in ("model", "corpus", "length")}, "sites": ("1.resid_post",),
            "tokens": 600, "precision": "float32",
        },
        "darkmatter.run": lambda: small,
        "darkmatter.pursuit": lambda: small,
        "darkmatter.synthetic": lambda: {**small, "absent": (0.3,), "noise": (0.05,)},
        "darkmatter.errors": lambda: {
            **fed, "saes": small["saes"], "tokens": 1280, "ridge": 1e-3, "width": 64, "k": 8,
            "batch": 128,
        },
        "darkmatter.ladder": lambda: {
            **fed, "widths": (64,), "k": (4,), "tokens": 1280, "batch": 128, "precision": "float32"
        },
        "linearscope.tokens": lambda: {**model, "prompt": PROMPT, "words": ("dog",)},
        "othello.sae": lambda: {
            **games, "seeds": (0,), "tokens": 2048, "d_sae": 32, "k": 4, "batch": 512
        },
        "othello.probe": lambda: {**games, "fit_games": 20, "score_games": 20, "passes": 1},
        "othello.compare": lambda: {**games, "choose_games": 20, "score_games": 20, "passes": 1},
        **_knobs(folder),
        **_pictures(folder),
    }  # fmt: skip


def _concepts(folder: Path, corpus: Path) -> dict[str, Any]:
    entry = {"describe": "w1 w2 w3", "prompts": ["w4 w5", "w6"]}
    entry["neighbour"] = {"word": "w9", "prompts": ["w7 w8"]}
    path = folder / "concepts.yaml"
    path.write_text(yaml.safe_dump({"dog": entry}))
    return {"file": str(path), "edits": (0, 1), "tokens": 120, "corpus": str(corpus)}


def _observed(folder: Path) -> dict[str, Any]:
    model = folder / "observed"
    if not model.exists():
        make_planted(model)
    return {"model": str(model), "observable": str(write_task(folder))}


def _coupled(folder: Path, corpus: Path) -> dict[str, Any]:
    given, other = _observed(folder), folder / "other.yaml"
    task = yaml.safe_load(Path(given["observable"]).read_text())
    other.write_text(yaml.safe_dump({**task, "observable": {"w10": 2, "w12": -1}}))
    about = {"heads": 2, "tokens": 512, "corpus": str(corpus)}
    return {"model": given["model"], "observables": (given["observable"], str(other)), **about}


def _classes(folder: Path) -> str:
    rows = (
        {"text": f"w{i} w1 w2 {word} w3", "label": word} for word in ("w5", "w6") for i in range(9)
    )
    path = folder / "classes.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def _knobs(folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """The knob's studies on its planted model, without an adapter."""
    model, path, knob = folder / "switch", folder / "facts.json", folder / "knob"
    item = items()[0]

    def data() -> dict[str, Any]:
        if not model.exists():
            prompter = Prompter(Prompting(tokenizer()), template="plain")
            save(planted(3, range(1, 2), len(prompter.ids(rows_of(items())[0]))), model)
        relation = {
            "query": "The capital of {} is",
            "facts": dict(zip(SUBJECTS, ANSWERS, strict=True)),
        }
        path.write_text(
            json.dumps({"relations": dict.fromkeys(("capital", "town", "seat"), relation)})
        )
        return {"model": str(model), "facts": str(path), "draws": 7}

    def asked() -> dict[str, Any]:
        return {**data(), "template": "plain", "only_known": False}

    def steered() -> dict[str, Any]:
        own = {"model": data()["model"], "adapter": "none", "template": "plain", "value": (1.0,)}
        width = open_weights(own["model"]).spec.d_model
        made = Directions.of(torch.eye(width)[3], "1.resid_post", own["model"], "learned", "me")
        made.index[["context_c", "prior_c"]] = 1.0, -1.0
        made.save(knob)
        words = {"told": item.context_answer, "prior": item.prior_answer}
        return {**own, **words, "context": item.context, "query": item.query, "knob": str(knob)}

    none = {"adapter": "none"}
    trained = {"rows": 32, "rank": 2, "bfloat16": False, "test": 4, "settings": ("tuned", "0-shot")}
    learned = {
        "layers": (1,), "learn_items": 40, "knob_lr": 0.2, "validate": 6,
        "steer_items": 6, "separate_items": 4, "text_tokens": 128,
    }  # fmt: skip
    return {
        "knob.data": data,
        "knob.finetune": lambda: {**asked(), **trained},
        "knob.search": lambda: {**asked(), **none, "pairs": 4},
        "knob.learn": lambda: {**asked(), **none, **learned},
        "knob.steer": steered,
        "knob.run": lambda: {**asked(), **learned, **trained, "pairs": 4},
    }


NETWORKS = """
from torch import nn

class Scores(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

class Picture(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
"""


def _pictures(folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """LinearScope's studies of networks of one's own, which are looked up in `folder`."""
    (folder / "small_networks.py").write_text(NETWORKS)
    scores = {"model": "small_networks:Scores", "size": 16}
    picture = {"model": "small_networks:Picture", "size": 16}
    return {
        "linearscope.explain": lambda: scores,
        "linearscope.bias": lambda: {**scores, "images": ("moon", "chelsea")},
        "linearscope.svd": lambda: {**picture, "k": 2},
        "linearscope.impulse": lambda: {**picture, "at": ("8,9",)},
        "linearscope.sketch": lambda: {"steps": 3, "crop": 16, "batch": 2},
    }
