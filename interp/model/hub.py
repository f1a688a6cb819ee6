"""A model from the hub: the files that it needs and no more.

A repository may hold the same weights several times (the original release, other precisions,
exports) and other things beside (adapters, checkpoints of the training, GGUF files). Everything
needed stands at its top level, under a name of `MODEL`, or of `ADAPTER_FILES` where there is no
model; a pattern's * would cross folders, so that they are left out by `NESTED`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UserError
from .folder import ADAPTER
from .remote_store import http_error
from .tensor_files import weight_files
from .tokenizer_files import FOREIGN, NAMES, tokenizer_files

TOKENIZER = [*NAMES, "spiece.model"]
MODEL = [
    *("config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json"),
    "model-?????-of-?????.safetensors",  # not model-00001-of-00002.fp16.safetensors
    *TOKENIZER,
]
ADAPTER_FILES = [ADAPTER, "adapter_model.safetensors", "adapter_model.bin", *TOKENIZER]
NESTED = ["*/*"]
HUB_ID = r"\w[\w.-]*/[\w.-]+(@[\w./-]+)?"


def from_hub(name: str) -> Path:
    """The folder of `org/model` or `org/model@revision`, or of an adapter, fetched if need be.

    Raises:
        UserError: the hub cannot be reached, does not give it, or has no such weights there.
    """
    folder = _snapshot(name, MODEL)
    if not weight_files(folder):
        _snapshot(name, ADAPTER_FILES)
        if not (folder / ADAPTER).exists():
            raise UserError(_no_weights(name))
    if not tokenizer_files(folder):  # so that one in another form is seen
        _snapshot(name, list(FOREIGN))
    return folder


def hub_id(folder: Path) -> str:
    """org/model of a folder in the hub's cache, models--org--model/snapshots/<commit>, with
    @revision where that is not the main one; "" of any other."""
    repository = folder.parent.parent.name.split("--")
    cached = folder.parent.name == "snapshots" and len(repository) == 3
    if not cached or repository[0] != "models":
        return ""
    refs = (folder.parent.parent / "refs").glob("*")
    named = [ref.name for ref in refs if ref.read_text().strip() == folder.name]
    if "main" in named:
        return "/".join(repository[1:])
    return f"{'/'.join(repository[1:])}@{(named or [folder.name])[0]}"


def _snapshot(name: str, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    asked: dict[str, Any] = {"allow_patterns": files, "ignore_patterns": NESTED}
    try:
        return Path(snapshot_download(repository, revision=revision or None, **asked))
    except (OSError, ValueError, http_error()) as error:
        raise UserError(_refused(name, error)) from error


def commit_of(name: str) -> str:
    """The commit that `org/model` or `org/model@revision` names now.

    Raises:
        UserError: the hub cannot be reached, or does not give it.
    """
    from huggingface_hub import HfApi

    repository, _, revision = name.partition("@")
    try:
        return str(HfApi().model_info(repository, revision=revision or None).sha)
    except (OSError, ValueError, http_error()) as error:
        raise UserError(_refused(name, error)) from error


def _refused(name: str, error: Exception) -> str:
    from huggingface_hub import errors

    repository, _, revision = name.partition("@")
    nor = f"; and {Path.cwd()} has no folder '{name}', if it is one's path"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            f"'{name}' is not in the local hub cache, or only a part of it, and the hub cannot be "
            f"reached (HF_HUB_OFFLINE set, or no network){nor}"
        )
    if isinstance(error, errors.GatedRepoError):
        return (
            f"'{repository}' is gated: accept its terms at https://huggingface.co/{repository}, "
            "then log in with `hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"'{repository}' has no revision '{revision}' on the hub"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"the hub has no '{repository}', or it is private: check the name, or log in with "
            f"`hf auth login`{nor}"
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"the hub does not give '{name}': {reason}"


def _no_weights(name: str) -> str:
    """Why a repository without safetensors of the known names cannot be opened."""
    from huggingface_hub import HfApi

    repository, _, revision = name.partition("@")
    lacking = f"'{name}' has no model.safetensors, nor parts of one"
    try:
        listed = HfApi().list_repo_files(repository, revision=revision or None)
    except (OSError, http_error()):
        return lacking
    ggufs = [file for file in listed if file.endswith(".gguf")]
    if any(file.startswith("pytorch_model") and file.endswith(".bin") for file in listed):
        return (
            f"{lacking}: its weights are a pickle, which is never opened; convert it once: "
            'python -c "from transformers import AutoModelForCausalLM; AutoModelForCausalLM'
            f".from_pretrained('{repository}').save_pretrained('NEW_FOLDER')\", and copy the "
            "tokenizer's files"
        )
    if ggufs:
        return f"{lacking}, but GGUF files: fetch one ({ggufs[0]}) and name the file"
    if any(file.startswith("consolidated") or file == "params.json" for file in listed):
        return f"{lacking}, only the original release's form: name a repository in transformers'"
    return lacking
