"""The affine system that a network is for one input: products with A, its adjoint, and r.

    y = LI(x1) = A x1 + r,   LI(x0) = f(x0);   A u by one pass without constants, A^T v by one back

A (outputs x inputs) is never formed. Every interpreter is checked when it opens, in its own
precision: A x0 + r = f(x0), and <A u, v> = <u, A^T v>. Equivalent, for a small network that is
linear in pieces:

    A = torch.autograd.functional.jacobian(f, x0);  r = f(x0) - A @ x0

Tanh masks and frozen norms are where A is *not* the Jacobian.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import UserError
from .rules import apply
from .tape import Dual, Program, Tape, Unrolled

_AT_ONCE = {"cpu": 1 << 15}
"""How many input numbers run at once; 2^24 on other devices. On a CPU a batch that leaves the cache
is slower than its rows one by one (EfficientNet-Lite0 at 224 x 224, 64 rows: 3.5 s by 16, 2.0 s one
by one)."""

_ESCAPES = (
    "something in this network escapes the interpreter (memory written under two names, or numbers "
    "from outside torch)"
)
_UNEQUAL = "a call in this network has another derivative than its rule replays"


class Interpreter:
    """A network with the decisions that it takes for `x0`; made by `interpret`. It shares the
    network's weights: make another interpreter when they change.

    `x0` [1, ...] is the input, `y` [1, ...] = f(x0), `r` [1, ...] = LI(0).
    """

    def __init__(self, program: Program, x0: Tensor, y: Tensor, rounds: bool = False) -> None:
        """`rounds`: the network computes in float32 somewhere, though its input is float64."""
        self._program, self.x0, self.y = program, x0, y
        self._chunk = max(1, _AT_ONCE.get(x0.device.type, 1 << 24) // x0.numel())
        self._leaf = torch.zeros_like(x0).requires_grad_(True)
        with torch.enable_grad():
            self._out = program(self._leaf)
        self.r: Tensor = self._out.detach()
        self._check(torch.float32 if rounds else y.dtype)

    @torch.no_grad()
    def __call__(self, x1: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """LI(x1): other inputs through the system that x0 chose."""
        return self._each(self._program, x1)

    @torch.no_grad()
    def matvec(self, u: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """A u, for a batch of u of the input's shape: the linear part alone, without r."""
        return self._each(self._program.linear, u)

    def _each(self, one: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
        """A function of one input, of each in a batch."""
        several = torch.vmap(one)
        return torch.cat([
            one(chunk) if len(chunk) == 1 else several(chunk[:, None])[:, 0]
            for chunk in torch.split(self._fitting(given, self.x0), self._chunk)
        ])  # fmt: skip

    def rmatvec(self, v: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """A^T v, for a batch of v of the output's shape."""
        products = []
        batched = self._chunk > 1  # torch's vmap costs more than one pass alone
        for chunk in torch.split(self._fitting(v, self.y), self._chunk):
            given = chunk[:, None] if batched else chunk
            (product,) = torch.autograd.grad(
                self._out, self._leaf, given, retain_graph=True, is_grads_batched=batched
            )
            products.append(product[:, 0] if batched else product)
        return torch.cat(products)

    def rows(self, outputs: Int[Tensor, " n"]) -> Float[Tensor, "n ..."]:
        """Rows of A for some indices of the flattened output: what each number is made of."""
        return self.rmatvec(_basis(outputs, self.y))

    def columns(self, inputs: Int[Tensor, " n"]) -> Float[Tensor, "n ..."]:
        """Columns of A for some indices of the flattened input: impulse responses."""
        return self.matvec(_basis(inputs, self.x0))

    def votes(self, outputs: Int[Tensor, " n"]) -> Float[Tensor, "n ..."]:
        """row * x0, of the input's shape; y_c = sum of the votes + r_c."""
        return self.rows(outputs) * self.x0

    def constants(self, outputs: Int[Tensor, " n"]) -> dict[str, Float[Tensor, " n"]]:
        """r of some outputs, split by submodule; the values add up to r.

        A submodule's value is the constants that it adds to any input (a bias, a norm's mean, the
        offset of an activation) times the gradient of the output with respect to them.
        """
        unrolled = self._program.unrolled(torch.zeros_like(self.x0))
        out, added = unrolled.output, unrolled.constants
        _basis(outputs, self.y)  # raises if one is out of range
        by_module: dict[str, Tensor] = {}
        for n, index in enumerate(outputs.tolist() if added else []):
            gradients = torch.autograd.grad(
                out.flatten()[index], [c.leaf for c in added], retain_graph=True, allow_unused=True
            )
            for constant, gradient in zip(added, gradients, strict=True):
                if gradient is not None:
                    none_yet = torch.zeros(len(outputs), dtype=torch.float64)
                    total = by_module.setdefault(constant.module, none_yet)
                    total[n] += float((gradient * constant.leaf.detach()).double().sum())
        return by_module

    def unrolled(self, keep: Collection[int], cut: Collection[int] = ()) -> Unrolled:
        """The system at x0 with its graph, and what it makes in between.

        Args:
            keep: slots of the Duals that the network's code met (0 is the input).
            cut: of those, slots behind which everything begins anew, as leaves.
        """
        with torch.enable_grad():
            return self._program.unrolled(self.x0.clone().requires_grad_(True), keep, cut)

    def _check(self, network: torch.dtype) -> None:
        """Raise UserError unless A x0 + r = f(x0), to the type that the network computes in, and
        <A u, v> = <u, A^T v>, to the interpreter's own."""
        ahead = self.matvec(self.x0)
        scale = torch.stack([t.abs().max() for t in (ahead, self.r, self.y)]).max()
        error = (ahead + self.r - self.y).abs().max()
        _refuse(error, scale, network, "A x0 + r = f(x0)", _ESCAPES)
        random, tiny = torch.Generator().manual_seed(0), torch.finfo(self.y.dtype).tiny
        u = self.x0
        if 2 * int(u.count_nonzero()) < u.numel():  # x0 tells little, or nothing where it is 0
            u = _signs(u, random)
            ahead = self.matvec(u)
        # along A u the two sides are large; every other direction has its share
        v = ahead / ahead.abs().max().clamp_min(tiny) + _signs(self.y, random)
        u, v, ahead, back = (t.double() for t in (u, v, ahead, self.rmatvec(v)))
        difference = (ahead * v).sum() - (u * back).sum()
        scale = ahead.norm() * v.norm() + u.norm() * back.norm()
        _refuse(difference.abs(), scale, self.y.dtype, "<A u, v> = <u, A^T v>", _UNEQUAL)

    @staticmethod
    def _fitting(given: Tensor, like: Tensor) -> Tensor:
        if given.shape[1:] != like.shape[1:]:
            raise UserError(f"the shape {list(given.shape[1:])} is not {list(like.shape[1:])}")
        return given.to(like)


def interpret(
    network: nn.Module | Callable[[Tensor], Tensor],
    x0: Float[Tensor, "1 ..."],
    inside: nn.Module | None = None,
    halves: bool = False,
) -> Interpreter:
    """The linear interpreter of a network at one input.

    Args:
        network: takes one tensor and returns one; a module runs in evaluation mode, and its own
            mode is restored.
        x0: [1, ...] one input.
        inside: the module whose parts a function runs, for their names.
        halves: both factors of a product of two activations carry a half of it (layer-wise
            relevance propagation); by default the gate is frozen.

    Raises:
        UserError: a non-linear call that no rule replays (the message names it), several inputs,
            or values that are not finite.
    """
    if x0.ndim == 0 or len(x0) != 1:
        raise UserError(f"one input [1, ...] at a time, not {list(x0.shape)}")
    if x0.dtype not in (torch.float32, torch.float64):
        raise UserError(f"the input is {x0.dtype}: give float32 or float64")
    module = network if isinstance(network, nn.Module) else None
    for name, child in module.named_modules() if module is not None else ():
        if isinstance(child, torch.jit.ScriptModule):
            raise UserError(f"{name or 'the network'} is TorchScript, which cannot be followed: "
                            "give the module it was made from")  # fmt: skip
    if not x0.isfinite().all():
        raise UserError("the input has values that are not finite")
    training = [child for child in module.modules() if child.training] if module is not None else []
    tape = Tape(apply, x0.dtype, halves)
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        # transformer layers' one call for everything, which no tape sees into; where it pads, it
        # gives other numbers than the layers' own code
        torch.backends.mha.set_fastpath_enabled(False)
        if module is not None:
            module.eval()
        with torch.no_grad():
            plain = network(x0.clone())
            with tape.following(module or inside):
                out = network(Dual(x0.clone(), 0, tape))  # type: ignore[arg-type]
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for child in training:
            child.training = True
    if not isinstance(plain, Tensor):
        raise UserError(f"the network returns a {type(plain).__name__}, not a tensor: wrap it")
    if plain.ndim == 0 or len(plain) != 1:
        raise UserError(f"the network returns the shape {list(plain.shape)}, not [1, ...]")
    if not isinstance(out, Dual):
        raise UserError("the output does not depend on the input through torch's calls")
    program = Program(tape.steps, out.activation("the output"))
    if bad := int((~plain.isfinite()).sum()):
        raise UserError(
            f"{bad} of the network's own {plain.numel()} output numbers are NaN or infinite"
            f"{program.first_not_finite(x0)}: look at its weights, its statistics and the input"
        )
    return Interpreter(program, x0, plain.to(out.reference.dtype), tape.rounds)


def _refuse(error: Tensor, scale: Tensor, dtype: torch.dtype, identity: str, cause: str) -> None:
    """Raise UserError for an error that is no rounding."""
    relative = float(error / scale) if scale else 0.0
    # the root of epsilon: norms of nearly constant inputs make rounding errors some thousand
    # times larger, and a call that escapes makes an error as large as its effect
    if not relative <= torch.finfo(dtype).eps ** 0.5:
        other = ", or it needs float64" if dtype == torch.float32 else ""
        raise UserError(f"{identity} is off by {relative:.1e} of its size: {cause}{other}")


def _signs(like: Tensor, random: torch.Generator) -> Tensor:
    """Random 1 and -1 of the shape of `like`."""
    return (torch.randint(0, 2, like.shape, generator=random) * 2 - 1).to(like)


def _basis(indices: Tensor, like: Tensor) -> Tensor:
    """The unit vectors of some indices, [n, ...] of the shape of `like`."""
    size = like[0].numel()
    outside = indices[(indices < 0) | (indices >= size)]
    if len(outside):
        raise UserError(f"no index {int(outside[0])}: the last is {size - 1}")
    units = torch.zeros(len(indices), size, dtype=like.dtype, device=like.device)
    units[torch.arange(len(indices)), indices] = 1
    return units.view(len(indices), *like.shape[1:])
