"""Edits of neuron vectors in a model's weights, as small files that apply and unapply.

A `WeightEdit` holds some neurons' vectors before and after. In memory it is a context manager that
leaves the weights bit for bit as they were; on disk it makes an edited copy of a model's folder.
Naive equivalent for `29.down.808`:

    model.layers[29].mlp.down_proj.weight[:, 808] = new

The file (safetensors) holds `old` and `new` [n, d_model] float32, and in its metadata `neurons`
(their names) and `provenance`, both JSON. With the old vectors an edit can be undone, and is
refused for another model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import UserError
from ..model.neuron import NeuronName, check_neuron, parse_neuron
from ..model.places import Place
from ..model.remote_files import check_is_here
from ..model.subject import Subject
from ..model.weights import Weights
from ..plain_json import parsed
from ..runs.parts import check_part, exported
from ..runs.writer import save_tensors


@dataclass(frozen=True)
class WeightEdit:
    """Neuron vectors before and after; no neuron twice."""

    neurons: tuple[NeuronName, ...]
    old: Float[Tensor, "n d_model"]
    new: Float[Tensor, "n d_model"]
    provenance: dict[str, Any] = field(default_factory=dict)
    """Where the edit comes from, in plain JSON values."""

    def __post_init__(self) -> None:
        if not len(self.neurons) == len(set(self.neurons)) == len(self.old) == len(self.new):
            raise ValueError(f"{len(self.neurons)} neurons for {len(self.old)} vectors")
        if self.old.shape != self.new.shape or self.old.ndim != 2:
            raise ValueError(f"vectors {list(self.old.shape)} and {list(self.new.shape)}")
        if not torch.isfinite(self.old).all() or not torch.isfinite(self.new).all():
            raise ValueError("a vector holds a NaN or an infinity")

    def __len__(self) -> int:
        return len(self.neurons)

    def first(self, n: int) -> WeightEdit:
        return replace(self, neurons=self.neurons[:n], old=self.old[:n], new=self.new[:n])

    @property
    def inverse(self) -> WeightEdit:
        """The edit that takes this one back."""
        return replace(self, old=self.new, new=self.old)

    @classmethod
    def joined(cls, edits: Sequence[WeightEdit]) -> WeightEdit:
        """Several edits of different neurons as one."""
        neurons = tuple(neuron for edit in edits for neuron in edit.neurons)
        old, new = (torch.cat([getattr(e, side) for e in edits]) for side in ("old", "new"))
        return cls(neurons, old, new, {"joined": [edit.provenance for edit in edits]})

    @contextmanager
    def applied(self, subject: Subject) -> Iterator[Subject]:
        """The subject with edited weights, until the block is left.

        Raises:
            UserError: the subject's weights are not those the edit was made for.
        """
        if subject.weights is None:
            raise UserError("weight edits need a model that was opened from a folder")
        places = [_place(subject.weights, neuron) for neuron in self.neurons]
        views = [
            place.vectors(subject.parameter(place.parameter))[neuron.neuron]
            for place, neuron in zip(places, self.neurons, strict=True)
        ]
        for view, neuron, old in zip(views, self.neurons, self.old, strict=True):
            _check(view, neuron, old)
        kept = [view.clone() for view in views]
        try:
            with torch.no_grad():
                for view, new in zip(views, self.new, strict=True):
                    view.copy_(new)
            yield subject
        finally:
            with torch.no_grad():
                for view, before in zip(views, kept, strict=True):
                    view.copy_(before)

    def save(self, path: Path) -> None:
        """Raises UserError if the file cannot be written."""
        with exported(path) as making:
            self.write(making)

    def write(self, path: Path) -> None:
        """Raises OSError if the file cannot be written."""
        names = json.dumps([str(neuron) for neuron in self.neurons])
        about = {"neurons": names, "provenance": json.dumps(self.provenance)}
        save_tensors({"old": self.old, "new": self.new}, path, about)

    @classmethod
    def load(cls, path: Path) -> WeightEdit:
        """Raises UserError if there is no edit in the file, or it is not what its run wrote."""
        check_part(path)
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
                old, new = file.get_tensor("old"), file.get_tensor("new")
            names = parsed(about["neurons"], "'neurons'", kind=list)
            made = parsed(about["provenance"], "'provenance'")
            return cls(tuple(parse_neuron(str(name)) for name in names), old, new, made)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, UserError) as error:
            raise UserError(
                f"{path} holds no weight edit ({error}): `interp neurons tars` writes them"
            ) from error


def apply_to_folder(edit: WeightEdit, folder: Path, out: Path) -> None:
    """An edited copy of a model's folder, which opens like any other model.

    Raises:
        UserError: `out` exists already or cannot be written; the folder holds another model, or
            its weights are elsewhere.
    """
    check_is_here(folder)
    weights = Weights(folder)
    if out.exists() or folder.resolve() in out.resolve().parents:
        where = "exists already" if out.exists() else "lies in the model's own folder"
        raise UserError(f"{out} {where}: choose another folder")
    making = out.with_name(f".{out.name}.making")
    try:
        shutil.rmtree(making, ignore_errors=True)
        shutil.copytree(folder, making)
        places = [_place(weights, neuron) for neuron in edit.neurons]
        for shard in {making / weights.shard(place.stored).name for place in places}:
            tensors = load_file(shard)
            every = zip(edit.neurons, places, edit.old, edit.new, strict=True)
            for neuron, place, old, new in every:
                if place.stored in tensors:
                    view = place.vectors(tensors[place.stored])[neuron.neuron]
                    _check(view, neuron, old)
                    view.copy_(new)
            save_file(tensors, shard, {"format": "pt"})
        making.rename(out)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write {out} ({error}): choose another folder") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _place(weights: Weights, neuron: NeuronName) -> Place:
    """Where a neuron's vector is."""
    if neuron.expert:
        raise UserError(f"{neuron} is of an expert: weights are edited in dense layers only")
    try:
        check_neuron(neuron, weights)
    except UserError as error:
        reason = f"this model has no neuron {neuron}: the edit is of another model"
        raise UserError(reason) from error
    return weights.place(neuron.kind, neuron.layer)  # type: ignore[arg-type]


def _check(view: Tensor, neuron: NeuronName, old: Tensor) -> None:
    if view.shape != old.shape or not torch.equal(view.detach().cpu(), old.to(view.dtype)):
        raise UserError(
            f"{neuron} is not what it was when the edit was made: it is of another model"
        )
