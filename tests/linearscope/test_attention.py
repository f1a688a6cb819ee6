"""torch's attention modules against the pattern computed by hand, and their fast path."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from interp.errors import UserError
from interp.linearscope.interpreter import interpret

DOUBLE = torch.float64
MASK = torch.ones(5, 5).triu(1).bool()
PADDED = torch.tensor([[False, False, False, True, True]])


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def made(kind, *args, **kwargs):
    torch.manual_seed(1)
    net = kind(*args, dtype=DOUBLE, **kwargs).eval().requires_grad_(False)
    for name, parameter in net.named_parameters():
        if name.endswith("bias") or "norm" in name:  # zeros and ones hide mistakes
            parameter.normal_()
    return net


def patterns(attention, x, context, forbidden):
    """The pattern of each head [heads, 5, keys], in numpy."""
    wide = attention.embed_dim // attention.num_heads
    if attention.in_proj_weight is None:
        weights = [attention.q_proj_weight, attention.k_proj_weight]
    else:
        weights = attention.in_proj_weight.chunk(3)[:2]
    biases = attention.in_proj_bias.chunk(3)[:2]
    q, k = (t[0].numpy() @ w.numpy().T + b.numpy()
            for t, w, b in zip((x, context), weights, biases, strict=True))  # fmt: skip
    if attention.bias_k is not None:
        k = np.concatenate([k, attention.bias_k[0].numpy()])
    if attention.add_zero_attn:
        k = np.concatenate([k, np.zeros_like(k[:1])])
    found = []
    for head in range(attention.num_heads):
        part = slice(head * wide, (head + 1) * wide)
        scores = q[:, part] @ k[:, part].T / math.sqrt(wide)
        scores[:, : forbidden.shape[1]] += forbidden
        scores = np.exp(scores - scores.max(1, keepdims=True))
        found.append(scores / scores.sum(1, keepdims=True))
    return np.stack(found)


def carried(attention, pattern, u):
    """What the values of u [5, d_value] become through fixed patterns, without any bias."""
    weight = attention.v_proj_weight
    weight = attention.in_proj_weight.chunk(3)[2] if weight is None else weight
    values = u.numpy() @ weight.numpy().T
    heads = np.split(values, attention.num_heads, 1)
    mixed = [p[:, : len(u)] @ v for p, v in zip(pattern, heads, strict=True)]
    return torch.from_numpy(np.concatenate(mixed, 1) @ attention.out_proj.weight.numpy().T)


ADDED = torch.zeros(5, 5, dtype=DOUBLE).masked_fill(MASK, -torch.inf)
VARIANTS = {
    "plain": ({}, {}, 0),
    "with its pattern": ({}, {"need_weights": True}, 0),
    "a pattern a head": ({}, {"need_weights": True, "average_attn_weights": False}, 0),
    "causal": ({}, {"attn_mask": MASK}, ADDED),
    "causal, by the hint": ({}, {"attn_mask": MASK, "is_causal": True}, ADDED),
    "causal, added": ({}, {"attn_mask": ADDED + random(5, 5).tril()}, ADDED + random(5, 5).tril()),
    "a mask a head": ({}, {"attn_mask": MASK.expand(2, 5, 5)}, ADDED),
    "padded": ({}, {"key_padding_mask": PADDED}, torch.zeros(5, 5).masked_fill(PADDED, -torch.inf)),
    "causal and padded": (
        {},
        {"attn_mask": MASK, "key_padding_mask": PADDED},
        ADDED.masked_fill(PADDED, -torch.inf),
    ),
    "biases of keys and values": ({"add_bias_kv": True}, {"attn_mask": MASK}, ADDED),
    "a key of zeros": ({"add_zero_attn": True, "add_bias_kv": True}, {}, 0),
    "values of another width": ({"vdim": 8, "kdim": 8}, {}, 0),
    "tokens first": ({"batch_first": False}, {"attn_mask": MASK}, ADDED),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_multi_head_attention(name):
    options, called, forbidden = VARIANTS[name]
    net = made(nn.MultiheadAttention, 8, 2, **{"batch_first": True, **options})
    x0, u = random(2, 1, 5, 8)

    def run(x):
        x = x if net.batch_first else x.transpose(0, 1)
        out, weights = net(x, x, x, **{"need_weights": False, **called})
        assert (weights is None) == (not called.get("need_weights", False))
        return out if net.batch_first else out.transpose(0, 1)

    system = interpret(run, x0)
    forbidden = np.broadcast_to(np.asarray(forbidden), (5, 5))
    pattern = patterns(net, x0, x0, forbidden)
    torch.testing.assert_close(system.matvec(u)[0], carried(net, pattern, u[0]))
    torch.testing.assert_close(system.y, run(x0))
    v = random(1, 5, 8, seed=4)
    back = (system.rmatvec(v) * u).sum()
    torch.testing.assert_close(back, (carried(net, pattern, u[0]) * v[0]).sum())


def test_a_query_that_is_learned():
    """Attention pooling: constants ask, the input answers."""
    net = made(nn.MultiheadAttention, 8, 2, batch_first=True)
    query, x0, u = random(1, 5, 8, seed=9), *random(2, 1, 5, 8)
    system = interpret(lambda x: net(query, x, x)[0], x0)
    pattern = patterns(net, query, x0, np.zeros((5, 5)))
    torch.testing.assert_close(system.matvec(u)[0], carried(net, pattern, u[0]))


def test_tokens_without_a_batch():
    net = made(nn.MultiheadAttention, 8, 2)
    x0, u = random(2, 1, 5, 8)
    system = interpret(lambda x: net(x[0], x[0], x[0])[0][None], x0)
    pattern = patterns(net, x0, x0, np.zeros((5, 5)))
    torch.testing.assert_close(system.matvec(u)[0], carried(net, pattern, u[0]))


def test_dropout_in_training_is_refused():
    net = made(nn.MultiheadAttention, 8, 2, dropout=0.5)

    def run(x):
        arguments = (net.in_proj_weight, net.in_proj_bias, None, None, False, 0.5,
                     net.out_proj.weight, net.out_proj.bias)  # fmt: skip
        return F.multi_head_attention_forward(x, x, x, 8, 2, *arguments)[0]

    with pytest.raises(UserError, match="attention.* in training mode"):
        interpret(run, random(1, 5, 8))


@pytest.fixture
def fast_calls(monkeypatch):
    """How often torch takes its fast path for a whole layer."""
    calls, real = [], torch._transformer_encoder_layer_fwd

    def counted(*args, **kwargs):
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", counted)
    return calls


@pytest.mark.parametrize("first", [False, True])
def test_an_encoder_layer_whose_fast_path_torch_takes(first, fast_calls):
    layer = made(nn.TransformerEncoderLayer, 8, 2, 16, batch_first=True, norm_first=first)
    x0, u = random(2, 1, 5, 8)
    with torch.no_grad():
        fast = layer(x0)
    assert len(fast_calls) == 1
    system = interpret(layer, x0)
    assert len(fast_calls) == 1  # neither run of the network took it
    assert torch.backends.mha.get_fastpath_enabled()
    torch.testing.assert_close(system.y, fast)

    def norm(part, at, z):  # the scale is that of `at`
        return (
            (z - z.mean(-1, keepdim=True))
            / (at.var(-1, correction=0, keepdim=True) + part.eps).sqrt()
            * part.weight
        )

    def attended(at, z):
        return carried(layer.self_attn, patterns(layer.self_attn, at, at, np.zeros((5, 5))), z[0])[
            None
        ]

    def widened(at, z):
        return (z @ layer.linear1.weight.T * (layer.linear1(at) > 0)) @ layer.linear2.weight.T

    if first:
        inside = layer.norm1(x0)
        middle = x0 + layer.self_attn(inside, inside, inside)[0]
        z = u + attended(inside, norm(layer.norm1, x0, u))
        expected = z + widened(layer.norm2(middle), norm(layer.norm2, middle, z))
    else:
        middle = x0 + layer.self_attn(x0, x0, x0)[0]
        z = norm(layer.norm1, middle, u + attended(x0, u))
        inside = layer.norm1(middle)
        after = inside + layer.linear2(layer.linear1(inside).relu())
        expected = norm(layer.norm2, after, z + widened(inside, z))
    torch.testing.assert_close(system.matvec(u), expected)


def test_a_padded_encoder_is_what_it_is_without_its_fast_path():
    """On the fast path torch packs the tokens, and padded places come out as 0."""
    layer = made(nn.TransformerEncoderLayer, 8, 2, 16, batch_first=True)
    net = nn.TransformerEncoder(layer, 2).eval().requires_grad_(False)
    x0 = random(1, 5, 8)
    with torch.no_grad():
        fast = net(x0, src_key_padding_mask=PADDED)
    system = interpret(lambda x: net(x, src_key_padding_mask=PADDED), x0)
    leaf = x0.clone().requires_grad_(True)  # autograd keeps torch off the fast path
    net.layers[0].linear1.weight.requires_grad_(True)
    slow = net(leaf, src_key_padding_mask=PADDED).detach()
    torch.testing.assert_close(system.y, slow)
    assert not fast[:, 3:].any()
    assert slow[:, 3:].all()
    torch.testing.assert_close(system.y[:, :3], fast[:, :3])


def test_the_fast_path_is_turned_on_again_after_a_refusal():
    with pytest.raises(UserError, match="softmax"):
        interpret(lambda x: x.softmax(-1), random(1, 5, 8))
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_whole_transformer(activation):
    """Encoder and decoder, with cross attention: the rows are the columns, and give the value."""
    options = {"activation": activation, "batch_first": True, "num_encoder_layers": 1}
    net = made(nn.Transformer, 8, 2, num_decoder_layers=1, dim_feedforward=12, **options)
    system = interpret(lambda x: net(x, 2 * x.flip(1), tgt_mask=MASK), random(1, 5, 8))
    places = torch.arange(40)
    rows, columns = system.rows(places).flatten(1), system.columns(places).flatten(1)
    torch.testing.assert_close(rows, columns.T)
    value = columns.T @ system.x0.flatten() + system.r[0].flatten()
    expected = net(system.x0, 2 * system.x0.flip(1), tgt_mask=MASK)
    torch.testing.assert_close(value, expected.flatten())
