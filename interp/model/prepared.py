"""Plain folders of what is none: adapters merged, quantised checkpoints dequantised, each once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ..errors import UserError
from .adapter import is_adapter
from .building import built, run_module
from .files import read_json
from .folder import ADAPTER, DEQUANTISED, check_base, quantisation
from .remote_files import check_is_here
from .remote_store import RemoteFile
from .tensor_files import content_of
from .tokenizer_files import tokenizer_files

MADE_BY = "made_by.json"


def made_by(folder: Path) -> str:
    """What was done to make a folder; empty for one that is as it was given."""
    path = folder / MADE_BY
    return str(read_json(path).get("made by", "")) if path.exists() else ""


def needs_preparing(folder: Path) -> bool:
    """Whether a folder is quantised in a way that can be undone."""
    config = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    return quantisation(config) in DEQUANTISED


def prepared(base: Path, adapter: Path | None = None) -> Path:
    """A plain folder of a model's, dequantised and with an adapter merged; named by the content of
    both, and made once.

    Raises:
        UserError: the base's weights are not here; no adapter there, or one that does not fit the
            base or cannot be merged.
    """
    check_is_here(base)
    if adapter:
        check_adapter(adapter)
    checked = check_base(base)
    files: list[Path | RemoteFile] = [base / "config.json", *base.glob("generation_config.json")]
    files += [*sorted({tensor.file for tensor in checked.tensors.values()}), *tokenizer_files(base)]
    if adapter:
        files += [*sorted(adapter.glob("adapter_*")), *tokenizer_files(adapter)]
    parts = "\n".join(f"{path.name}:{content_of(path)}" for path in files)
    digest = hashlib.sha256(parts.encode()).hexdigest()[:16]
    method = quantisation(checked.config)
    doing = [f"dequantising {base} ({method}) to float32"] if method else []
    doing += [f"merging the adapter {adapter} into {base}"] if adapter else []

    def build(out: Path) -> None:
        command = ["interp.model.prepare", str(base), str(adapter or ""), str(out)]
        run_module(command, f"{' and '.join(doing)} (once)", f"cannot open {adapter or base}")
        (out / MADE_BY).write_text(json.dumps({"made by": " and ".join(doing)}, indent=1))

    return built(f"{'merged' if adapter else 'float32'}-{digest}", build)


def check_adapter(folder: Path) -> None:
    if not is_adapter(folder):
        raise UserError(f"{folder} holds no adapter: it has no {ADAPTER}")
    if "peft_type" not in read_json(folder / ADAPTER):
        raise UserError(f"{folder / ADAPTER} is no config of peft's: it has no peft_type")
    if not any(folder.glob("adapter_model.*")):
        raise UserError(f"{folder} has no adapter_model.safetensors: fetch it again")
