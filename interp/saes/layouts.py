"""In which files SAEs lie: one line a layout, and what a folder or file holds of them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from .fold import FILES


class Layout(NamedTuple):
    """Files by which an SAE of one kind of library is known."""

    name: str
    reader: str
    """The function of `formats` that reads it."""
    shows: str
    """Its files in words."""
    weights: str
    """A regular expression of the weights' file name."""
    config: str = ""
    """The file beside them that says what they are."""
    needed: bool = True
    """Whether the config must be there."""
    depth: int = 0
    """How many folders the weights lie below the config."""
    alone: bool = False
    """Whether several may lie in one folder, each called by its file's name."""
    bos: bool | None = None
    """Whether its texts began with a BOS token, as its makers tell; None where they do not."""


LAYOUTS = (
    Layout("sae-lens", "sae_lens", f"{FILES[1]} and {FILES[0]}", re.escape(FILES[0]), FILES[1]),
    Layout("Gemma Scope", "gemma_scope", "params.npz", r"params\.npz", bos=True),
    Layout(
        "Gemma Scope 2",
        "gemma_scope_2",
        "config.json and params.safetensors",
        r"params\.safetensors",
        "config.json",
        needed=False,
        bos=True,
    ),
    Layout(
        "Llama Scope",
        "llama_scope",
        "hyperparams.json and checkpoints/final.safetensors",
        r"final\.safetensors",
        "hyperparams.json",
        depth=1,
        bos=True,
    ),
    Layout(
        "dictionary_learning",
        "dictionary_learning",
        "config.json and ae.pt",
        r"ae\.pt",
        "config.json",
    ),
    Layout("sparsify", "sparsify", "cfg.json and sae.safetensors", r"sae\.safetensors", "cfg.json"),
    Layout(
        "Qwen-Scope", "qwen_scope", "layer0.sae.pt", r"layer[0-9]+\.sae\.pt", alone=True, bos=True
    ),
    Layout("OpenAI", "openai", "0.pt", r"[0-9]+\.pt", alone=True),
)
SHOWN = "; ".join(f"{layout.shows} ({layout.name})" for layout in LAYOUTS)


@dataclass(frozen=True)
class Stored:
    """The files of one SAE."""

    layout: Layout
    weights: Path

    @property
    def place(self) -> Path:
        """By what it is called: its folder, or where several share one, its file."""
        return self.weights if self.layout.alone else self._folder

    @property
    def config(self) -> Path | None:
        return self._folder / self.layout.config if self.layout.config else None

    @property
    def files(self) -> list[Path]:
        """Those that it has, or should have: the config first."""
        own = self.config
        kept = own is not None and (self.layout.needed or own.is_file())
        return [own, self.weights] if own and kept else [self.weights]

    @property
    def _folder(self) -> Path:
        return self.weights.parents[self.layout.depth]


def find(path: Path) -> list[Stored]:
    """The SAEs in a folder, in any depth, or of one file; sorted by their places.

    Raises:
        UserError: none, with what was looked for.
    """
    found = _of_file(path) if path.is_file() else _of_folder(path)
    if not found:
        why = "" if path.exists() else " (there is no such folder)"
        raise UserError(
            f"{path} holds no SAEs{why}: give a folder or file with {SHOWN}, or release:sae_id"
        )
    return sorted(found, key=lambda stored: stored.place)


def _of_file(path: Path) -> list[Stored]:
    """The SAE whose weights or config a file is. What ends in .pt and has no known name may be one
    of OpenAI's: its tensors tell."""
    for layout in LAYOUTS:
        if re.fullmatch(layout.weights, path.name):
            return [Stored(layout, path)]
    if path.suffix == ".pt":
        return [Stored(LAYOUTS[-1], path)]
    beside = [] if path.name not in {each.config for each in LAYOUTS} else _of_folder(path.parent)
    return [stored for stored in beside if stored.config == path]


def _of_folder(path: Path) -> list[Stored]:
    found, configs = [], []
    for folder, inner, names in os.walk(path):
        inner.sort()
        for name in names:
            file = Path(folder, name)
            layouts = [each for each in LAYOUTS if re.fullmatch(each.weights, name)]
            found += [Stored(each, file) for each in layouts if len(file.parts) > each.depth + 1]
            # a config that belongs to SAEs alone tells of one whose weights are gone
            configs += [file] if name in ("cfg.json", "hyperparams.json") else []
    has = {stored.config for stored in found}
    for config in configs:
        if config not in has:
            layout = next(each for each in LAYOUTS if each.config == config.name)
            below = ("checkpoints",) * layout.depth
            name = layout.shows.rpartition(" ")[2].rpartition("/")[2]
            found.append(Stored(layout, config.parent.joinpath(*below, name)))
    return found
