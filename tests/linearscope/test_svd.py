"""Iterative singular triplets against dense ones, and systems whose answer is known."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from interp.errors import UserError
from interp.linearscope.interpreter import interpret
from interp.linearscope.svd import energy, singular_triplets

from .nets import Bottlenecks, Piecewise, Smooth, made


@pytest.mark.parametrize("kind", [Piecewise, Smooth])
def test_against_the_dense_svd(kind):
    net, x0 = made(kind)
    system = interpret(net, x0)
    dense = torch.linalg.svd(system.rows(torch.arange(5)).flatten(1))
    found = singular_triplets(system, 3)
    torch.testing.assert_close(found.values, dense.S[:3], rtol=1e-5, atol=0)
    assert float(found.residuals.max()) < 1e-4
    along = (found.right.flatten(1).double() * dense.Vh[:3]).sum(1).abs()
    torch.testing.assert_close(along, torch.ones(3).double(), rtol=1e-5, atol=0)
    whole, error = energy(system, 400)
    assert abs(whole - float(dense.S.square().sum())) < 4 * error


def test_a_matrix_that_is_small_beside_r():
    """In float32, of a network whose r is 1e7 times A x0; the dense one is of float64."""
    net, x0 = made(Bottlenecks)
    jacobian = torch.autograd.functional.jacobian(net, x0).reshape(6, -1)
    found = singular_triplets(interpret(net.float(), x0.float()), 3)
    expected = torch.linalg.svdvals(jacobian)[:3]
    torch.testing.assert_close(found.values, expected, rtol=1e-5, atol=0)
    assert float(found.residuals.max()) < 1e-5


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_matrices_whose_square_float32_does_not_hold(scale):
    torch.manual_seed(0)
    net = nn.Linear(30, 20).requires_grad_(False)
    net.weight.mul_(scale)
    found = singular_triplets(interpret(net, torch.randn(1, 30)), 3)
    expected = torch.linalg.svdvals(net.weight.double())[:3]
    torch.testing.assert_close(found.values, expected, rtol=1e-5, atol=0)


def test_a_matrix_of_zeros_is_said_to_be_one():
    system = interpret(lambda x: (x.abs() + 1).clamp(max=0), torch.randn(1, 30))
    with pytest.raises(UserError, match="A is 0"):
        singular_triplets(system, 3)


@pytest.mark.parametrize("seed", [0, 1, 27, 43, 52])
def test_a_circular_convolution(seed):
    """Its singular values are the sizes of its kernel's Fourier transform, and most occur twice.
    With the last three seeds ARPACK misses one of two equal values, unless it has spare ones."""
    torch.manual_seed(seed)
    conv = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular").double()
    system = interpret(conv, torch.randn(1, 1, 8, 8).double())
    kernel = F.pad(conv.weight.detach()[0, 0], (0, 5, 0, 5))
    expected = torch.fft.fft2(kernel).abs().flatten().sort(descending=True).values
    found = singular_triplets(system, 8)
    torch.testing.assert_close(found.values, expected[:8], rtol=1e-5, atol=0)


def test_columns_of_a_bicubic_upsampler_are_its_kernel():
    def net(x):
        return F.interpolate(x, scale_factor=2, mode="bicubic")

    system = interpret(net, torch.rand(1, 1, 12, 12).double())
    impulse = torch.zeros(1, 1, 12, 12).double()
    impulse[0, 0, 6, 6] = 1
    assert not system.r.any()
    torch.testing.assert_close(system.columns(torch.tensor([6 * 12 + 6])), net(impulse))


def test_too_many():
    net, x0 = made(Piecewise)
    with pytest.raises(UserError, match="a 5 x 243 matrix takes 1 to 4"):
        singular_triplets(interpret(net, x0), 5)
