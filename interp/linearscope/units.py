"""The decisions of each kind of non-linear unit: what it does to z0 is replayed on z.

    relu, relu6, leaky_relu, prelu, hardtanh, hardsigmoid, clamp, abs     slope and offset of the
                                                                          piece that z0 lies on
    sigmoid, tanh, silu, gelu, elu, softplus, mish     mask g(z0) / z0, as in the paper, where
                                    |z0| > NEAR; the tangent g'(z0) z + g(z0) - g'(z0) z0 nearer 0
    hardswish                       mask hardsigmoid(z0): like SiLU, whose cheap twin it is. Between
                                    its outer pieces it is a parabola, which has no slope of its own
    a power of any of these         mask z0^(p - 1): ReLU^2 is ReLU(z0) ReLU(z)
    layer_norm, group_norm, instance_norm, rms_norm     scale of z0; the mean is linear and stays

Each is `unit(z0, *args, **kwargs)` and returns the affine function of z: with its linear part where
it adds something, a plain function where it is linear. Pools and sorts are in choices.py, attention
is in attention.py. After the paper's section 3; norms' frozen scales and patterns, and the tangent
near 0, are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .tape import Affine

Weight = Tensor | None
Linear = Callable[[Tensor], Tensor]
Decided = Affine | Linear
Unit = Callable[..., Decided]
_THROUGH_0 = (F.relu, F.leaky_relu, F.prelu, F.rrelu, torch.abs)
"""Pieces that are lines through 0: without an offset, not even that of rounding."""
NEAR = 1e-3
"""Below this |z0| the mask g(z0) / z0 is inexact, and infinite if g is not 0 at 0."""


def affine(slope: Tensor, offset: Tensor) -> Decided:
    """slope * z + offset, without the offset where it is 0 everywhere."""

    def linear(z: Tensor) -> Tensor:
        return z * slope

    if offset.count_nonzero():
        return Affine(lambda z: torch.addcmul(offset, slope, z), linear)
    return linear


def piece(function: Callable[..., Tensor]) -> Unit:
    """A unit that is linear in pieces: its slope by autograd, the offset from its value."""

    def unit(z0: Tensor, *args: Any, **kwargs: Any) -> Decided:
        slope, value = _slope(function, z0, *args, **kwargs)
        if function in _THROUGH_0:
            return lambda z: z * slope
        return affine(slope, torch.addcmul(value, slope, z0, value=-1))

    return unit


def mask(function: Callable[..., Tensor]) -> Unit:
    """A smooth unit: the mask g(z0) / z0, and the tangent near 0."""

    def unit(z0: Tensor, *args: Any, **kwargs: Any) -> Decided:
        flat = z0.flatten()
        value = function(flat, *args, **_out_of_place(kwargs))
        slope, offset = value / flat, torch.zeros_like(flat)
        near = (flat.abs() <= NEAR).nonzero()[:, 0]
        slope[near], there = _slope(function, flat[near], *args, **kwargs)
        offset[near] = there - slope[near] * flat[near]
        return affine(slope.view(z0.shape), offset.view(z0.shape))

    return unit


def _slope(
    function: Callable[..., Tensor], z0: Tensor, *args: Any, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        leaf = z0.detach().requires_grad_(True)
        value = function(leaf, *args, **_out_of_place(kwargs))
        (slope,) = torch.autograd.grad(value.sum(), leaf)
    return slope, value.detach()


def _out_of_place(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "inplace"}


def hardswish(z0: Tensor) -> Linear:
    """z hardsigmoid(z0): exact for every z0, so nothing is added."""
    ratio = F.hardsigmoid(z0)
    return lambda z: z * ratio


def power(z0: Tensor, exponent: float) -> Linear:
    """z z0^(exponent - 1), for an exponent of at least 1."""
    ratio = z0 ** (exponent - 1)
    return lambda z: z * ratio


def glu(z0: Tensor, dim: int = -1) -> Linear:
    """The first half times the frozen gate of the second."""
    gate = z0.chunk(2, dim)[1].sigmoid()
    return lambda z: z.chunk(2, dim)[0] * gate


def layer_norm(
    z0: Tensor, normalized_shape: Any, weight: Weight = None, bias: Weight = None, eps: float = 1e-5
) -> Decided:
    axes = tuple(range(-len(tuple(normalized_shape)), 0))
    scale = (z0.var(axes, correction=0, keepdim=True) + eps).rsqrt()
    return _centred(lambda z: z - z.mean(axes, keepdim=True), scale, weight, bias)


def rms_norm(
    z0: Tensor, normalized_shape: Any, weight: Weight = None, eps: float | None = None
) -> Linear:
    axes = tuple(range(-len(tuple(normalized_shape)), 0))
    eps = torch.finfo(z0.dtype).eps if eps is None else eps
    scale = (z0.pow(2).mean(axes, keepdim=True) + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    return lambda z: z * scale


def group_norm(
    z0: Tensor, num_groups: int, weight: Weight = None, bias: Weight = None, eps: float = 1e-5
) -> Decided:
    def grouped(z: Tensor) -> Tensor:
        return z.reshape(len(z), num_groups, -1)

    def centred(z: Tensor) -> Tensor:
        groups = grouped(z)
        return (groups - groups.mean(-1, keepdim=True)).reshape(z.shape)

    variance = grouped(z0).var(-1, correction=0, keepdim=True).expand_as(grouped(z0))
    scale = (variance.reshape(z0.shape) + eps).rsqrt()
    return _centred(centred, scale, _along(weight, z0), _along(bias, z0))


def batch_norm(
    z0: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Weight = None,
    bias: Weight = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Decided:
    """In evaluation mode. Not torch's own call: on a CPU, for a batch of one, the derivative of
    that is wrong where the gradient comes through a transpose (torch 2.13)."""
    scale = (running_var + eps).rsqrt()
    return _scaled(*(_along(each, z0) for each in (running_mean, scale, weight, bias)))


def instance_norm(
    z0: Tensor,
    running_mean: Weight = None,
    running_var: Weight = None,
    weight: Weight = None,
    bias: Weight = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Decided:
    if use_input_stats or running_mean is None or running_var is None:
        return group_norm(z0, z0.shape[1], weight, bias, eps)
    return batch_norm(z0, running_mean, running_var, weight, bias, eps=eps)


def _scaled(mean: Tensor, scale: Tensor, weight: Weight, bias: Weight) -> Affine:
    """(z - mean) * scale * weight + bias, with mean and scale given."""
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return Affine(lambda z: torch.addcmul(shift, z, scale), lambda z: z * scale)


def _centred(centred: Linear, scale: Tensor, weight: Weight, bias: Weight) -> Decided:
    """centred(z) * scale * weight + bias: a mean is linear, and only the scale is a decision."""
    scale = scale if weight is None else scale * weight
    if bias is None:
        return lambda z: centred(z) * scale
    return Affine(lambda z: torch.addcmul(bias, centred(z), scale), lambda z: centred(z) * scale)


def _along(channels: Any, x: Tensor) -> Any:
    return None if channels is None else channels.view(-1, *[1] * (x.ndim - 2))


def _functions(names: str) -> dict[str, Callable[..., Tensor]]:
    return {n: getattr(F, n) if hasattr(F, n) else getattr(torch, n) for n in names.split()}


PIECES = _functions("""
    relu relu6 hardtanh leaky_relu prelu hardsigmoid threshold _threshold rrelu hardshrink
    softshrink abs clamp clip clamp_min clamp_max
""")
MASKS = _functions("sigmoid tanh silu gelu elu selu celu softplus mish softsign") | {
    "log_sigmoid": F.logsigmoid,
    "hardswish": F.hardswish,
}
ACTIVATIONS: dict[str, Unit] = {
    **{name: piece(function) for name, function in PIECES.items()},
    **{name: mask(function) for name, function in MASKS.items()},
    "hardswish": lambda z0, inplace=False: hardswish(z0),
}
OTHERS: dict[str, Unit] = {
    "glu": glu,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
}
