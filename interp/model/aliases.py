"""Which names mean the same model: of the catalog, of the hub, short ones that SAEs carry, folders.

One place decides. A base model and its instruct version, a deduped one, a fine-tune or another
revision are other models, however alike their names: nothing is compared by what it begins with.
"""

from __future__ import annotations

from pathlib import Path

from ..plain_path import plain_path
from .catalog import SHIPPED, WHEELS, added, known_as
from .hub import hub_id
from .remote_files import remote_folder
from .remote_store import is_remote

_HUB = {
    "gpt2": "openai-community/gpt2",
    "gpt2-small": "openai-community/gpt2",
    "mistral-7b": "mistralai/mistral-7b-v0.1",
    "mistral-7b-instruct": "mistralai/mistral-7b-instruct-v0.1",
    "gpt-oss": "openai/gpt-oss-20b",
    "meta-llama/meta-llama-3.1-8b": "meta-llama/llama-3.1-8b",
    "meta-llama/meta-llama-3.1-8b-instruct": "meta-llama/llama-3.1-8b-instruct",
}
"""Short and former names, as TransformerLens and the hub know them."""
_MAKERS = {
    "gpt2-": "openai-community",
    "pythia-": "eleutherai",
    "gemma-": "google",
    "llama-": "meta-llama",
    "meta-llama-": "meta-llama",
    "mistral-": "mistralai",
    "qwen": "qwen",
    "smollm": "huggingfacetb",
    "gpt-oss-": "openai",
    "deepseek-": "deepseek-ai",
}
"""Who publishes the models whose names begin so: whose a name without an owner is."""


def same_model(one: str, other: str) -> bool:
    """Whether two names are known to mean one model: names of the catalog, hub ids, short names,
    folders. A name whose owner is not known fits that name of any owner."""
    if one == other:
        return True
    (owner, name), (other_owner, other_name) = owner_and_name(one), owner_and_name(other)
    return name == other_name and (owner == other_owner or not (owner and other_owner))


def owner_and_name(model: str) -> tuple[str, str]:
    """(owner, name) of a model, in small letters, by any of its names; the owner is "" where it is
    not known. A revision belongs to the name."""
    if known := _of_catalog(model):
        return known
    if is_remote(model):
        scheme, _, path_there = model.partition("://")
        return owner_and_name(path_there) if scheme == "hf" else ("", _folders_name(path_there))
    path = plain_path(model)
    if path.is_absolute() or model.startswith((".", "~")) or path.is_dir():
        return _of_folder(path)
    plain = model.strip().lower().replace("_", "-").removesuffix("@main")
    plain = _HUB.get(plain, plain)
    owner, _, name = plain.rpartition("/")
    if not owner:
        owner = next((maker for start, maker in _MAKERS.items() if name.startswith(start)), "")
        plain = _HUB.get(f"{owner}/{name}", f"{owner}/{name}")
        owner, _, name = plain.rpartition("/")
    return owner, name


def public_name(model: str) -> str:
    """What to write down of a model's name: whole, but without a folder's place on this machine."""
    if model in WHEELS | SHIPPED:
        return model
    source = added().get(model, model)
    path = plain_path(source)
    return path.name if path.is_absolute() or path.exists() else source


def _of_catalog(model: str) -> tuple[str, str] | None:
    if model in WHEELS:
        return owner_and_name(WHEELS[model].hub) if WHEELS[model].hub else ("", model)
    if model in SHIPPED:
        return "", model
    source = added().get(model)
    return None if source is None or source == model else owner_and_name(source)


def _of_folder(path: Path) -> tuple[str, str]:
    """By what made it: the catalog, the hub's cache, or whoever named it."""
    path = path.absolute()
    if remote := remote_folder(path):
        return owner_and_name(remote.address)
    name = known_as(path)
    if name in WHEELS | SHIPPED or name == hub_id(path):
        return owner_and_name(name)
    return "", _folders_name(path.name)


def _folders_name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2].lower().replace("_", "-")
