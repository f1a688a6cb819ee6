"""One SAE from a folder or from the hub, its config judged before anything is built of it."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from pickle import UnpicklingError
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

from ..errors import UserError, reason
from ..model.tensor_files import header
from ..plain_json import read_json
from ..plain_path import lacks
from ..runs.parts import check_part
from .config import SIZES, check_keys, check_kinds
from .sae import Sae, wrap
from .train import FILES


def folders_below(path: Path) -> list[Path]:
    """The folders of the SAEs below a path."""
    return sorted(file.parent for file in path.rglob("cfg.json"))


def sae_folders(path: Path) -> list[Path]:
    """`folders_below` a path that has some.

    Raises:
        UserError: there is none.
    """
    if folders := folders_below(path):
        return folders
    raise UserError(
        f"{path} holds no SAEs ({lacks(path, 'file cfg.json')}): give a ladder's run, a folder of "
        "SAEs or release:sae_id"
    )


def stored(folder: Path, device: str) -> Sae:
    """Of a folder as sae-lens saves it, in float32.

    Raises:
        UserError: no SAE there, a damaged one, or as `wrap`.
    """
    from sae_lens import SAE

    for name in FILES:
        if not (folder / name).is_file():
            why = lacks(folder, f"file {name}")
            raise UserError(f"{folder} holds no SAE ({why}): give another folder")
        check_part(folder / name)
    config = stored_config(folder)
    _check(config, str(folder))
    _check_sizes(config, folder)
    with _readable(f"the SAE in {folder} cannot be read"):
        inner = SAE.load_from_disk(folder, device=device, dtype="float32")
    return wrap(inner, str(folder))


def stored_config(folder: Path) -> dict[str, Any]:
    """cfg.json of a folder.

    Raises:
        UserError: it cannot be read, or has a value of another kind than sae-lens writes.
    """
    config: dict[str, Any] = read_json(folder / "cfg.json", "replace the SAE")
    check_kinds(config, str(folder))
    return config


def _check_sizes(config: Mapping[str, Any], folder: Path) -> None:
    """Raise UserError for sizes that no tensor has: sae-lens would make an SAE of them first."""
    sides = {side for tensor in header(folder / FILES[0]) for side in tensor.shape}
    for key in ("d_in", "d_sae"):
        if config.get(key) is None:
            raise UserError(f"{folder} is damaged: its cfg.json has no {key}; replace the SAE")
    for key in SIZES:
        if config.get(key) is not None and config[key] not in sides:
            raise UserError(
                f"{folder} is damaged: its cfg.json says {key} {config[key]}, and no tensor of its "
                f"{FILES[0]} has such a side; replace the SAE"
            )


def published(release: str, sae_id: str, device: str) -> Sae:
    """By sae-lens' names, "gpt2-small-res-jb" and "blocks.8.hook_resid_pre", in float32.

    Raises:
        UserError: no such SAE, no network, a damaged one, or as `wrap`.
    """
    from sae_lens import SAE
    from sae_lens.loading.pretrained_sae_loaders import (
        NAMED_PRETRAINED_SAE_LOADERS,
        get_conversion_loader_name,
    )

    name = f"{release}:{sae_id}"

    def load(**asked: Any) -> tuple[dict[str, Any], dict[str, Any], Any]:
        config, *weights = NAMED_PRETRAINED_SAE_LOADERS[loader](**asked)
        _check(config, name)
        return config, weights[0], weights[1]

    with _fetched(name):
        loader = get_conversion_loader_name(release)
        inner = SAE.from_pretrained(release, sae_id, device=device, converter=load)
    return wrap(inner, name)


def published_metadata(release: str, sae_id: str) -> Mapping[str, Any]:
    """The metadata alone, without the weights.

    Raises:
        UserError: as `published`.
    """
    from sae_lens.loading.pretrained_sae_loaders import load_sae_config_from_huggingface

    with _fetched(f"{release}:{sae_id}"):
        config = load_sae_config_from_huggingface(release, sae_id)
    metadata: Mapping[str, Any] = config.get("metadata") or {}
    return metadata


def _check(config: Mapping[str, Any], name: str) -> None:
    from sae_lens.registry import SAE_CLASS_REGISTRY

    architecture = config.get("architecture", "standard")
    if architecture not in SAE_CLASS_REGISTRY:
        raise UserError(
            f"{name} has the architecture {architecture!r}, which sae-lens does not read: save it "
            f"as one of {', '.join(SAE_CLASS_REGISTRY)}"
        )
    followed = {field.name for field in fields(SAE_CLASS_REGISTRY[architecture][1])}
    check_keys(config, followed, name)


@contextmanager
def _readable(problem: str) -> Iterator[None]:
    """What sae-lens, and the formats it reads, raise at a damaged file, as one line."""
    from safetensors import SafetensorError

    try:
        with warnings.catch_warnings():
            # its advice how to load the model, which is judged by `wrap`
            warnings.filterwarnings("ignore", r"\s*This SAE has non-empty model_from_pretrained")
            yield
    except (
        *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
        *(RuntimeError, SafetensorError, BadZipFile, UnpicklingError, zlib.error),
        *(SyntaxError, TokenError),  # of numpy, which reads an array's header as Python
    ) as error:
        raise UserError(f"{problem} ({reason(error)}): give another") from error


@contextmanager
def _fetched(name: str) -> Iterator[None]:
    """As `_readable`, and what the hub says without a network."""
    with _readable(f"{name} cannot be opened"):
        try:
            yield
        except OSError as error:  # the hub's errors are OSErrors
            raise UserError(
                f"cannot fetch {name} ({reason(error)}): check the network, or give a folder"
            ) from error
