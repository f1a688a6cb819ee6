"""Language models as affine functions of their stream; ObsProp's paths add up to the rows."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from interp.errors import UserError
from interp.linearscope.language import interpret_logits
from interp.linearscope.tokens import TokensConfig
from interp.model.batch import Batch
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.obsprop import paths
from interp.obsprop.model_weights import StackedWeights
from interp.obsprop.observables import Observable
from interp.obsprop.paths import Node, PathInPrompt, path_feature
from interp.obsprop.propagate import Linearised
from interp.obsprop.trace import trace

PROMPTS = [
    "The capital of France is",
    "def add(a, b):\n    return a",
    "My favourite animal is the",
    "2 + 2 =",
    "Once upon a time, in a land far away,",
    "The opposite of hot is",
    "E = mc",
    "She said that he",
    "Water boils at",
    "To be or not to be, that is the",
]


@pytest.mark.parametrize(
    ("prompts", "dtype", "tolerance"),
    [
        (PROMPTS[:1], torch.float32, 1e-3),
        (PROMPTS[:1], torch.float64, 1e-9),
        pytest.param(PROMPTS, torch.float32, 1e-3, marks=pytest.mark.slow),
        pytest.param(PROMPTS, torch.float64, 1e-9, marks=pytest.mark.slow),
    ],
)
def test_smollm2_is_affine_in_its_stream(prompts, dtype, tolerance):
    smollm2 = open_subject("smollm2-135m", dtype=dtype)
    for prompt, site in zip(prompts, itertools.cycle(["0.resid_pre", "14.resid_post"])):
        batch = smollm2.tokens(prompt)
        system = interpret_logits(smollm2, batch, Site.parse(site))
        assert torch.equal(system.y, smollm2.logits(batch)[:, -1])
        assert float((system.matvec(system.x0) + system.r - system.y).abs().max()) < tolerance
        best = system.y[0].topk(2).indices
        votes = system.votes(best).double().flatten(1).sum(1)
        assert float((votes + system.r[0, best] - system.y[0, best]).abs().max()) < tolerance


@pytest.mark.parametrize("family", ["gemma2", "gpt2", "gpt_neo", "gpt_neox", "qwen3"])
@pytest.mark.parametrize("site", ["0.resid_pre", "1.mlp_post", "0.attn_out"])
def test_every_family_is_affine(model_folder, family, site):
    subject = open_subject(model_folder(family), dtype=torch.float64)
    ids = torch.arange(3, 10)[None]
    system = interpret_logits(subject, ids, Site.parse(site), position=4)
    assert torch.equal(system.y, subject.logits(ids)[:, 4])
    assert float((system.matvec(system.x0) + system.r - system.y).abs().max()) < 1e-9
    rows = system.rows(torch.tensor([7]))
    assert not rows[0, 5:].any()  # later tokens do not reach position 4
    assert rows[0, :5].any()


def test_a_contrast_subtracts_both_parts_of_the_other_logit(model_folder):
    """The model's tokens are written as numbers, several with a plus."""
    subject = open_subject(model_folder("gpt2"), dtype=torch.float64)  # its biases make r large
    system = interpret_logits(subject, torch.arange(3, 8)[None], Site("resid_pre", 1))
    prompting = SimpleNamespace(
        plain=lambda word: [int(n) for n in word.split("+")],
        text=lambda ids: str(ids[0]),
        tokenizer=None,
    )
    numbers = SimpleNamespace(
        prompting=prompting, text=lambda ids: str(int(ids[0])), spec=subject.spec
    )
    names, _, logits = TokensConfig(words=("7", "8"), against="9")._logits(numbers, system)
    assert names == ["7 - 9", "8 - 9"]
    expected = system.y[0, [7, 8]] - system.y[0, 9]
    assert logits["value"].tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    assert (logits["linear"] + logits["r"]).tolist() == pytest.approx(expected.tolist(), abs=1e-9)
    assert logits["r"].abs().min() > 1e-3
    with pytest.raises(UserError, match=r"'7\+8' is 2 tokens \('7', '8'\): give one"):
        TokensConfig(words=("7+8",))._logits(numbers, system)


def test_several_prompts_or_a_head_are_refused(model_folder):
    subject = open_subject(model_folder("llama"))
    with pytest.raises(UserError, match="one prompt"):
        interpret_logits(subject, torch.ones(2, 3, dtype=torch.long), Site("resid_pre", 0))
    with pytest.raises(UserError, match="one head"):
        interpret_logits(subject, torch.ones(1, 3, dtype=torch.long), Site("head_z", 0, 1))


@pytest.mark.parametrize("model", ["llama", pytest.param("smollm2-135m", marks=pytest.mark.slow)])
def test_obsprop_paths_add_up_to_the_row(model_folder, model, monkeypatch):
    """All paths of heads and MLPs from the stream before the last two layers to a logit, over all
    positions they run through; an MLP's gates are frozen in place of its gradient."""
    monkeypatch.setattr(paths, "linearise_mlp", _gates_frozen)
    path = model_folder(model) if model == "llama" else model
    subject = open_subject(path, dtype=torch.float64, attention="eager")
    parts = StackedWeights(subject.weights, torch.float64)
    observable = Observable("a token", torch.tensor([7]), torch.ones(1))
    batch = Batch(torch.arange(3, 6)[None], torch.ones(1, 3, dtype=torch.bool))
    found, first = trace(subject, parts, batch), parts.spec.n_layers - 2
    total = torch.zeros(len(found.ids), parts.spec.d_model, dtype=torch.float64)
    m0 = observable.start(parts.W_U)
    total[found.last] += parts.final_norm.pull(m0, "frozen", found.reads("final", 0, found.last))
    for path in _paths(first, parts.spec):
        for positions in _positions(path, found.last):
            place = PathInPrompt(found, positions)
            feature = path_feature(parts, observable, path, "frozen", place, weighted=True)
            norm = parts.norm(path[0].kind, path[0].layer)
            x = found.reads(path[0].kind, path[0].layer, positions[0])
            total[positions[0]] += norm.pull(feature.vector, "frozen", x)
    system = interpret_logits(subject, batch, Site("resid_pre", first))
    row = system.rows(observable.ids)[0]
    assert float((total - row).abs().max()) < 1e-9 * float(row.abs().max())


def _gates_frozen(mlp, m, x):
    """m.MLP near x as vector.x + constant, with every neuron's gate as it is at x."""
    gates = mlp._act(x @ mlp._rows["gate"].T + mlp._bias["gate"])
    write = gates * (mlp._rows["down"] @ m)
    vector = write @ mlp._rows["up"]
    constant = write @ mlp._bias["up"] + mlp._bias["down"] @ m
    torch.testing.assert_close(vector @ x + constant, mlp(x) @ m)
    return Linearised(vector, float(constant), False)


def _paths(first, spec):
    heads = [None, *range(spec.n_heads)]
    for a, b, c, d in itertools.product(heads, (False, True), heads, (False, True)):
        nodes = [Node(first, a)] if a is not None else []
        nodes += [Node(first, None)] if b else []
        nodes += [Node(first + 1, c)] if c is not None else []
        nodes += [Node(first + 1, None)] if d else []
        if nodes:
            yield tuple(nodes)


def _positions(path, last):
    """Where each part reads, and the end: heads move the stream on, MLPs do not."""
    heads = [n for n, node in enumerate(path) if node.head is not None]
    for chosen in itertools.product(range(last + 1), repeat=len(heads)):
        if list(chosen) != sorted(chosen):
            continue
        reads = dict(zip(heads, chosen, strict=True))
        positions = [last]
        for n in reversed(range(len(path))):
            positions.insert(0, reads.get(n, positions[0]))
        yield tuple(positions)
