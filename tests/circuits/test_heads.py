"""What a head moves, against transformers' own attention and a head whose work is planted."""

import pytest
import torch

from interp.circuits import figures_heads
from interp.circuits.head import Head
from interp.circuits.head_tables import attention_terms
from interp.circuits.heads import HeadConfig
from interp.circuits.ov import OV, places, terms
from interp.directions.sources import open_directions
from interp.errors import UserError
from interp.model.loaded import LoadedWeights
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import open_weights
from interp.runs.study import run_or_load

from ..conftest import CLASSIC, make_model

FAMILIES = [*CLASSIC, "olmo2", "glm4", "granite", "cohere", "starcoder2", "gpt_oss", "bloom", "opt"]
IDS = [[3, 14, 15, 92, 65, 35]]


@pytest.fixture(scope="module", params=FAMILIES)
def opened(request):
    model = make_model(request.param).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # transformers begins with zeros
                parameter.add_(0.1 * torch.randn_like(parameter))
    subject = open_subject(model, dtype=torch.float64, attention="eager")
    return subject, LoadedWeights(model, subject.spec)


def test_heads_and_sources_add_up_to_attention(opened):
    subject, weights = opened
    for layer in range(subject.spec.n_layers):
        found, error = attention_terms(subject, weights, subject.pad(IDS), layer)
        assert error < 1e-9
        assert found.pattern.shape[0] == subject.spec.n_heads
        # the pieces as one would sum them by hand
        pieces = found.pattern[..., None] * found.written[:, None] * found.scale[:, None, None]
        summed = pieces.sum((0, 2)) + found.constant
        torch.testing.assert_close(summed, found.total(), rtol=0, atol=1e-12)
        lengths = pieces[1].norm(dim=-1)
        torch.testing.assert_close(found.lengths(1), lengths, rtol=1e-9, atol=1e-12)
        row = torch.randn(6, subject.spec.d_model, dtype=torch.float64)
        effects = torch.einsum("qd,qsd->qs", row, pieces[1])
        torch.testing.assert_close(found.effects(1, row), effects, rtol=1e-9, atol=1e-12)


def test_the_ov_circuit_is_what_the_layer_does_without_biases(opened):
    """What a head writes for one source less what it writes for another has no bias in it."""
    subject, weights = opened
    head = Head(1, 2)
    sites = [Site("resid_pre", 1), Site("attn_pattern", 1), Site("head_v", 1)]
    captured = subject.capture(subject.pad(IDS), sites)
    x, pattern, values = (captured[site][0] for site in sites)
    found = terms(weights, 1, pattern, values)
    written = OV.of(weights, head)(x)
    differs = written[0] - written[3]
    expected = found.written[2, 0] - found.written[2, 3]
    torch.testing.assert_close(differs, expected, rtol=1e-5, atol=1e-6 * float(expected.norm()))


def test_singular_vectors_make_the_ov_circuit(opened):
    _, weights = opened
    ov = OV.of(weights, Head(1, 3))
    reads, singular, writes = ov.svd(8)
    whole = ov.write @ ov.read
    torch.testing.assert_close((writes.T * singular) @ reads, whole, rtol=1e-9, atol=1e-12)
    expected = torch.linalg.svdvals(whole)[: len(singular)]
    torch.testing.assert_close(singular, expected, rtol=1e-9, atol=1e-12)
    assert bool((writes.gather(1, writes.abs().argmax(1, keepdim=True)) > 0).all())


def test_how_many_stand_above_and_below():
    logits = torch.tensor([[0.0, 3, 1, 2], [5, 5, 5, 4]])
    above, below = places(logits, torch.tensor([3, 0]))
    assert (above.tolist(), below.tolist()) == ([1, 0], [2, 1])


COPIED = [3, 50, 123, 200]


@pytest.fixture(scope="module")
def copying(dog_model, tmp_path_factory):
    """The dog model, whose head 1.2 writes the unembedding of four tokens where it reads them."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("copying") / "model"
    shutil.copytree(dog_model, folder)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.self_attn.{}_proj.weight"
    E = tensors["model.embed_tokens.weight"][COPIED].double()
    gain = tensors["model.layers.1.input_layernorm.weight"].double()
    seen = E / (E.square().mean(1, keepdim=True) + 1e-6).sqrt() * gain
    value, output = tensors[name.format("v")], tensors[name.format("o")]
    value[8:16] = 0  # of kv head 1, which heads 2 and 3 share
    value[8:12] = torch.linalg.pinv(seen).T.float()
    head = tensors["lm_head.weight"][COPIED]
    output[:, 16:24] = 0
    output[:, 16:20] = (head / head.norm(dim=1, keepdim=True)).T
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_a_copying_head_is_found(copying, own_home):
    config = HeadConfig(
        str(copying), prompt="w3 dog w5 w50", head="1.2", target="dog", k=3, vectors=4, sample=211
    )
    run = run_or_load(config)
    copies = run.table("copies")
    given = copies[copies["given"]].set_index("token")
    assert given.loc[["w3", "dog", "w50"], "above"].tolist() == [0, 0, 0]
    assert [given.loc[word, "top"][0] for word in ("w3", "dog", "w50")] == ["w3", "dog", "w50"]
    drawn = copies[~copies["given"]].set_index("id")
    assert drawn.loc[COPIED, "above"].tolist() == [0, 0, 0, 0]
    assert run.metrics["share that it copies (own among the first 3)"] < 0.2
    sources = run.table("sources")
    assert [sources["top"][i][0] for i in (0, 1, 3)] == ["w3", "dog", "w50"]
    assert run.metrics["error of the sum"] < 1e-5
    assert run.metrics["share of OV in 4 vectors"] == pytest.approx(1)
    written = open_directions(str(run.path))
    assert str(written.site) == "1.attn_out"
    assert len(written) == 4
    reads = open_directions(str(run.path / "reads"))
    assert (str(reads.site), reads.read_as) == ("1.resid_pre", "v.x/rms")
    planted = open_weights(str(copying)).W_U()[COPIED]
    planted = planted / planted.norm(dim=1, keepdim=True)
    assert (planted @ written.vectors.T).norm(dim=1).tolist() == pytest.approx([1] * 4, abs=1e-5)
    assert len(run.table("vectors")["writes"][0]) == 3


def test_the_pattern_and_the_direct_effect_are_plain_transformers(copying, own_home):
    from transformers import AutoModelForCausalLM

    run = run_or_load(HeadConfig(str(copying), prompt="w3 dog w5 w50", head="1.2", target="dog"))
    cells = run.table("pattern")
    model = AutoModelForCausalLM.from_pretrained(
        copying, dtype=torch.float64, attn_implementation="eager"
    )
    attention = model.model.layers[1].self_attn
    seen = {}
    attention.v_proj.register_forward_hook(lambda _, x, y: seen.update(v=y[0]))
    model.model.norm.register_forward_pre_hook(lambda _, x: seen.update(x=x[0][0, -1]))
    with torch.no_grad():
        out = model(torch.tensor([[3, 123, 5, 50]]), output_attentions=True)
    pattern = out.attentions[1][0, 2]
    assert len(cells) == 10
    for _, cell in cells.iterrows():
        assert cell["weight"] == pytest.approx(float(pattern[cell["query"], cell["key"]]), rel=1e-4)
    written = seen["v"][:, 8:16] @ attention.o_proj.weight[:, 16:24].T
    rms = (seen["x"].square().mean() + 1e-6).sqrt()
    read = model.lm_head.weight[123] - model.lm_head.weight.mean(0)
    row = read * model.model.norm.weight / rms
    expected = (pattern[3] * (written @ row)).detach()
    last = cells[cells["query"] == 3]
    assert last["direct"].tolist() == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-5)
    assert run.metrics["direct"] == pytest.approx(float(expected.sum()), rel=1e-3)
    assert (cells[cells["query"] < 3]["direct"] == 0).all()
    lengths = pattern[3] * written.norm(dim=1)
    assert last["length"].tolist() == pytest.approx(lengths.tolist(), rel=1e-3)
    for shade in figures_heads.SHADES:
        assert figures_heads.pattern(cells, shade).data[0].z.shape == (4, 4)


def test_what_is_no_head(dog_model, own_home, monkeypatch):
    monkeypatch.setattr("interp.model.subject.open_subject", None)
    for changes, says in (
        ({"head": "1"}, "names no head"),
        ({"head": "2.0"}, "there is no head 2.0"),
        ({"head": "0.4"}, r"heads 0\.\.3"),
        ({"prompt": ""}, "empty"),
        ({"against": "w1"}, "needs a --target"),
        ({"vectors": 9}, "--vectors must be 1 to 8"),
        ({"k": 0}, "--k must be"),
        ({"prompt": "w1", "target": "w1 w2"}, "2 tokens"),
    ):
        with pytest.raises(UserError, match=says):
            run_or_load(HeadConfig(str(dog_model), **{"head": "1.0", **changes}))


def test_heads_behind_a_gate_are_refused_by_name():
    model = make_model("qwen3_5_text").double()
    subject = open_subject(model, dtype=torch.float64, attention="eager")
    weights = LoadedWeights(model, subject.spec)
    layer = next(site.layer for site in subject.sites if site.kind == "attn_pattern")
    with pytest.raises(UserError, match="pass a gate before W_O"):
        attention_terms(subject, weights, subject.pad(IDS), layer)
