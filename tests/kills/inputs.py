"""What the studies of `studies.py` read, written small into an empty folder, and three starts that
are no studies."""

from __future__ import annotations

import json
from pathlib import Path

from ..conftest import make_dog_model, make_model


def dog(folder: Path, layers: int = 2) -> None:
    make_model("llama", num_hidden_layers=layers).save_pretrained(folder / "model")
    make_dog_model(folder / "model")
    (folder / "text.txt").write_text("w1 w2 w3 w4 " * 20)
    (folder / "concepts.yaml").write_text(
        "dog:\n  describe: w1 w2 w3\n  prompts: [w4 w5]\n"
        "  neighbour: {word: w9, prompts: [w7 w8]}\n"
    )


def dog_with_sae(folder: Path) -> None:
    from ..latents.planted import write_sae

    dog(folder)
    write_sae(folder / "sae", folder / "model")


def gaps(folder: Path) -> None:
    from ..circuits.two_neurons import TASK, plant

    dog(folder)
    plant(folder / "model", folder / "planted")
    (folder / "planted.yaml").write_text(TASK)


def pronouns(folder: Path) -> None:
    from ..obsprop.planted import TASK, make_planted, write_task

    make_planted(folder / "model")
    write_task(folder)
    (folder / "text.txt").write_text("w1 w2 w100 w3 w4 " * 80)
    other = {**TASK, "observable": {"w12": 1, "w13": -1}}
    (folder / "other.yaml").write_text(json.dumps(other))


def lands(folder: Path) -> None:
    from ..knob.planted import ANSWERS, SUBJECTS, planted, save

    save(planted(3, range(1, 2), 30), folder / "model")
    pairs = dict(zip(SUBJECTS, ANSWERS, strict=True))
    relation = {"query": "The capital of {} is", "facts": pairs}
    facts = {"relations": {"capital": relation, "town": relation}}
    (folder / "facts.json").write_text(json.dumps(facts))


def boards(folder: Path) -> None:
    from interp.othello.settings import TrainConfig
    from interp.othello.train import build_model

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
    from interp.othello.settings import TrainConfig
    from interp.othello.train import train

    train(
        TrainConfig(
            Path("made"), Path("checkpoints"), games=64 * 12, n_layers=1, d_model=32, n_heads=2,
            batch=64, eval_games=50, log_every=2, ckpt_seconds=0.0,
        )
    )  # fmt: skip


def converted(fresh: bool) -> None:
    from interp.model.catalog import resolve

    resolve("tiny.gguf")


def merged(fresh: bool) -> None:
    from interp.model.catalog import add

    add("merged", "model", "adapter")
