"""Every study that can be resumed, so small that it takes a second or two and has several pieces.

A study is made and run in a folder of its own: inputs lie beside `runs/` and `home/`, and every
path in a config is relative, so that keys and manifests do not depend on where the folder is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from interp.darkmatter import error_saes, ladder
from interp.darkmatter.error_saes import ErrorSaesConfig
from interp.darkmatter.ladder import LadderConfig
from interp.darkmatter.measure import DarkMatterConfig, PursuitConfig
from interp.darkmatter.synthetic import SyntheticConfig
from interp.knob.data import DataConfig
from interp.knob.finetune import FinetuneConfig
from interp.knob.learn import LearnConfig
from interp.knob.run import RunConfig
from interp.knob.search import SearchConfig
from interp.linearscope.train_sketch import SketchConfig
from interp.model.catalog import add, resolve
from interp.neurons.atlas import AtlasConfig
from interp.neurons.effects import EffectsConfig
from interp.neurons.tars import TarsConfig
from interp.obsprop.couple import CoupleConfig
from interp.obsprop.study import ObspropConfig
from interp.othello.probe import ProbeConfig
from interp.othello.sae import SaeConfig
from interp.othello.settings import TrainConfig
from interp.othello.train import build_model, train
from interp.runs import checkpoint
from interp.runs.store import Store
from interp.runs.study import run_or_load
from interp.saes import train as saes_train

from ..conftest import make_dog_model, make_model
from ..darkmatter.planted import OTHELLO
from ..knob.planted import ANSWERS, SUBJECTS, planted, save
from ..obsprop.planted import TASK, make_planted, write_task

Start = Callable[[bool], object]
"""Runs a study in the current folder; the argument: with --fresh."""


@dataclass(frozen=True)
class Resumable:
    """
    Args:
        make: writes what the study needs into an empty folder.
        start: runs it.
        again: whether it has --fresh.
        over: why a stop costs everything, where it does.
    """

    name: str
    make: Callable[[Path], None]
    start: Start
    again: bool = True
    over: str = ""


def in_store(config: Callable[..., Any], **settings: Any) -> Start:
    return lambda fresh: run_or_load(config(**settings), Store(Path("runs")), fresh=fresh)


def small() -> None:
    """A checkpoint at every chance, and little text beside what a study is asked to read."""
    checkpoint.SECONDS, checkpoint.SHARE = 0, 0
    error_saes.FIT_TOKENS, error_saes.CHECKED, error_saes.POOL = 59 * 8, 2, 400
    ladder.HELD_OUT, ladder.MEASURED, ladder.POOL = 4, 4, 400
    saes_train.OBSERVED = 2


def dog(folder: Path, layers: int = 2) -> None:
    make_model("llama", num_hidden_layers=layers).save_pretrained(folder / "model")
    make_dog_model(folder / "model")
    (folder / "text.txt").write_text("w1 w2 w3 w4 " * 20)
    (folder / "concepts.yaml").write_text(
        "dog:\n  describe: w1 w2 w3\n  prompts: [w4 w5]\n"
        "  neighbour: {word: w9, prompts: [w7 w8]}\n"
    )


def pronouns(folder: Path) -> None:
    make_planted(folder / "model")
    write_task(folder)
    (folder / "text.txt").write_text("w1 w2 w100 w3 w4 " * 80)
    other = {**TASK, "observable": {"w12": 1, "w13": -1}}
    (folder / "other.yaml").write_text(json.dumps(other))


def lands(folder: Path) -> None:
    save(planted(3, range(1, 2), 30), folder / "model")
    pairs = dict(zip(SUBJECTS, ANSWERS, strict=True))
    relation = {"query": "The capital of {} is", "facts": pairs}
    facts = {"relations": {"capital": relation, "town": relation}}
    (folder / "facts.json").write_text(json.dumps(facts))


def boards(folder: Path) -> None:
    build_model(TrainConfig(folder, n_layers=2, d_model=32, n_heads=2)).save_pretrained(
        folder / "model"
    )


def nothing(folder: Path) -> None:
    """What ships is enough."""


def gguf_file(folder: Path) -> None:
    from ..model.gguf_files import CASES, make_model, write_gguf

    write_gguf(folder / "tiny.gguf", "llama", make_model(CASES["llama"]))


def adapter(folder: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    dog(folder)
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    torch.manual_seed(0)
    given = LoraConfig(r=4, target_modules=["up_proj"], init_lora_weights=False)
    get_peft_model(model, given).save_pretrained(folder / "adapter")


def trained_othello(fresh: bool) -> None:
    train(
        TrainConfig(
            Path("made"), Path("checkpoints"), games=64 * 12, n_layers=1, d_model=32, n_heads=2,
            batch=64, eval_games=50, log_every=2, ckpt_seconds=0.0,
        )
    )  # fmt: skip


SAES = f"{OTHELLO['saes']}/saes"
PASS = {**OTHELLO, "saes": f"{SAES}/topk-L2-S0", "tokens": 59 * 20, "ridge": 1e-3}
READ = {name: PASS[name] for name in ("model", "site", "corpus", "length")}
LANDS: dict[str, Any] = {"model": "model", "facts": "facts.json", "draws": 7}
ASKED = {**LANDS, "template": "plain", "only_known": False}
FINETUNE = {"rows": 32, "batch": 8, "rank": 2, "lr": 0.1, "bfloat16": False, "checkpoint": 1}
SCORED = {"test": 4, "settings": ("tuned", "0-shot")}
LEARN = {
    "layers": (1,), "learn_items": 24, "knob_lr": 0.2, "validate": 6, "steer_items": 4,
    "separate_items": 4, "text_tokens": 128,
}  # fmt: skip
TARS = {"file": "concepts.yaml", "corpus": "text.txt", "edits": (0, 2), "tokens": 40}
EFFECTS = {"words": ("Dogs", "w5"), "prompts": ("w1 w2 w3", "w4"), "values": (-50.0, 50.0)}
OBSPROP = {"labelled": (2,), "draws": 1, "boots": 10, "paths": 2, "pairs": 1, "depth": 1}
COUPLE = {"observables": ("planted.yaml", "other.yaml"), "corpus": "text.txt", "tokens": 256}
PROBE = {"fit_games": 20, "score_games": 20, "passes": 2}
SETS = {"tokens": 10_000, "d_sae": 48, "k": 4, "seeds": (0, 1), "batch": 512}

STUDIES = {
    study.name: study
    for study in (
        Resumable(
            "neurons.atlas",
            partial(dog, layers=6),
            in_store(AtlasConfig, model="model", random=12, k=4),
        ),
        Resumable("neurons.tars", dog, in_store(TarsConfig, model="model", **TARS)),
        Resumable(
            "neurons.effects", dog, in_store(EffectsConfig, model="model", controls=4, **EFFECTS)
        ),
        Resumable(
            "obsprop.run",
            pronouns,
            in_store(
                ObspropConfig,
                model="model",
                observable="planted.yaml",
                texts=("w1 w100 w2",),
                **OBSPROP,
            ),
        ),
        Resumable(
            "obsprop.couple",
            pronouns,
            in_store(CoupleConfig, model="model", heads=2, **COUPLE),
            over="one table, computed in one go",
        ),
        Resumable(
            "darkmatter.run",
            nothing,
            in_store(DarkMatterConfig, **PASS, earlier=(f"1.resid_post={SAES}/topk-L1-S0",)),
        ),
        Resumable(
            "darkmatter.pursuit", nothing, in_store(PursuitConfig, **{**PASS, "downstream": 0})
        ),
        Resumable(
            "darkmatter.synthetic",
            nothing,
            in_store(SyntheticConfig, **PASS, absent=(0.3,), noise=(0.05,)),
        ),
        Resumable(
            "darkmatter.errors",
            nothing,
            in_store(
                ErrorSaesConfig,
                **READ,
                saes=PASS["saes"],
                tokens=128 * 10,
                ridge=1e-3,
                width=64,
                k=8,
                batch=128,
            ),
        ),
        Resumable(
            "darkmatter.ladder",
            nothing,
            in_store(
                LadderConfig,
                **READ,
                widths=(64,),
                k=(4, 8),
                tokens=128 * 16,
                batch=128,
                precision="float32",
            ),
        ),
        Resumable(
            "linearscope.sketch", nothing, in_store(SketchConfig, steps=12, batch=1, crop=16)
        ),
        Resumable("knob.data", lands, in_store(DataConfig, **LANDS)),
        Resumable("knob.search", lands, in_store(SearchConfig, **ASKED, adapter="none", pairs=4)),
        Resumable("knob.finetune", lands, in_store(FinetuneConfig, **ASKED, **FINETUNE, **SCORED)),
        Resumable("knob.learn", lands, in_store(LearnConfig, **ASKED, **LEARN, adapter="none")),
        Resumable(
            "knob.run", lands, in_store(RunConfig, **ASKED, **FINETUNE, **LEARN, **SCORED, pairs=2)
        ),
        Resumable("othello.probe", boards, in_store(ProbeConfig, model="model", **PROBE)),
        Resumable("othello.sae", boards, in_store(SaeConfig, model="model", **SETS)),
        Resumable("othello.train", nothing, trained_othello, again=False),
        Resumable("a GGUF file", gguf_file, lambda fresh: resolve("tiny.gguf"), again=False),
        Resumable(
            "an adapter", adapter, lambda fresh: add("merged", "model", "adapter"), again=False
        ),
    )
}
