"""Several SAEs of one site, opened together, and their errors on the same activations."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from interp.saes.pursuit import pursue
from interp.saes.sae import Sae, load_sae, pretrained_sae

from ..errors import UserError
from ..model.catalog import SHIPPED, WHEELS, sha256
from ..model.site import Site
from ..progress import log

PURSUED = " pursued"
"""Ends the name of an SAE that is read by pursuit instead of by its encoder."""


class Read(NamedTuple):
    """What readers make of activations."""

    x: Float[Tensor, "n d"]
    """What the errors are of."""
    error: Float[Tensor, "n readers d"]
    """x - reader(x)."""
    active: Float[Tensor, "n readers"]
    """Active latents, L0."""


class Readers(Protocol):
    """Readers of one site that are studied together: SAEs, or stand-ins for them."""

    @property
    def site(self) -> Site: ...

    @property
    def d_in(self) -> int: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def widths(self) -> tuple[int, ...]: ...

    def read(self, x: Float[Tensor, "n d"]) -> Read: ...


@dataclass(frozen=True)
class Saes:
    """SAEs of one site, the narrowest first."""

    site: Site
    own: dict[str, Sae]
    pursued: bool = False
    """Each a second time, with as many latents a token but found by pursuit."""

    @property
    def d_in(self) -> int:
        return next(iter(self.own.values())).d_in

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.own, *(name + PURSUED for name in self.own if self.pursued))

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self.own[name.removesuffix(PURSUED)].d_sae for name in self.names)

    def chosen(self, name: str) -> Sae:
        """One by its name; by "" the widest.

        Raises:
            UserError: none of that name.
        """
        name = name or next(reversed(self.own))
        if name not in self.own:
            raise UserError(f"no SAE '{name}' there: choose one of {', '.join(self.own)}")
        return self.own[name]

    def read(self, x: Float[Tensor, "n d"]) -> Read:
        errors, active = [], []
        for sae in self.own.values():
            found = [(part - x_hat, (z != 0).sum(1)) for part, z, x_hat in sae.reconstructions(x)]
            error, count = (torch.cat(parts) for parts in zip(*found, strict=True))
            errors.append(error)
            active.append(count)
        for sae, count in (
            zip(self.own.values(), tuple(active), strict=True) if self.pursued else ()
        ):
            pursued = pursue(x, sae.W_dec, sae.b_dec, count)
            errors.append(pursued.residual)
            active.append((pursued.value > 0).sum(1))
        return Read(x, torch.stack(errors, 1), torch.stack(active, 1).to(x))


def open_saes(source: str, site: str = "", pursued: bool = False, model: str = "") -> Saes:
    """SAEs from a folder of `interp darkmatter ladder`, a folder (of folders) as sae-lens saves
    them, or published ones by sae-lens' names, "release:sae_id".

    Args:
        site: which of several sites', or where they are of, if they do not say.
        model: whose activations they are to read; by default they are not asked.

    Raises:
        UserError: none there (of that site), damaged ones, or several sites or widths of input;
            SAEs of something else than a model's activations, or of another model; pursuit with
            ones that normalise their input.
    """
    opened = _opened(source)
    asked = str(Site.parse(site)) if site else ""
    found = {name: sae for name, sae in opened.items() if asked in ("", sae.site) or not sae.site}
    sites = sorted({sae.site for sae in opened.values()} - {""})
    if not found:
        raise UserError(f"{source} holds no SAEs of {site}, only of {', '.join(sites)}")
    if not asked and len(sites) != 1:
        which = f"of {', '.join(sites)}" if sites else "that do not say where they are of"
        raise UserError(f"{source} holds SAEs {which}: give --site")
    if len({sae.d_in for sae in found.values()}) > 1:
        raise UserError(f"{source} holds SAEs that read different numbers of inputs: part them")
    names = sorted(found, key=lambda name: (found[name].d_sae, name))
    for name in names:
        _check(name, found[name], pursued, model)
    place = Site.parse(asked or sites[0])
    return Saes(place, {name: found[name] for name in names}, pursued)


def _opened(source: str) -> dict[str, Sae]:
    path = Path(source).expanduser()
    if not path.exists() and ":" in source:
        release, _, sae_id = source.partition(":")
        return {sae_id: pretrained_sae(release, sae_id)}
    folders = sorted(file.parent for file in path.rglob("cfg.json"))
    if not folders:
        raise UserError(f"{source} holds no SAEs: give a ladder, a folder or release:sae_id")
    often = Counter(folder.name for folder in folders)
    return {
        folder.name if often[folder.name] == 1 else str(folder.relative_to(path)): load_sae(folder)
        for folder in folders
    }


def _check(name: str, sae: Sae, pursued: bool, model: str) -> None:
    """Refuse an SAE that cannot be right for what it is asked."""
    if sae.reads:
        raise UserError(
            f"{name} is an SAE of the {sae.reads}, not of activations: give the SAEs of a site"
        )
    if pursued and sae.normalises:
        raise UserError(
            f"{name} normalises its input ({sae.normalises}), so x is no sum of its atoms: leave "
            "it out, or use darkmatter run"
        )
    given, own = _plain(model), _plain(sae.model)
    if given in own or own in given:
        return
    if {given, own} <= {_plain(known) for known in (*WHEELS, *SHIPPED)}:
        raise UserError(f"{name} is an SAE of {sae.model}, not of {model}: give that --model")
    # a model has many names (hub ids, aliases, folders), so this may be the same one
    log.warning("%s says that it is an SAE of %s; it is used on %s", name, sae.model, model)


def _plain(model: str) -> str:
    """'HuggingFaceTB/SmolLM2-135M' -> 'smollm2135m', by which models' names are compared."""
    return re.sub("[^a-z0-9]", "", Path(model).name.lower())


def saes_fingerprint(source: str) -> str:
    """sha256 over the files `open_saes(source)` reads; of published ones, their name."""
    path = Path(source).expanduser()
    if not path.exists():
        return source
    folders = sorted(file.parent for file in path.rglob("cfg.json"))
    files = [f / name for f in folders for name in ("cfg.json", "sae_weights.safetensors")]
    parts = [f"{f.relative_to(path)}:{sha256(f)}" for f in files if f.exists()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
