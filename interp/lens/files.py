"""Lenses by name, and the files they are in.

a name       tuned or jacobian: the newest fit of the model in the store, else a shipped one
a run        its folder, or the first letters of its key
.safetensors T [layers, d_model, d_model], of a tuned lens b [layers, d_model], in float32 or
             float16; `lens` of the metadata: name, model, fingerprint of its weights,
             n_prompts, source_layers
.pt          as published: J by layer, n_prompts, source_layers, d_model
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from interp.data import FOLDER

from ..errors import UserError
from ..model.allowed import check_place_allowed
from ..model.catalog import known_as
from ..model.files import sha256
from ..model.weights import Weights
from ..plain_path import found
from ..plain_tensors import read_tensors
from ..progress import log
from ..runs.halves import halved
from ..runs.parts import check_part, exported
from ..runs.store import Store
from ..runs.writer import save_tensors
from .lens import PLAIN, Lens

FILE = "lens.safetensors"
STUDIES = {"jacobian": "lens.fit", "tuned": "lens.tune"}
"""What makes each kind."""
SHIPPED = FOLDER / "lens"
FORMS = (
    "a lens is raw, final, tuned, jacobian, the folder or key of a run of `interp lens fit` or "
    "`interp lens tune`, or a .safetensors or .pt file"
)


def open_lens(asked: str, weights: Weights) -> Lens:
    """A lens by name, or from a file or a run.

    Args:
        asked: raw, final; tuned, jacobian; the folder or the key of a run of `interp lens fit` or
            `tune`; or a .safetensors or published .pt file.

    Raises:
        UserError: none there, a damaged one, or one of another model's sizes.
    """
    if asked in PLAIN:
        return Lens(weights, asked)
    if asked in STUDIES:
        return _opened(_newest(asked, weights), weights)
    path = found(asked)
    if path or "/" in asked:
        check_place_allowed("a lens", asked)
    if not path and re.fullmatch("[0-9a-f]{4,}", asked):
        path = Store().find(asked).path
    file = path / FILE if path and path.is_dir() else path
    if not file or not file.is_file():
        raise UserError(f"{_why_not(asked, path)}: {FORMS}")
    return _opened(file, weights)


def _why_not(asked: str, path: Path | None) -> str:
    """Why what was asked for is no lens."""
    if path:
        return f"{path} has no {FILE}" if path.is_dir() else f"{path} is no file"
    if "/" in asked or asked.endswith((".pt", ".safetensors")):
        return f"there is no file or folder '{asked}'"
    return f"'{asked}' is no lens, and no file or folder"


def _newest(name: str, weights: Weights) -> Path:
    """The file of the model's newest lens of a kind, in the store or else shipped."""
    own = weights.fingerprint()
    for run in Store().runs(STUDIES[name]):
        if run.manifest["fingerprints"].get("model") == own:
            log.info("%s lens: %s", name, run.path)
            return run.part(FILE)
    for path in sorted(SHIPPED.glob(f"*/{FILE}")):
        about = _about(read_tensors(path).about)
        if about["name"] == name and about["fingerprint"] == own:
            log.info("%s lens: the shipped one, %s", name, path.parent.name)
            return path
    model = known_as(weights.folder)
    verb = STUDIES[name].partition(".")[2]
    raise UserError(
        f"no {name} lens of {model} is stored: make one with `interp lens {verb} --model {model}`"
    )


def _opened(path: Path, weights: Weights) -> Lens:
    """The lens in a file, checked against a model."""
    with _readable(path):
        lens = _published(path, weights) if path.suffix == ".pt" else _stored(path, weights)
    width, layers = weights.spec.d_model, weights.spec.n_layers
    for layer, fitted in lens.maps.items():
        if fitted.shape != (width, width) or not 0 <= layer < layers:
            sizes = " by ".join(map(str, fitted.shape))
            raise UserError(
                f"{path} has a map of {sizes} after layer {layer}: {weights} has {layers} layers "
                f"of {width} numbers"
            )
        bias = lens.biases.get(layer, torch.zeros(width))
        if bias.shape != (width,):
            raise UserError(f"{path}: its bias after layer {layer} has not {width} numbers")
        if not bool(fitted.isfinite().all() and bias.isfinite().all()):
            raise UserError(f"{path} holds a NaN or an infinity after layer {layer}: fit it again")
    return replace(lens, source=str(path), fingerprint=sha256(path))


def _stored(path: Path, weights: Weights) -> Lens:
    check_part(path)
    tensors, metadata = read_tensors(path)
    about = _about(metadata)
    if about["fingerprint"] not in ("", weights.fingerprint()):
        log.warning("%s is a lens of %s, not of %s", path, about["model"], weights)
    layers = about["source_layers"]
    maps = tensors["T"] if "T" in tensors else tensors["J"]  # as first fits named it
    biases = tensors.get("b", torch.zeros(0, maps.shape[-1]))
    return Lens(
        weights,
        about["name"],
        dict(zip(layers, maps.float(), strict=True)),
        int(about["n_prompts"]),
        dict(zip(layers, biases.float(), strict="b" in tensors)),
    )


def _about(metadata: dict[str, str]) -> dict[str, Any]:
    """What the file says of itself; the first fits do not say their kind and fingerprint."""
    return {"name": "jacobian", "fingerprint": "", **json.loads(metadata["lens"])}


def _published(path: Path, weights: Weights) -> Lens:
    stored = torch.load(path, map_location="cpu", weights_only=True)
    maps = {int(layer): fitted.float() for layer, fitted in stored["J"].items()}
    return Lens(weights, "jacobian", maps, prompts=int(stored["n_prompts"]))


def tensors_of(lens: Lens) -> dict[str, Tensor]:
    """What `lens.safetensors` holds of it."""
    layers = sorted(lens.maps)
    tensors = {"T": torch.stack([lens.maps[layer] for layer in layers]).float()}
    if lens.biases:
        tensors["b"] = torch.stack([lens.biases[layer] for layer in layers]).float()
    return tensors


def said_of(lens: Lens) -> dict[str, str]:
    """The metadata of `lens.safetensors`."""
    about = {
        "name": lens.name,
        "model": known_as(lens.weights.folder),
        "fingerprint": lens.weights.fingerprint(),
        "n_prompts": lens.prompts,
        "source_layers": sorted(lens.maps),
    }
    return {"lens": json.dumps(about)}


def export(lens: Lens, path: Path, half: bool = False) -> None:
    """Write a fitted lens as a file of its own: .safetensors, or a Jacobian one as published, .pt.

    Args:
        half: in float16, in half of the space.

    Raises:
        UserError: a lens that is not fitted, another ending, or a file that cannot be written.
    """
    if not lens.maps:
        raise UserError(f"the {lens.name} lens is the identity: there is nothing to export")
    if path.suffix not in (".pt", ".safetensors"):
        raise UserError(f"a lens is exported as .pt or .safetensors, not as '{path.name}'")
    if path.suffix == ".pt" and lens.name != "jacobian":
        raise UserError("the published .pt files have no bias: export a tuned lens as .safetensors")
    tensors = halved(tensors_of(lens)) if half else tensors_of(lens)
    with exported(path) as making:
        if path.suffix == ".pt":
            layers = sorted(lens.maps)
            published = {
                "J": dict(zip(layers, tensors["T"], strict=True)),
                "n_prompts": lens.prompts,
                "source_layers": layers,
                "d_model": lens.weights.spec.d_model,
            }
            _save_published(published, making)
        else:
            save_tensors(tensors, making, said_of(lens))


def _save_published(published: dict[str, Any], path: Path) -> None:
    """torch.save, whose failures to write are OSErrors as any other file's."""
    with path.open("wb") as file:
        try:
            torch.save(published, file)
        except RuntimeError as error:  # of torch's own, raised while it handles the file's
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except UnpicklingError as error:
        raise UserError(f"cannot read {path}, it holds more than tensors and numbers") from error
    except (
        *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError),
        RuntimeError,
    ) as error:
        raise UserError(f"cannot read {path}: it is damaged, or no lens") from error
