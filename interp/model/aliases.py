"""Which names mean the same model: of the catalog, of the hub, short ones that SAEs carry, folders.

One place decides. A base model and its instruct version, a deduped one, a fine-tune or another
revision are other models, however alike their names: nothing is compared by what it begins with.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from .catalog import SHIPPED, WHEELS, added
from .files import home

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
    (owner, name), (other_owner, other_name) = known_as(one), known_as(other)
    return name == other_name and (owner == other_owner or not (owner and other_owner))


def known_as(model: str) -> tuple[str, str]:
    """(owner, name) of a model, in small letters, by any of its names; the owner is "" where it is
    not known. A revision belongs to the name."""
    if known := _of_catalog(model):
        return known
    path = Path(model).expanduser()
    if path.is_absolute() or model.startswith((".", "~")) or path.is_dir():
        return _of_folder(path)
    plain = model.strip().lower().replace("_", "-")
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
    path = Path(source).expanduser()
    return path.name if path.is_absolute() or path.exists() else source


def _of_catalog(model: str) -> tuple[str, str] | None:
    if model in WHEELS:
        return known_as(WHEELS[model].hub) if WHEELS[model].hub else ("", model)
    if model in SHIPPED:
        return "", model
    source = added().get(model)
    return None if source is None or source == model else known_as(source)


def _of_folder(path: Path) -> tuple[str, str]:
    """By what made it: the catalog, the hub's cache, or whoever named it."""
    path = path.resolve()
    if path in _shipped():
        return "", _shipped()[path]
    made_of = re.sub(r"\.\d+$", "", path.name)  # name.<number of the converter>
    if path.parent == (home() / "models").resolve() and made_of in WHEELS:
        return known_as(made_of)
    cached = re.fullmatch(r"models--(.+?)--(.+)", path.parent.parent.name)
    if path.parent.name == "snapshots" and cached:
        return known_as(f"{cached[1]}/{cached[2]}{_revision(path)}")
    return "", path.name.lower().replace("_", "-")


def _revision(snapshot: Path) -> str:
    """Of a folder of the hub's cache: "" for the main one, else @ and its name or its hash."""
    refs = snapshot.parent.parent / "refs"
    named = [ref.name for ref in refs.glob("*") if ref.read_text().strip() == snapshot.name]
    if "main" in named:
        return ""
    return f"@{(named or [snapshot.name])[0]}"


@cache
def _shipped() -> dict[Path, str]:
    return {folder.resolve(): name for name, folder in SHIPPED.items()}
