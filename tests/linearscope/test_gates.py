"""Which factor of a product is frozen: each against the same product with that factor written as a
number."""

import pytest
import torch
import torch.nn.functional as F

from interp.errors import UserError
from interp.linearscope.interpreter import interpret

RANDOM = torch.Generator().manual_seed(5)
W, V, K = (torch.randn(4, 4, generator=RANDOM, dtype=torch.float64) for _ in range(3))
KERNEL = torch.randn(4, 4, 3, 3, generator=RANDOM, dtype=torch.float64)


def gate(x):
    return torch.sigmoid(x.mean((2, 3), keepdim=True))


def tokens(x):
    return x.flatten(2).mT


def linear_attention(x, q=None, k=None):
    """relu(q) (relu(k)^T v) over the 36 places of a picture."""
    q = F.relu(tokens(x) @ W) if q is None else q
    k = F.relu(tokens(x) @ K) if k is None else k
    return q @ (k.mT @ (tokens(x) @ V))


def factorised(x, q=None, k=None):
    """CoaT's: q (softmax(k)^T v) + q conv(v). The same q is frozen in both."""
    q = tokens(x) @ W if q is None else q
    k = (tokens(x) @ K).softmax(1) if k is None else k
    v = tokens(x) @ V
    local = tokens(F.conv2d(v.mT.reshape(x.shape), KERNEL, padding=1))
    return q @ (k.mT @ v) + q[:, :, :] * local


def lambdas(x, q=None, k=None):
    """LambdaNetwork's: the frozen q is used again after a view."""
    q = tokens(x) @ W if q is None else q
    k = (tokens(x) @ K).softmax(1) if k is None else k
    v = tokens(x) @ V
    content = q @ (k.mT @ v)
    place = (v.unsqueeze(-2) * W).mT
    return content + (q.unsqueeze(-2) @ place).squeeze(-2)


# each: the network, and the same as a function of u with what is frozen computed from x0
GATED = {
    "expand_as": (lambda x: x * gate(x).expand_as(x), lambda u, x0: u * gate(x0)),
    "view_as": (lambda x: x * gate(x).expand(x.shape).view_as(x), lambda u, x0: u * gate(x0)),
    "reshape_as": (lambda x: x * gate(x).expand(x.shape).reshape_as(x), lambda u, x0: u * gate(x0)),
    "type_as": (lambda x: x * gate(x).type_as(x), lambda u, x0: u * gate(x0)),
    "to": (lambda x: x * gate(x).to(x), lambda u, x0: u * gate(x0)),
    "to, named": (lambda x: x * gate(x).to(tensor=x), lambda u, x0: u * gate(x0)),
    "interpolate": (
        lambda x: x * F.interpolate(torch.sigmoid(F.avg_pool2d(x, 2)), size=x.shape[2:]),
        lambda u, x0: u * torch.sigmoid(F.avg_pool2d(x0, 2)).repeat_interleave(2, 2)
        .repeat_interleave(2, 3),
    ),
    "avg_pool": (
        lambda x: x[:, :, ::2, ::2] * F.avg_pool2d(torch.sigmoid(x), 2),
        lambda u, x0: u[:, :, ::2, ::2]
        * torch.sigmoid(x0).unflatten(2, (3, 2)).unflatten(4, (3, 2)).mean((3, 5)),
    ),
    "mean": (
        lambda x: x * torch.sigmoid(x).mean((2, 3), keepdim=True),
        lambda u, x0: u * torch.sigmoid(x0).mean((2, 3), keepdim=True),
    ),
    "max_pool": (
        lambda x: x * F.adaptive_max_pool2d(torch.sigmoid(x), 1),
        lambda u, x0: u * torch.sigmoid(x0).amax((2, 3), keepdim=True),
    ),
    "conv": (
        lambda x: x * F.conv2d(torch.sigmoid(x), KERNEL, padding=1),
        lambda u, x0: u * F.conv2d(torch.sigmoid(x0), KERNEL, padding=1),
    ),
    "a sum of gates": (
        lambda x: x * (torch.sigmoid(x) + torch.sigmoid(2 * x)),
        lambda u, x0: u * (torch.sigmoid(x0) + torch.sigmoid(2 * x0)),
    ),
    "relu": (
        lambda x: F.relu(x) * F.conv2d(x, KERNEL, padding=1),
        lambda u, x0: F.relu(x0) * F.conv2d(u, KERNEL, padding=1),
    ),
    "relu6, a sum of it": (
        lambda x: x * F.relu6(x).sum(1, keepdim=True),
        lambda u, x0: u * F.relu6(x0).sum(1, keepdim=True),
    ),
    "a SiLU before a sigmoid behind weights": (
        lambda x: F.silu(x) * F.conv2d(torch.sigmoid(x), KERNEL, padding=1),
        lambda u, x0: F.silu(x0)
        * F.conv2d(u * torch.sigmoid(x0) / x0, KERNEL, padding=1),
    ),
    "relu before a sigmoid behind weights": (
        lambda x: F.relu(x) * F.conv2d(torch.sigmoid(x), KERNEL, padding=1),
        lambda u, x0: u * (x0 > 0) * F.conv2d(torch.sigmoid(x0), KERNEL, padding=1),
    ),
    "linear attention": (
        linear_attention,
        lambda u, x0: linear_attention(u, F.relu(tokens(x0) @ W), F.relu(tokens(x0) @ K)),
    ),
    "factorised attention": (
        factorised,
        lambda u, x0: factorised(u, tokens(x0) @ W, (tokens(x0) @ K).softmax(1)),
    ),
    "lambda layers": (
        lambdas,
        lambda u, x0: lambdas(u, tokens(x0) @ W, (tokens(x0) @ K).softmax(1)),
    ),
    "after attention a plain factor": (
        lambda x: ((tokens(x) @ tokens(x).mT).softmax(-1) @ tokens(x)) * (tokens(x) @ W),
        lambda u, x0: ((tokens(x0) @ tokens(x0).mT).softmax(-1) @ tokens(u)) * (tokens(x0) @ W),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GATED)
def test_the_gate_is_what_is_frozen(name):
    net, frozen = GATED[name]
    x0, u = torch.randn(2, 1, 4, 6, 6, generator=RANDOM.manual_seed(2), dtype=torch.float64)
    x0 = torch.where(x0.abs() < 0.01, 0.5, x0)  # away from 0 every mask is g(z) / z
    system = interpret(net, x0)
    expected = frozen(u, x0)
    torch.testing.assert_close(system.matvec(u), expected, rtol=1e-12, atol=1e-12)
    v = torch.randn(expected.shape, generator=RANDOM, dtype=torch.float64)
    ahead, back = (expected * v).sum(), (system.rmatvec(v) * u).sum()
    torch.testing.assert_close(back, ahead, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(system.r, net(x0) - frozen(x0, x0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "net",
    [
        lambda x: F.relu(x) * F.relu(x),
        lambda x: F.conv2d(x, KERNEL) * F.conv2d(F.relu(x), KERNEL),
        lambda x: F.conv2d(F.silu(x), KERNEL) * F.conv2d(x, KERNEL),
        lambda x: torch.sigmoid(x) * torch.sigmoid(2 * x),
    ],
)
def test_where_nothing_says_which_is_the_gate_it_is_refused(net):
    with pytest.raises(UserError, match=r"mul\(\) in the network itself is not linear"):
        interpret(net, torch.randn(1, 4, 6, 6, dtype=torch.float64))


def test_a_pattern_may_be_assembled_by_assignment():
    """MViT adds position scores to a part of its attention scores."""

    def pattern(x):
        scores = tokens(x) @ tokens(x).mT
        scores[:, 1:, 1:] = scores[:, 1:, 1:] + 0.3 * scores[:, :-1, :-1]
        return scores.softmax(-1)

    x0, u = torch.randn(2, 1, 4, 2, 2, dtype=torch.float64)
    system = interpret(lambda x: pattern(x) @ tokens(x), x0)
    torch.testing.assert_close(system.matvec(u), pattern(x0) @ tokens(u))

    def mixed(x):
        y = 2 * tokens(x)
        y[:, 0] = y[:, 1].softmax(-1)
        return y

    with pytest.raises(UserError, match=r"softmax\(\) in the network itself is not linear"):
        interpret(mixed, x0)
