"""Whether the files of a model hold what the model that transformers makes of them computes with.

transformers leaves out tensors that its model has no place for, and what it takes of two names for
one tensor is its own matter. `Weights` reads the files without a model, so what it would read is
held against the model's names, and once a model is loaded against its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

from ..errors import UserError
from .families import ModelSpec, Names
from .places import Kind, banks, place

if TYPE_CHECKING:
    from torch import Tensor

    from .tensor_files import Stored

LEFT_OUT = (
    "{folder} holds '{name}', which the model that its config.json describes has no place for: "
    "mend config.json or fetch it again"
)
_ROWS = 8
"""So many rows of each tensor are held against the model's."""


class Named(NamedTuple):
    """What one part is called, where there is one."""

    weight: str
    bias: str


def parts(spec: ModelSpec, there: Collection[str]) -> dict[str, Named]:
    """What the canonical views read, by what it is to the model, under the names that are there."""
    family, names = spec.family, Names(spec.family, there)

    def linear(name: str) -> Named:
        return Named(f"{name}.weight", f"{name}.bias")

    found = {"embedding": linear(names.embed), "unembedding": linear(names.head or family.head[0])}
    found["final norm"] = linear(names.final_norm)
    norms = (family.attn_norm, family.mlp_norm, family.attn_post_norm, family.mlp_post_norm)
    for layer in range(spec.n_layers):
        for name in filter(None, (*norms, family.value, family.output)):
            found[f"{layer}.{name}"] = linear(names.part(layer, name))
        for bank in banks(spec, names, layer):
            for kind in (kind for kind in get_args(Kind) if kind in spec.kinds):
                at = place(spec, names, kind, layer, bank)
                found[f"{layer}.{bank.prefix}{kind}"] = Named(at.stored, at.bias)
    return found


def biases(spec: ModelSpec, there: Collection[str]) -> dict[str, str]:
    """The biases that the canonical views would read, by what they are to the model."""
    named = parts(spec, there)
    return {part: names.bias for part, names in named.items() if names.bias in there}


def check_biases(
    folder: Path, spec: ModelSpec, there: Collection[str], model: Callable[[], Collection[str]]
) -> None:
    """Raise UserError for a bias or an offset in the files that the model has no place for.

    Args:
        there: the names of the files' tensors.
        model: makes the names of the tensors of the model that config.json describes; it is asked
            only where the files hold a bias.
    """
    held = biases(spec, there)
    known = biases(spec, model()) if held else {}
    for part, name in held.items():
        if part not in known:
            raise UserError(LEFT_OUT.format(folder=folder, name=name))


def check_numbers(
    spec: ModelSpec, stored: Mapping[str, Stored], loaded: Mapping[str, Tensor]
) -> None:
    """Raise UserError where some rows of the files are not those that the model in memory has.

    Experts that files hold one by one, or otherwise than the model, are left out.
    """
    ours, theirs = parts(spec, stored), parts(spec, loaded)
    for part in ours.keys() & theirs.keys():
        for name, own in zip(ours[part], theirs[part], strict=True):
            here, there = stored.get(name), loaded.get(own)
            if here is None or there is None or here.shape != tuple(there.shape):
                continue
            if not all(_same(row, there[at]) for at, row in _rows(here)):
                raise UserError(
                    f"'{name}' in {here.file} is not what the model runs with: fetch it again"
                )


def _rows(stored: Stored) -> Iterator[tuple[int, Tensor]]:
    """Some entries of the first axis, the first and the last among them."""
    from safetensors import safe_open

    n = stored.shape[0]
    with safe_open(stored.file, "pt") as file:
        view = file.get_slice(stored.name)
        for at in sorted({i * (n - 1) // (_ROWS - 1) for i in range(_ROWS)}):
            yield at, view[at : at + 1][0]


def _same(row: Tensor, other: Tensor) -> bool:
    import torch

    return bool(torch.equal(row.to(other.dtype), other.detach().cpu()))
