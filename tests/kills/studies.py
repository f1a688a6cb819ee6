"""Every study that can be resumed, so small that it takes a second or two and has several pieces.

A study is made and run in a folder of its own: inputs lie beside `runs/` and `home/`, and every
path in a config is relative, so that keys and manifests do not depend on where the folder is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from interp.analyses import load
from interp.data import FOLDER
from interp.runs import checkpoint
from interp.runs.store import Store
from interp.runs.study import run_or_load

from .inputs import (
    adapter,
    boards,
    converted,
    dog,
    dog_with_sae,
    gaps,
    gguf_file,
    lands,
    merged,
    nothing,
    pronouns,
    trained_othello,
)

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
        trials: in `make test-all`; each is about two kills.
        constants: other values of numbers in modules, by import string.
    """

    name: str
    make: Callable[[Path], None]
    start: Start
    again: bool = True
    over: str = ""
    trials: int = 6
    constants: dict[str, int] = field(default_factory=dict)


def in_store(config: str, **settings: Any) -> Start:
    """Of a study by its config's import string."""
    return lambda fresh: run_or_load(load(config)(**settings), Store(Path("runs")), fresh=fresh)


def small(constants: dict[str, int]) -> None:
    """A checkpoint at every chance, and little text beside what a study is asked to read."""
    checkpoint.SECONDS, checkpoint.SHARE = 0, 0
    for where, value in constants.items():
        module, _, name = where.partition(":")
        assert hasattr(import_module(module), name), where
        setattr(import_module(module), name, value)


SAES = str(FOLDER / "othello" / "saes" / "saes")
PASS: dict[str, Any] = {
    "model": "othello-gpt",
    "saes": f"{SAES}/topk-L2-S0",
    "site": "2.resid_post",
    "corpus": str(FOLDER / "othello" / "games.safetensors"),
    "length": 59,
    "tokens": 59 * 20,
    "downstream": 3,
    "ridge": 1e-3,
}
ERRORS = {"FIT_TOKENS": 59 * 8, "CHECKED": 2, "POOL": 400}
FED = {f"interp.saes.feed:{n}": v for n, v in (("HELD_OUT", 4), ("MEASURED", 4), ("POOL", 400))}
FEW = {"interp.saes.train:OBSERVED": 2}
ONE = {name: PASS[name] for name in ("model", "saes", "site", "corpus", "length")}
UNREAD = {"texts": 0, "words": 0, "spliced": 4}
SET: dict[str, Any] = {
    **{name: PASS[name] for name in ("model", "corpus", "length")},
    "tokens": 128 * 16,
    "precision": "float32",
}
ACTED = {"sample": 6, "k": 2, "prompts": ("w1 w2 w3", "w4 w5"), "controls": 3}
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
GAPS: dict[str, Any] = {
    "model": "planted", "task": ("planted.yaml",), "counts": (1, 8), "top": 2, "random": 3,
    "least_gap": 0.5,
}  # fmt: skip
PASSAGES: dict[str, Any] = {
    **{name: PASS[name] for name in ("model", "corpus", "length")}, "prompts": 6, "skip": 4,
}  # fmt: skip
SETS = {"tokens": 10_000, "d_sae": 48, "k": 4, "seeds": (0, 1), "batch": 512}

STUDIES = {
    study.name: study
    for study in (
        Resumable(
            "neurons.atlas",
            partial(dog, layers=6),
            in_store("interp.neurons.atlas:AtlasConfig", model="model", random=12, k=4),
        ),
        Resumable(
            "neurons.tars", dog, in_store("interp.neurons.tars:TarsConfig", model="model", **TARS)
        ),
        Resumable(
            "neurons.effects",
            dog,
            in_store("interp.neurons.effects:EffectsConfig", model="model", controls=4, **EFFECTS),
        ),
        Resumable(
            "obsprop.run",
            pronouns,
            in_store(
                "interp.obsprop.study:ObspropConfig",
                model="model",
                observable="planted.yaml",
                texts=("w1 w100 w2",),
                **OBSPROP,
            ),
        ),
        Resumable(
            "obsprop.couple",
            pronouns,
            in_store("interp.obsprop.couple:CoupleConfig", model="model", heads=2, **COUPLE),
            over="one table, computed in one go",
        ),
        Resumable(
            "darkmatter.run",
            nothing,
            in_store(
                "interp.darkmatter.measure:DarkMatterConfig",
                **PASS,
                earlier=(f"1.resid_post={SAES}/topk-L1-S0",),
            ),
        ),
        Resumable(
            "darkmatter.pursuit",
            nothing,
            in_store("interp.darkmatter.measure:PursuitConfig", **{**PASS, "downstream": 0}),
            trials=3,
        ),
        Resumable(
            "darkmatter.synthetic",
            nothing,
            in_store(
                "interp.darkmatter.synthetic:SyntheticConfig", **PASS, absent=(0.3,), noise=(0.05,)
            ),
            trials=3,
        ),
        Resumable(
            "darkmatter.errors",
            nothing,
            in_store(
                "interp.darkmatter.error_saes:ErrorSaesConfig",
                **READ,
                saes=PASS["saes"],
                tokens=128 * 10,
                ridge=1e-3,
                width=64,
                k=8,
                batch=128,
            ),
            trials=3,
            constants=FEW | {f"interp.darkmatter.error_saes:{n}": v for n, v in ERRORS.items()},
        ),
        Resumable(
            "darkmatter.ladder",
            nothing,
            in_store(
                "interp.darkmatter.ladder:LadderConfig",
                **READ,
                widths=(64,),
                k=(4, 8),
                tokens=128 * 16,
                batch=128,
                precision="float32",
            ),
            constants=FEW | FED,
        ),
        Resumable("lens.fit", nothing, in_store("interp.lens.fit:FitConfig", **PASSAGES)),
        Resumable(
            "lens.tune", nothing, in_store("interp.lens.tune:TuneConfig", **PASSAGES, held_out=2)
        ),
        Resumable("circuits.truth", gaps, in_store("interp.circuits.truth:TruthConfig", **GAPS)),
        Resumable(
            "saes.survey",
            nothing,
            in_store("interp.latents.survey:SurveyConfig", **ONE, tokens=59 * 30, top=4, k=3),
            constants={"interp.latents.finish:CHUNK": 300, "interp.latents.survey_part:TOKENS": 1},
        ),
        Resumable(
            "saes.measure",
            nothing,
            in_store("interp.latents.measure:MeasureConfig", **ONE, **UNREAD, tokens=59 * 40),
            trials=3,
        ),
        Resumable(
            "saes.effects",
            dog_with_sae,
            in_store(
                "interp.latents.effects:LatentEffectsConfig", model="model", saes="sae", **ACTED
            ),
        ),
        Resumable(
            "saes.activations",
            nothing,
            in_store("interp.saes.activations:ActivationsConfig", **SET, sites=("2.resid_post",)),
            constants=FED,
        ),
        Resumable(
            "saes.train",
            nothing,
            in_store(
                "interp.saes.training:SaeTrainConfig",
                **SET,
                site="2.resid_post",
                kinds=("batchtopk", "jumprelu"),
                widths=(64,),
                l0=(8,),
                batch=128,
            ),
            constants=FEW | FED,
        ),
        Resumable(
            "linearscope.sketch",
            nothing,
            in_store("interp.linearscope.train_sketch:SketchConfig", steps=12, batch=1, crop=16),
        ),
        Resumable("knob.data", lands, in_store("interp.knob.data:DataConfig", **LANDS)),
        Resumable(
            "knob.search",
            lands,
            in_store("interp.knob.search:SearchConfig", **ASKED, adapter="none", pairs=4),
        ),
        Resumable(
            "knob.finetune",
            lands,
            in_store("interp.knob.finetune:FinetuneConfig", **ASKED, **FINETUNE, **SCORED),
        ),
        Resumable(
            "knob.learn",
            lands,
            in_store("interp.knob.learn:LearnConfig", **ASKED, **LEARN, adapter="none"),
        ),
        Resumable(
            "knob.run",
            lands,
            in_store("interp.knob.run:RunConfig", **ASKED, **FINETUNE, **LEARN, **SCORED, pairs=2),
            trials=3,
        ),
        Resumable(
            "othello.probe",
            boards,
            in_store("interp.othello.probe:ProbeConfig", model="model", **PROBE),
        ),
        Resumable(
            "othello.sae",
            boards,
            in_store("interp.othello.sae:SaeConfig", model="model", **SETS),
            trials=3,
            constants=FEW,
        ),
        Resumable("othello.train", nothing, trained_othello, again=False),
        Resumable("a GGUF file", gguf_file, converted, again=False, trials=3),
        Resumable(
            "an adapter",
            adapter,
            merged,
            again=False,
            trials=3,
        ),
    )
}
LIGHT = (
    *("interp.knob.data", "interp.knob.evaluate", "interp.model.subject"),
    "transformers.models.llama.modeling_llama",
)
"""What `knob.data` imports."""
HEAVY = (
    *LIGHT,
    *("interp.analyses", "interp.neurons.decode", "interp.othello.train", "interp.saes.open"),
    *("peft", "sae_lens", "interp.saes.train", "interp.knob.stages", "interp.obsprop.tables"),
    *("interp.darkmatter.run_pass", "interp.othello.readers", "interp.knob.last_token_cache"),
)
"""What the studies import, for a server that runs all of them."""
