"""SAEs opened: one, or all of one site together with their errors on the same activations.

A source is a folder of an SAE as sae-lens saves it (cfg.json, sae_weights.safetensors), a folder
that has such folders in it, such as a run of `interp darkmatter ladder`, or a published SAE by
sae-lens' names, "release:sae_id". sae-lens takes 8 s to import, so only the functions that open an
SAE do it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import UserError
from ..model.catalog import SHIPPED, WHEELS
from ..model.files import read_json, sha256
from ..model.prompting import Bos, Prompting
from ..model.site import Site
from ..progress import log
from .pursuit import pursue
from .sae import Sae, bos_said, wrap
from .train import FILES

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

    def no_data(self, prompting: Prompting) -> tuple[int, ...]: ...

    def errors(self, x: Float[Tensor, "n d"]) -> SaeErrors: ...


@dataclass(frozen=True)
class Saes:
    """SAEs of one site, the narrowest first."""

    site: Site
    by_name: dict[str, Sae]
    pursued: bool = False
    """Each comes a second time, with as many latents a token but found by pursuit."""

    @property
    def d_in(self) -> int:
        return next(iter(self.by_name.values())).d_in

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.by_name, *(name + PURSUED for name in self.by_name if self.pursued))

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self.by_name[name.removesuffix(PURSUED)].d_sae for name in self.names)

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
        errors, active = [], []
        for sae in self.by_name.values():
            chunks = [(part - x_hat, (z != 0).sum(1)) for part, z, x_hat in sae.reconstructions(x)]
            error, count = (torch.cat(column) for column in zip(*chunks, strict=True))
            errors.append(error)
            active.append(count)
        if self.pursued:
            for sae, count in zip(self.by_name.values(), tuple(active), strict=True):
                codes = pursue(x, sae.W_dec, sae.b_dec, count)
                errors.append(codes.residual)
                active.append((codes.value > 0).sum(1))
        return SaeErrors(x, torch.stack(errors, 1), torch.stack(active, 1).to(x))


def open_sae(source: str | Path, device: str = "cpu") -> Sae:
    """The one SAE of a source, in float32.

    Raises:
        UserError: no SAE there or several, a damaged one, one that cannot be fetched without a
            network, or as `wrap`.
    """
    opened = _opened(source, device)
    if len(opened) > 1:
        raise UserError(f"{source} holds several SAEs: give the folder of {' or '.join(opened)}")
    return next(iter(opened.values()))


def open_saes(source: str | Path, site: str = "", pursued: bool = False, model: str = "") -> Saes:
    """All SAEs that a source holds of one site.

    Args:
        site: which site, if the source has SAEs of several or they do not say which they are of.
        model: whose activations they are to read; by default this is not checked.

    Raises:
        UserError: as `open_sae`; no SAEs of that site, SAEs of several sites or widths of input,
            of something else than a model's activations, or of another model; pursuit with SAEs
            that normalise their input.
    """
    opened = _opened(source)
    asked = str(Site.parse(site)) if site else ""
    chosen = {name: sae for name, sae in opened.items() if asked in ("", sae.site) or not sae.site}
    sites = sorted({sae.site for sae in opened.values()} - {""})
    if not chosen:
        raise UserError(f"{source} holds no SAEs of {site}, only of {', '.join(sites)}")
    if not asked and len(sites) != 1:
        which = f"of {', '.join(sites)}" if sites else "that do not say which site they are of"
        raise UserError(f"{source} holds SAEs {which}: give --site")
    if len({sae.d_in for sae in chosen.values()}) > 1:
        raise UserError(
            f"{source} holds SAEs that read different numbers of inputs: put them in two folders"
        )
    names = sorted(chosen, key=lambda name: (chosen[name].d_sae, name))
    for name in names:
        _check(name, chosen[name], pursued, model)
    return Saes(Site.parse(asked or sites[0]), {name: chosen[name] for name in names}, pursued)


def saes_bos(source: str) -> Bos:
    """Whether the SAEs of a source were trained behind a BOS token, as they say themselves.

    Raises:
        UserError: some were, and some were not; a damaged cfg.json; a published SAE that cannot be
            fetched.
    """
    path = Path(source).expanduser()
    if path.exists():
        metadata = (read_json(f / "cfg.json").get("metadata") or {} for f in _folders(path))
        said = {bos_said(about.get("prepend_bos")) for about in metadata}
    else:
        said = {sae.bos for sae in _opened(source).values()}
    if len(said) > 1:
        raise UserError(f"{source} holds SAEs trained with and without BOS: give --bos")
    return next(iter(said), "auto")


def saes_fingerprint(source: str) -> str:
    """sha256 over the files that `open_saes(source)` reads; of a published SAE, its name."""
    path = Path(source).expanduser()
    if not path.exists():
        return source
    files = [folder / name for folder in _folders(path) for name in reversed(FILES)]
    parts = [f"{f.relative_to(path)}:{sha256(f)}" for f in files if f.exists()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _folders(path: Path) -> list[Path]:
    return sorted(file.parent for file in path.rglob("cfg.json"))


def _opened(source: str | Path, device: str = "cpu") -> dict[str, Sae]:
    """Every SAE of a source by its folder's name; two of one name by their paths from there."""
    path = Path(source).expanduser()
    if not path.exists() and ":" in str(source):
        release, _, sae_id = str(source).partition(":")
        return {sae_id: _published(release, sae_id, device)}
    folders = _folders(path)
    if not folders:
        raise UserError(
            f"{source} holds no SAEs (no file cfg.json): give a ladder's run, a folder of SAEs or "
            "release:sae_id"
        )
    often = Counter(folder.name for folder in folders)
    names = [f.name if often[f.name] == 1 else str(f.relative_to(path)) for f in folders]
    return {name: _stored(f, device) for name, f in zip(names, folders, strict=True)}


def _stored(folder: Path, device: str) -> Sae:
    from sae_lens import SAE
    from safetensors import SafetensorError

    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no SAE (no file {name}): give another folder")
    try:
        config = json.loads((folder / "cfg.json").read_text())
        if not isinstance(config, dict) or not isinstance(config.get("metadata", {}), dict):
            raise ValueError("its cfg.json is not what sae-lens writes")
        inner = SAE.load_from_disk(folder, device=device, dtype="float32")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the SAE in {folder} cannot be read: {reason}") from error
    return wrap(inner, str(folder))


def _published(release: str, sae_id: str, device: str) -> Sae:
    """By sae-lens' names: "gpt2-small-res-jb", "blocks.8.hook_resid_pre"."""
    from sae_lens import SAE

    try:
        inner = SAE.from_pretrained(release, sae_id, device=device)
    except ValueError as error:
        raise UserError(str(error).partition("\n")[0]) from error
    except OSError as error:  # the hub's errors are OSErrors
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"cannot fetch {release}:{sae_id} ({reason}): check the network, or give a folder"
        ) from error
    return wrap(inner, f"{release}:{sae_id}")


def _check(name: str, sae: Sae, pursued: bool, model: str) -> None:
    """Refuse an SAE that cannot be right for what is asked of it."""
    if sae.reads:
        raise UserError(
            f"{name} is an SAE of the {sae.reads}, not of activations: give the SAEs of a site"
        )
    if pursued and sae.normalises:
        raise UserError(
            f"{name} normalises its input ({sae.normalises}), so x is not a sum of its atoms: "
            "leave it out, or use darkmatter run"
        )
    given, own = _plain(model), _plain(sae.model)
    if given in own or own in given:
        return
    if {given, own} <= {_plain(known) for known in (*WHEELS, *SHIPPED)}:
        raise UserError(f"{name} is an SAE of {sae.model}, not of {model}: give that --model")
    # a model has many names (hub ids, aliases, folders), so this may be the same one
    log.warning("%s says that it is an SAE of %s; it is used on %s", name, sae.model, model)


def _plain(model: str) -> str:
    """'HuggingFaceTB/SmolLM2-135M' -> 'smollm2135m': how models' names are compared."""
    return re.sub("[^a-z0-9]", "", Path(model).name.lower())
