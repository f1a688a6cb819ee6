"""Where the vectors of neurons are: a dense layer's or an expert's matrix, or a stack of experts.

The table says where transformers has them in memory: the matrices of all experts of a layer in one
tensor, [experts, ...]. Files hold them so, or one by one, or under other names; which of them is
seen from the tensors that there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from .families import Experts, ModelSpec, Names, Part

Kind = Literal["up", "gate", "down"]
DENSE_ONLY = ("mlp_gate", "mlp_up", "mlp_post")
"""Kinds of site that a layer of experts does not have."""


class Bank(NamedTuple):
    """Neurons of a layer that stand together: its MLP's, or those of one of its experts."""

    expert: str
    """"", "e0", "e1", … or "shared"."""
    size: int
    number: int | None = None
    """Of an expert that is one of several."""

    @property
    def prefix(self) -> str:
        """What its neurons' names have between layer and kind."""
        return f"{self.expert}." if self.expert else ""


class Place(NamedTuple):
    """Where the vectors of a bank's neurons of one kind are."""

    stored: str
    """The matrix's name in the files."""
    shape: tuple[int, ...]
    """The matrix's; of a stack of them, the stack's."""
    rows: bool
    """Whether a neuron is a row of it (a column otherwise)."""
    span: slice
    """The rows or columns that are these neurons'; all of them in most families."""
    bias: str
    """The name of the projection's bias, where there is one."""
    entry: int | None = None
    """Which one of a stack."""
    parameter: str = ""
    """The matrix's name in transformers' causal-LM class; "" for one of several experts."""

    def within(self, neurons: slice) -> slice:
        """The rows or columns that are some of these neurons."""
        count = self.shape[-2 if self.rows else -1]
        chosen = range(count)[self.span][neurons]
        return slice(chosen.start, chosen.stop, chosen.step)

    def vectors(self, matrix: Tensor) -> Float[Tensor, "neurons d_model"]:
        """A view of the matrix with one row a neuron."""
        return matrix[self.span] if self.rows else matrix[:, self.span].T


def banks(spec: ModelSpec, names: Names, layer: int) -> tuple[Bank, ...]:
    """The neurons of a layer: one bank, or one an expert. A layer with a dense layer's tensors is a
    dense layer."""
    dense = f"{names.part(layer, spec.family.down)}.weight"
    if not spec.n_experts or dense in names.there:
        return (Bank("", spec.d_mlp),)
    found = [Bank(f"e{number}", spec.d_expert, number) for number in range(spec.n_experts)]
    return (*found, Bank("shared", spec.d_shared)) if spec.d_shared else tuple(found)


def place(spec: ModelSpec, names: Names, kind: Kind, layer: int, bank: Bank) -> Place:
    """Where the neurons of a bank of a layer are."""
    family, experts = spec.family, spec.family.experts
    if experts and bank.number is not None:
        return _of_expert(spec, experts, names, kind, layer, bank)
    part = _part(getattr(family, kind))
    own = part.name
    if experts and bank.expert:
        own = f"{experts.shared}.{own.rpartition('.')[2]}"
    rows = (kind == "down") == family.transposed
    stored, shape = names.part(layer, own), (part.of * bank.size, spec.d_model)
    return Place(
        stored=f"{stored}.weight",
        shape=shape if rows else shape[::-1],
        rows=rows,
        span=part.span(bank.size),
        bias=f"{stored}.bias",
        parameter=f"{family.layer.format(layer)}.{own}.weight",
    )


def _of_expert(
    spec: ModelSpec, experts: Experts, names: Names, kind: Kind, layer: int, bank: Bank
) -> Place:
    """One of several experts, by itself or in the stack of all."""
    down = kind == "down"
    alone = names.part(layer, experts.alone[kind].format(bank.number))
    if f"{alone}.weight" in names.there:
        shape = (bank.size, spec.d_model)
        return Place(
            stored=f"{alone}.weight",
            shape=shape[::-1] if down else shape,
            rows=not down,
            span=slice(None),
            bias=f"{alone}.bias",
        )
    part = _part(getattr(experts, kind))
    rows = down == experts.transposed
    shape = (part.of * bank.size, spec.d_model)
    stack = names.part(layer, part.name)
    if stack not in names.there:
        stack = names.part(layer, experts.renamed.get(part.name, part.name))
    return Place(
        stored=stack,
        shape=(spec.n_experts, *(shape if rows else shape[::-1])),
        rows=rows,
        span=part.span(bank.size),
        bias=f"{stack}_bias",
        entry=bank.number,
    )


def expert_reason(spec: ModelSpec, layer: int) -> str:
    """Why the neurons of a layer of experts have no site of their own."""
    return (
        f"each token passes a few of layer {layer}'s {spec.n_experts} experts only, so a neuron "
        "there has no activation at every position"
    )


def _part(named: Part | str) -> Part:
    from .families import Part

    return named if isinstance(named, Part) else Part(named)
