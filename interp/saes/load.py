"""One SAE from its files or from the hub, its config judged before anything is built of it."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pickle import UnpicklingError
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

from ..errors import UserError, reason
from ..model.site import Site
from ..model.tensor_files import header
from ..runs.parts import check_part
from . import formats
from .config import SIZES, check_keys
from .formats import scaled
from .hooks import hook_of_site
from .layouts import Stored
from .sae import Sae
from .wrapped import read_site, wrap


def opened(found: Stored, device: str, site: str = "", model: str = "") -> Sae:
    """Of files on the disk, in float32.

    Args:
        site: the one it reads, for an SAE that does not say it.
        model: whose activations it reads, likewise.

    Raises:
        UserError: a file that is missing or damaged; another site or model than it says; or as
            `wrap`.
    """
    from sae_lens import SAE

    for file in found.files:
        if not file.is_file():
            raise UserError(f"{found.place} holds no SAE (no file {file.name}): give another one")
        check_part(file)
        if file.suffix == ".safetensors":
            header(file)  # what is cut short is said as of every such file
    told = ""

    def convert(path: Any, device: str, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        nonlocal told
        config, state, told = getattr(formats, found.layout.reader)(found, device)
        _check(config, str(found.place))
        _check_sizes(config, state, found)
        return config, state

    with _readable(f"the SAE in {found.place} cannot be read"):
        inner = SAE.load_from_disk(found.place, device, "float32", convert)
    given = _name(inner, str(found.place), site, model)
    return wrap(inner, str(found.place), given or told)


def _check_sizes(config: Mapping[str, Any], state: Mapping[str, Any], found: Stored) -> None:
    """Raise UserError for sizes that no tensor has: sae-lens would make an SAE of them first."""
    sides = {side for tensor in state.values() for side in tensor.shape}
    said = found.config.name if found.config else "path"
    for key in ("d_in", "d_sae"):
        if config.get(key) is None:
            raise UserError(f"{found.place} is damaged: its {said} has no {key}; replace the SAE")
    for key in SIZES:
        if config.get(key) is not None and config[key] not in sides:
            raise UserError(
                f"{found.place} is damaged: its {said} says {key} {config[key]}, and no tensor of "
                f"its {found.weights.name} has such a side; replace the SAE"
            )


def _name(inner: Any, name: str, site: str, model: str) -> str:
    """Make what whoever opens an SAE says of it part of what it says itself. Returns who said it,
    "" if nothing was missing."""
    about = inner.cfg.metadata
    said = []
    if site and not about.hook_name:
        about.hook_name = hook_of_site(site)
        about.hook_head_index = Site.parse(site).head
        said.append("the site")
    own = read_site(about)
    if site and own != str(Site.parse(site)):
        raise UserError(
            f"{name} is an SAE of {own or about.hook_name}, not of {site}: leave --site"
        )
    if model and not about.model_name:
        about.model_name = model
        said.append("the model")
    return f"whoever opened it ({' and '.join(said)})" if said else ""


def published(release: str, sae_id: str, device: str, site: str = "", model: str = "") -> Sae:
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
        config, state, sparsity = NAMED_PRETRAINED_SAE_LOADERS[loader](**asked)
        config = scaled(config, state, config.get("finetuning_scaling_factor"))
        _check(config, name)
        return config, state, sparsity

    with _fetched(name):
        loader = get_conversion_loader_name(release)
        inner = SAE.from_pretrained(release, sae_id, device=device, converter=load)
    return wrap(inner, name, _name(inner, name, site, model))


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
