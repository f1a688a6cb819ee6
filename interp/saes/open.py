"""SAEs opened: one, or all of one site together with their errors on the same activations.

A source is a folder or file of an SAE in one of the layouts (`layouts.LAYOUTS`), a folder that has
such folders in it, such as a run of `interp darkmatter ladder`, or a published SAE by sae-lens'
names, "release:sae_id". sae-lens takes 8 s to import, so only the functions that open an
SAE do it.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..model.allowed import check_place_allowed
from ..model.prompting import Bos, Prompting
from ..model.site import Site
from ..model.tensor_files import remembered_sha256
from ..plain_path import found, plain_path
from .config import metadata_of
from .formats import stored_config
from .layouts import Stored, find
from .load import opened, published, published_metadata
from .pursuit import pursue
from .sae import Sae, bos_said

PURSUED = " pursued"
"""Ends the name of an SAE whose latents are found by pursuit instead of by its encoder."""


class SaeErrors(NamedTuple):
    """The errors that several SAEs (or their stand-ins) make on the same activations."""

    x: Float[Tensor, "n d"]
    """What the errors are of."""
    error: Float[Tensor, "n saes d"]
    """x - SAE(x)."""
    active: Float[Tensor, "n saes"]
    """Active latents, L0."""


class ErrorSource(Protocol):
    """What makes errors at one site: its SAEs, or stand-ins for them."""

    @property
    def site(self) -> Site: ...

    @property
    def d_in(self) -> int: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def widths(self) -> tuple[int, ...]: ...

    @property
    def centred(self) -> bool: ...

    @property
    def facts(self) -> dict[str, Any]: ...

    def no_data(self, prompting: Prompting) -> tuple[int, ...]: ...

    def positions(self, length: int) -> set[int]: ...

    def errors(self, x: Float[Tensor, "n d"]) -> SaeErrors: ...


@dataclass(frozen=True)
class Saes:
    """SAEs of one site, the narrowest first."""

    site: Site
    by_name: dict[str, Sae]
    pursued: bool = False
    """Each comes a second time, with as many latents a token but found by pursuit."""
    anyway: tuple[str, ...] = ()
    """What the SAEs say of themselves that does not fit, used all the same."""

    @property
    def d_in(self) -> int:
        return next(iter(self.by_name.values())).d_in

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.by_name, *(name + PURSUED for name in self.by_name if self.pursued))

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self.by_name[name.removesuffix(PURSUED)].d_sae for name in self.names)

    @property
    def facts(self) -> dict[str, Any]:
        """For a manifest: `sae_models`, the model that each names, and where something does not fit
        and was taken all the same, `anyway`, a list of sentences."""
        return _facts(self.by_name, self.anyway)

    @property
    def centred(self) -> bool:
        """Whether what they read has no mean over d_model."""
        return next(iter(self.by_name.values())).centred

    def positions(self, length: int) -> set[int]:
        """The positions of a text of some length that all of them were trained on."""
        each = (set(sae.positions(length)) for sae in self.by_name.values())
        return set.intersection(*each)

    def no_data(self, prompting: Prompting) -> tuple[int, ...]:
        """The ids that one of them at least was not trained on."""
        each = (sae.no_data(prompting) for sae in self.by_name.values())
        return tuple(sorted(set().union(*each)))

    def chosen(self, name: str) -> Sae:
        """One by its name; by "" the widest.

        Raises:
            UserError: none of that name.
        """
        name = name or next(reversed(self.by_name))
        if name not in self.by_name:
            raise UserError(f"no SAE '{name}' there: choose one of {', '.join(self.by_name)}")
        return self.by_name[name]

    def errors(self, x: Float[Tensor, "n d"]) -> SaeErrors:
        """Of `Sae.read(x)`, which is the same for all of them."""
        errors, active = [], []
        for sae in self.by_name.values():
            chunks = [(read - x_hat, (z != 0).sum(1)) for read, z, x_hat in sae.reconstructions(x)]
            error, count = (torch.cat(column) for column in zip(*chunks, strict=True))
            errors.append(error)
            active.append(count)
        x = sae.read(x)
        if self.pursued:
            for sae, count in zip(self.by_name.values(), tuple(active), strict=True):
                codes = pursue(x, sae.W_dec, sae.b_dec, count)
                errors.append(codes.residual)
                active.append((codes.value > 0).sum(1))
        return SaeErrors(x, torch.stack(errors, 1), torch.stack(active, 1).to(x))


def open_sae(source: str | Path, device: str = "cpu", site: str = "", model: str = "") -> Sae:
    """The one SAE or transcoder of a source, in float32.

    Args:
        site: the site it reads, "14.resid_post", for an SAE that does not say it.
        model: whose activations it reads, likewise.

    Raises:
        UserError: no SAE there or several, a damaged one, one that cannot be fetched without a
            network, another site or model than it says, or as `wrap`.
    """
    if name := _published_name(source):
        sae = published(*name, device, site, model)
    else:
        every = find(_place(source))
        if len(every) > 1:
            raise UserError(f"{source} holds several SAEs: give one of {_listed(every)}")
        sae = opened(every[0], device, site, model)
    if model:
        sae.check_model(model, str(source))
    return sae


def _place(source: str | Path) -> Path:
    """Where SAEs lie, if they may be opened."""
    place = plain_path(source)
    check_place_allowed("SAEs", place)
    return place


def _listed(several: list[Stored]) -> str:
    shown = ", ".join(str(stored.place) for stored in several[:5])
    return shown + (f" and {len(several) - 5} more" if len(several) > 5 else "")


def open_saes(
    source: str | Path,
    site: str = "",
    pursued: bool = False,
    model: str = "",
    anyway: bool = False,
) -> Saes:
    """All SAEs that a source holds of one site.

    Args:
        site: which site, if the source has SAEs of several or they do not say which they are of.
        model: whose activations they are to read; by default this is not checked.
        anyway: take SAEs that name another model, or a hook that is not known here.

    Raises:
        UserError: as `open_sae`; no SAEs of that site, SAEs of several sites, of several widths of
            input or some of centred activations and some not, of something else than a model's
            activations, or of another model; pursuit with SAEs that normalise their input.
    """
    every = _every(source)
    asked = str(Site.parse(site)) if site else ""
    chosen = {name: sae for name, sae in every.items() if asked in ("", sae.site) or not sae.site}
    sites = sorted({sae.site for sae in every.values()} - {""})
    if not chosen:
        raise UserError(f"{source} holds no SAEs of {site}, only of {', '.join(sites)}")
    if not asked and len(sites) != 1:
        which = f"of {', '.join(sites)}" if sites else "that do not say which site they are of"
        raise UserError(f"{source} holds SAEs {which}: give --site")
    for what, kinds in (
        ("read different numbers of inputs", {sae.d_in for sae in chosen.values()}),
        ("some of them read centred activations", {sae.centred for sae in chosen.values()}),
    ):
        if len(kinds) > 1:
            raise UserError(f"{source} holds SAEs that {what}: put them in two folders")
    names = sorted(chosen, key=lambda name: (chosen[name].d_sae, name))
    others = []
    for name in names:
        sae = chosen[name]
        _check(name, sae, pursued)
        if sae.hook and not sae.site:
            others.append(f"{name} is an SAE of {sae.hook}, not of {asked}")
    if others and not anyway:
        raise UserError(f"{others[0]}: give --anyway if these are two names of one place")
    if model:
        others += _of_others(chosen, model, anyway)
    by_name = {name: chosen[name] for name in names}
    return Saes(Site.parse(asked or sites[0]), by_name, pursued, tuple(others))


def saes_bos(source: str) -> Bos:
    """Whether the SAEs of a source were trained behind a BOS token, as they say themselves.

    Raises:
        UserError: some were, and some were not; a damaged cfg.json; a published SAE that cannot be
            fetched.
    """
    if name := _published_name(source):
        said = {bos_said(published_metadata(*name).get("prepend_bos"))}
    else:
        said = {_bos(stored) for stored in find(_place(source))}
    if len(said) > 1:
        raise UserError(f"{source} holds SAEs trained with and without BOS: give --bos")
    return next(iter(said), "auto")


def saes_fingerprint(source: str) -> str:
    """sha256 over the files that `open_saes(source)` reads; of a published SAE, its name.

    Raises:
        UserError: a folder that is not there, or holds no SAEs.
    """
    if _published_name(source):
        return source
    path = _place(source)
    root = path if path.is_dir() else path.parent
    files = [file for stored in find(path) for file in stored.files]
    parts = [f"{os.path.relpath(f, root)}:{remembered_sha256(f)}" for f in files if f.exists()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _bos(stored: Stored) -> Bos:
    """What the files of an SAE say, or the makers of its layout."""
    if stored.layout.name != "sae-lens":
        return bos_said(stored.layout.bos)
    return bos_said(metadata_of(stored_config(stored)).get("prepend_bos"))


def _published_name(source: str | Path) -> tuple[str, str] | None:
    """(release, sae_id) of "release:sae_id"; None for a folder."""
    release, colon, sae_id = str(source).partition(":")
    return (release, sae_id) if colon and not found(source) else None


def _every(source: str | Path) -> dict[str, Sae]:
    """Every SAE of a source by its folder's name; two of one name by their paths from there."""
    if name := _published_name(source):
        return {name[1]: published(*name, "cpu")}
    path = _place(source)
    every = find(path)
    often = Counter(stored.place.name for stored in every)
    return {
        (
            stored.place.name
            if often[stored.place.name] == 1
            else str(stored.place.relative_to(path))
        ): opened(stored, "cpu")
        for stored in every
    }


def check_saes(source: str | Path, model: str, anyway: bool = False) -> dict[str, Any]:
    """`Saes.facts` of all SAEs that a source holds, of whatever site.

    Args:
        anyway: take SAEs that name another model.

    Raises:
        UserError: as `open_sae`; SAEs of something else than activations, or of another model.
    """
    every = _every(source)
    for name, sae in every.items():
        _check(name, sae)
    return _facts(every, _of_others(every, model, anyway))


def _of_others(saes: Mapping[str, Sae], model: str, anyway: bool) -> list[str]:
    """Which of them name another model, in words."""
    return [
        f"{name} is an SAE of {sae.model}, not of {model}"
        for name, sae in saes.items()
        if not sae.check_model(model, name, anyway)
    ]


def _facts(saes: Mapping[str, Sae], others: Collection[str]) -> dict[str, Any]:
    facts: dict[str, Any] = {"sae_models": {name: sae.model for name, sae in saes.items()}}
    return {**facts, "anyway": list(others)} if others else facts


def _check(name: str, sae: Sae, pursued: bool = False) -> None:
    """Refuse an SAE that cannot be right for what is asked of it."""
    sae.check_reconstructs(name)
    if sae.reads:
        raise UserError(
            f"{name} is an SAE of the {sae.reads}, not of activations: give the SAEs of a site"
        )
    if pursued and sae.normalises:
        raise UserError(
            f"{name} normalises its input ({sae.normalises}), so x is not a sum of its atoms: "
            "leave it out, or use darkmatter run"
        )
