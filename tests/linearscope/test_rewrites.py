"""Calls that are written out in others: what is linear in pieces has autograd's Jacobian, and the
rest the matrix that plain float64 arithmetic with frozen numbers gives."""

import pytest
import torch
import torch.nn.functional as F

from interp.linearscope.interpreter import interpret

NUMBERS = torch.Generator().manual_seed(7)
VECTOR, SQUARE, CUBE = (
    torch.randn(*shape, generator=NUMBERS, dtype=torch.float64)
    for shape in ((16,), (16, 16), (4, 16, 16))
)
ROW = torch.tensor([[3, 0, 7, 7], [1, 2, 2, 0]])[None]
PLACES = torch.tensor([5, 0, 9, 9])


def unpooled(x):
    values, places = F.max_pool1d(x, 4, return_indices=True)
    return F.max_unpool1d(values, places, 4)


PIECES = {
    "max along a dimension": lambda x: x.max(-1).values,
    "max, the dimension named": lambda x: torch.max(x, dim=1, keepdim=True)[0],
    "min along a dimension": lambda x: x.min(1).values,
    "max of all": lambda x: x.max() + x,
    "max of two": lambda x: torch.max(x, x.flip(-1)),
    "min of two": lambda x: torch.min(x, other=VECTOR),
    "maximum": lambda x: torch.maximum(x, 2 * x + 1),
    "fmin": lambda x: torch.fmin(x, VECTOR),
    "amax": lambda x: x.amax((1, -1), keepdim=True),
    "amax of all": lambda x: x * 2 - x.amax(),
    "amin": lambda x: torch.amin(x, dim=-2),
    "sort": lambda x: x.sort(-1, descending=True).values,
    "sort, a dimension in the middle": lambda x: torch.sort(x, dim=1)[0],
    "msort": lambda x: x[0].msort()[None],
    "topk": lambda x: x.topk(3, dim=-1).values,
    "kthvalue": lambda x: x.kthvalue(4, -1, keepdim=True).values,
    "median": lambda x: x.median(-1)[0],
    "median of all": lambda x: x - x.median(),
    "cummax": lambda x: x.cummax(-1).values,
    "pool": lambda x: F.max_pool1d(x, 3, 2, 1),
    "pool in two dimensions": lambda x: F.max_pool2d(x.view(1, 2, 4, 4), 3, 1, padding=1),
    "pool in three dimensions": lambda x: F.max_pool3d(x.view(1, 1, 2, 4, 4), 2),
    "adaptive pools": lambda x: F.adaptive_max_pool1d(x, 5),
    "an adaptive pool in two dimensions": lambda x: F.adaptive_max_pool2d(x.view(1, 2, 4, 4), 3),
    "an adaptive pool in three dimensions": lambda x: F.adaptive_max_pool3d(
        x.view(1, 1, 2, 4, 4), (1, 2, 3)
    ),
    "a pool with places": lambda x: F.max_pool2d(x.view(1, 2, 4, 4), 2, return_indices=True)[0],
    "unpooled": unpooled,
    "an adaptive pool with places": lambda x: F.adaptive_max_pool1d(x, 4, return_indices=True)[0],
    "scatter": lambda x: torch.scatter(x, -1, ROW[..., :2], 2 * x[..., :2]),
    "scatter_add": lambda x: x.scatter_add(-1, ROW, x[..., 4:8]),
    "scatter_add in place": lambda x: (3 * x).scatter_add_(-1, ROW, x[..., 4:8]),
    "index_add": lambda x: torch.index_add(x, -1, PLACES, x[..., :4], alpha=3),
    "index_copy": lambda x: x.index_copy(-1, PLACES[:3], x[..., 4:7]),
    "index_put": lambda x: x[0].index_put((PLACES[:2] % 2, PLACES[2:]), x[0, 0, :2], True)[None],
    "masked_scatter": lambda x: x.masked_scatter(VECTOR > 0, 2 * x.flip(-1)),
    "slice_scatter": lambda x: x.slice_scatter(x[..., :4], -1, 8, 12),
    "addcmul": lambda x: torch.addcmul(VECTOR, x, VECTOR, value=0.5),
    "addcmul onto the input": lambda x: x.addcmul(VECTOR, VECTOR, value=-2),
    "addcmul in place": lambda x: (2 * x).addcmul_(VECTOR, x.flip(-1)),
    "addcdiv": lambda x: x.addcdiv(x, VECTOR.square() + 1, value=3),
    "lerp": lambda x: torch.lerp(x, VECTOR, 0.3),
    "lerp by a tensor": lambda x: VECTOR.lerp(x, VECTOR.sigmoid()),
    "addmm": lambda x: torch.addmm(VECTOR, x[0], SQUARE, beta=2, alpha=0.5)[None],
    "addmm in turn": lambda x: torch.addmm(x[0], x[0], SQUARE)[None],
    "addmm of a bias alone": lambda x: torch.addmm(x[0], SQUARE[:2], SQUARE)[None],
    "addmm without its bias": lambda x: torch.addmm(x[0], x[0], SQUARE, beta=0)[None],
    "baddbmm": lambda x: torch.baddbmm(x, 2 * x, SQUARE[None]),
    "baddbmm from the left": lambda x: torch.baddbmm(x, SQUARE[None, :2, :2], x, alpha=3),
    "addbmm": lambda x: torch.addbmm(x[0], x.expand(3, 2, 16), SQUARE.expand(3, 16, 16))[None],
    "addmv": lambda x: torch.addmv(VECTOR, SQUARE, x[0, 0])[None],
    "addr": lambda x: torch.addr(SQUARE, VECTOR, x[0, 1], alpha=2)[None],
    "outer": lambda x: torch.outer(x[0, 0], VECTOR)[None],
    "tensordot": lambda x: torch.tensordot(x, SQUARE, dims=([2], [1])),
    "bilinear": lambda x: F.bilinear(x, VECTOR.expand_as(x), CUBE, VECTOR[:4]),
    "broadcast_tensors": lambda x: sum(torch.broadcast_tensors(x, x[:, :1], VECTOR)),
    "hstack": lambda x: torch.hstack([x, 2 * x]),
    "diag_embed": lambda x: torch.diag_embed(x).flatten(1),
    "hardswish's outer pieces": lambda x: F.hardswish(x.sign() * 4 + x.clamp(-1, 1) * 0.5),
}


def some_input():
    x0 = torch.randn(1, 2, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return 3 * x0


def matrices(net, x0):
    """A by rows and by columns, and what f(x0) - A x0 leaves."""
    system = interpret(net, x0)
    outputs, inputs = system.y.numel(), x0.numel()
    rows = system.rows(torch.arange(outputs)).reshape(outputs, inputs)
    columns = system.columns(torch.arange(inputs)).reshape(inputs, outputs).T
    return rows, columns, system.r.flatten()


@pytest.mark.parametrize("name", PIECES)
def test_the_matrix_of_what_is_linear_in_pieces(name):
    net, x0 = PIECES[name], some_input()
    rows, columns, r = matrices(net, x0)
    jacobian = torch.autograd.functional.jacobian(net, x0).reshape(rows.shape)
    rest = net(x0).flatten() - jacobian @ x0.flatten()
    for made, expected in ((rows, jacobian), (columns, jacobian), (r, rest)):
        torch.testing.assert_close(made, expected, rtol=1e-12, atol=1e-12)


def normalised(x, size, alpha, beta, k):
    """What local_response_norm divides by, by loops."""
    scale = torch.empty_like(x)
    for channel in range(x.shape[1]):
        low, high = max(0, channel - size // 2), channel + (size - 1) // 2 + 1
        squares = x[:, low:high].square().sum(1) / size
        scale[:, channel] = (k + alpha * squares) ** beta
    return scale


FROZEN = {
    "StarReLU": (lambda x: 0.9 * F.relu(x) ** 2 + 0.0, lambda x0: 0.9 * F.relu(x0)),
    "a cubed GELU": (lambda x: torch.pow(F.gelu(x), exponent=3), lambda x0: F.gelu(x0) ** 3 / x0),
    "ReLU squared": (lambda x: F.relu(x) ** 2, lambda x0: F.relu(x0)),
    "ReLU squared by square()": (lambda x: torch.square(F.relu(x)), lambda x0: F.relu(x0)),
    "normalize": (lambda x: F.normalize(x, dim=-1), lambda x0: 1 / x0.norm(dim=-1, keepdim=True)),
    "local_response_norm": (
        lambda x: F.local_response_norm(x.transpose(1, 2), 5, 0.3, 0.6, 2).transpose(1, 2),
        lambda x0: 1 / normalised(x0.transpose(1, 2), 5, 0.3, 0.6, 2).transpose(1, 2),
    ),
    "hardswish": (F.hardswish, lambda x0: ((x0 + 3) / 6).clamp(0, 1)),
    "hardswish by hand": (lambda x: x * F.relu6(x + 3) / 6, lambda x0: F.hardsigmoid(x0)),
    "lerp by a gate": (
        lambda x: torch.lerp(x, 3 * x, torch.sigmoid(x)),
        lambda x0: 1 + 2 * torch.sigmoid(x0),
    ),
    "addcmul by a gate": (
        lambda x: torch.addcmul(x, torch.sigmoid(x), x, value=2),
        lambda x0: 1 + 2 * torch.sigmoid(x0),
    ),
}


@pytest.mark.parametrize("name", FROZEN)
def test_the_factor_of_what_is_frozen(name):
    net, factor = FROZEN[name]
    x0 = some_input()
    rows, columns, r = matrices(net, x0)
    expected = factor(x0).expand_as(x0).flatten().diag()
    for made in (rows, columns):
        torch.testing.assert_close(made, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(r, torch.zeros_like(r), rtol=0, atol=1e-12)


def test_hardswish_is_a_mask_at_every_place():
    """Its slope at 1 is 5/6, its mask 2/3; at and near 0, and at the ends, nothing is added."""
    x0 = torch.tensor([[0.0, 1e-9, -1e-4, 1.0, 3.0, -3.0, 4.0, -5.0]], dtype=torch.float64)
    rows, columns, r = matrices(F.hardswish, x0)
    expected = torch.tensor([0.5, 0.5, 0.5, 2 / 3, 1, 0, 1, 0], dtype=torch.float64).diag()
    expected[1, 1], expected[2, 2] = (1e-9 + 3) / 6, (3 - 1e-4) / 6
    for made in (rows, columns):
        torch.testing.assert_close(made, expected, rtol=1e-15, atol=1e-15)
    assert not r.any()


@pytest.mark.parametrize(
    "cast",
    [
        lambda x: x.float().double(),
        lambda x: x.to(torch.float32).to(x.dtype),
        lambda x: x.type(torch.float32).type_as(x),
        lambda x: x.to(torch.zeros(1)).to(x),
        lambda x: x.float(),
        lambda x: x.float() @ torch.eye(16),
    ],
)
def test_rounding_to_float32_costs_a_float64_interpreter_no_digits(cast):
    """Rounding is not affine: the matrix is that of the network without it, and the value differs
    by the network's own rounding."""
    x0 = some_input()
    system = interpret(lambda x: cast(x) * 3, x0)
    inputs = torch.arange(32)
    three = 3 * torch.eye(32, dtype=torch.float64)
    assert torch.equal(system.rows(inputs).flatten(1), three)
    assert torch.equal(system.columns(inputs).flatten(1), three)
    assert not system.r.any()
    assert torch.equal(system.y, (cast(x0) * 3).double())
    assert 0 < float((system.matvec(x0) - system.y).abs().max()) < 1e-6


def test_a_norm_that_computes_in_float32():
    """As transformers' RMSNorm does, whatever the type of its input: frozen scales keep all
    digits."""
    gain = torch.linspace(0.5, 2, 16, dtype=torch.float64)

    def net(x):
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        pattern = torch.softmax(wide @ wide.mT, -1, dtype=torch.float32)
        return (gain * wide.to(x.dtype)) + (pattern @ wide).to(x.dtype)

    x0 = some_input()
    scale = (x0.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    pattern = ((x0 * scale) @ (x0 * scale).mT).softmax(-1)
    u = x0.flip(-1)
    expected = u * scale * gain + pattern @ (u * scale)
    torch.testing.assert_close(interpret(net, x0).matvec(u), expected, rtol=1e-13, atol=1e-13)


def test_a_product_of_two_projections_by_baddbmm_is_an_attention_pattern():
    """Scores of a bias and q k^T, as attention modules make them."""

    def net(x):
        scores = torch.baddbmm(torch.ones(1, 2, 2).double(), x, x.mT, alpha=0.25)
        return torch.bmm(scores.softmax(-1), x @ SQUARE)

    x0 = some_input()
    pattern = (1 + x0[0] @ x0[0].T / 4).softmax(-1)
    rows, columns, r = matrices(net, x0)
    expected = torch.kron(pattern, SQUARE.T.contiguous())
    for made in (rows, columns):
        torch.testing.assert_close(made, expected, rtol=1e-12, atol=1e-12)
    assert not r.any()
