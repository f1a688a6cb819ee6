"""Network: any torch module, read and edited at its submodules (a CNN, a probe, a toy model).

The same edits, Directions and sites as a language model's Subject; only what goes in differs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import UserError
from .backends.module import ModuleBackend
from .edits import Edit
from .hooked import Hooked
from .site import Site


class Network(Hooked):
    """A module that can be read and edited at its sites; made by `open_network`."""

    @torch.no_grad()
    def output(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """What the network gives, edits in scope applied."""
        return self._pass({"input": x.to(self.device)}, _positions)

    @torch.no_grad()
    def capture(
        self, x: Float[Tensor, "batch ..."], sites: Iterable[str | Site]
    ) -> dict[Site, Float[Tensor, "batch ... d"]]:
        """The activations at some sites (names or globs), edits in scope applied.

        Runs no further than the last of them and keeps nothing else.

        Raises:
            UserError: a site the network lacks.
        """
        return self._read({"input": x.to(self.device)}, _positions, sites)


def open_network(module: nn.Module, example: Float[Tensor, "batch ..."]) -> Network:
    """A private copy of a module, in evaluation mode, as a Network.

    Args:
        module: takes one tensor and gives one.
        example: an input; one pass over it shows which submodules there are to read.

    Raises:
        UserError: the module gives no tensor.
    """
    own = copy.deepcopy(module).eval().requires_grad_(False)
    device = next((p.device for p in own.parameters()), example.device)
    return Network(ModuleBackend(own, example.to(device)), device)


def _positions(edit: Edit, x: Tensor) -> Tensor:
    shape = x.shape[:-1]
    if edit.not_ids or edit.not_first:
        raise UserError(f"the edit at {edit.site} leaves out tokens, and these are none")
    if isinstance(edit.where, Tensor):
        if edit.where.shape != shape:
            raise UserError(
                f"the mask of the edit at {edit.site} is {list(edit.where.shape)}, the positions "
                f"there {list(shape)}"
            )
        return edit.where.to(x.device)
    if edit.where == "last":
        raise UserError(f"{edit.site} has no last position: edit all, or those of a mask")
    return torch.ones(shape, dtype=torch.bool, device=x.device)
