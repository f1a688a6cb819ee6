"""LoRA adapters by peft: added to a model, saved in float16, and merged into its weights.

An adapter's folder is as peft writes it: adapter_config.json and adapter_model.safetensors.
"shipped" names the workbench's own, for smollm2-135m.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from interp.data import FOLDER

from ..errors import UserError
from ..plain_path import lacks, plain_path
from ..runs.halves import halved
from ..runs.parts import check_part
from ..runs.study import TextStudy
from ..runs.writer import RunWriter, save_tensors

if TYPE_CHECKING:
    from ..model.prompting import Bos
    from ..model.subject import Subject

SHIPPED = FOLDER / "knob" / "smollm2-135m"
WEIGHTS = "adapter_model.safetensors"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


def adapter_folder(name: str) -> Path:
    """The folder of an adapter, "shipped" or a path.

    Raises:
        UserError: the folder holds none, or one of a run that was changed.
    """
    folder = SHIPPED if name == "shipped" else plain_path(name)
    if not (folder / "adapter_config.json").is_file():
        raise UserError(
            f"{folder} holds no adapter ({lacks(folder, 'adapter_config.json')}): `interp knob "
            "finetune` trains one"
        )
    for name in ("adapter_config.json", WEIGHTS):
        check_part(folder / name)
    return folder


def with_lora(model: Any, rank: int, alpha: float, seed: int) -> Any:
    """The model with fresh adapters on its attention projections; only the adapters train.

    Raises:
        UserError: the model's projections have other names.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if not set(TARGETS) <= names:
        raise UserError(
            f"adapters go on {', '.join(TARGETS)}, which this model lacks: choose another model"
        )
    torch.manual_seed(seed)
    return get_peft_model(
        model,
        LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(TARGETS)),  # type: ignore[arg-type]
    )


def save_adapter(model: Any, name: str, out: RunWriter, folder: str = "adapter") -> None:
    """Write a peft model's adapter, in float16 where it holds it, adapter_config.json last."""
    from peft import get_peft_model_state_dict

    config = model.peft_config["default"].to_dict()
    kept = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    kept |= {"base_model_name_or_path": name, "inference_mode": True}
    # without embeddings: peft would ask the hub whether they have changed
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    tensors = halved(weights)
    with out.part(f"{folder}/{WEIGHTS}") as path:
        save_tensors(tensors, path)
    with out.part(f"{folder}/adapter_config.json") as path:
        path.write_text(json.dumps(kept, indent=1, default=str))


@dataclass(frozen=True)
class TunedModelStudy(TextStudy):
    """A study of a model with an adapter; the adapter's weights count in the run's key."""

    adapter: str = "shipped"
    """The adapter's folder; "shipped", or "none" for the model without one."""

    def fingerprints(self) -> dict[str, str]:
        return {**super().fingerprints(), "adapter": adapter_print(self.adapter)}


def adapter_print(name: str) -> str:
    """sha256 of an adapter's weights; "none" for "none"."""
    from ..model.files import sha256

    return "none" if name == "none" else sha256(adapter_folder(name) / WEIGHTS)


def open_for(study: TextStudy, adapter: str, out: RunWriter) -> Subject:
    """`open_tuned` for a study, recorded in its run."""
    subject = open_tuned(study.model, adapter, study.device, study.bos)
    study.record(out, subject)
    return subject


def open_tuned(
    model: str,
    adapter: str,
    device: str = "cpu",
    bos: Bos = "auto",
    attention: Literal["eager"] | None = None,
) -> Subject:
    """A model with an adapter merged into its weights; with "none", the model alone. The rest is as
    `open_subject` takes it.

    Raises:
        UserError: no adapter there, or one of another model.
    """
    import torch

    from ..model.adapter import adapted
    from ..model.catalog import resolve
    from ..model.checkpoint import load_model
    from ..model.devices import Split
    from ..model.subject import open_subject
    from ..model.tokenizer_files import load_tokenizer

    if adapter == "none":
        return open_subject(model, device=device, bos=bos, attention=attention)
    if Split.of(device):
        raise UserError(
            "an adapter is merged in memory, so its model is not split: add both as one with "
            "`interp models add NAME BASE --adapter DIR`, and give that with --adapter none"
        )
    base = resolve(model)
    whole = adapted(load_model(base, dtype=torch.float32), adapter_folder(adapter))
    tokenizer = load_tokenizer(base)
    return open_subject(whole, device=device, tokenizer=tokenizer, bos=bos, attention=attention)
