"""Every architecture of the table: its entry, its weights, and all backends' sites and edits."""

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.activations import ACT2FN

from interp.errors import UserError
from interp.model import edits
from interp.model.conformance import check_family
from interp.model.families import FAMILIES, WRAPPERS, read_spec
from interp.model.loaded import LoadedWeights
from interp.model.site import LAYER_KINDS, Site
from interp.model.subject import open_subject
from interp.model.weights import Weights

BACKENDS = ("native", "bridge", "nnsight")
VARIANTS = {
    "gpt_neox sequential": {"use_parallel_residual": False},
    "stablelm parallel": {"use_parallel_residual": True},
    "falcon new": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon new, one norm": {
        "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1,
    },
    "falcon sequential": {"parallel_attn": False, "multi_query": False, "alibi": True},
    "gpt_bigcode many heads": {"multi_query": False},
    "opt without gains": {"layer_norm_elementwise_affine": False},
}  # fmt: skip
ALONE = [name for name, family in FAMILIES.items() if not (family.inside or family.no_sites)]
MODELS = [*ALONE, *VARIANTS]
SPARSE = [name for name in ALONE if FAMILIES[name].experts]
_UNKNOWN = (
    *("falcon new", "falcon new, one norm", "gpt_bigcode many heads", "helium", "ministral"),
    *("phimoe", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next"),
)
CANNOT = {
    ("cohere", "bridge"): "gives other logits",
    ("cohere2", "bridge"): "gives other logits",
    **{(name, "bridge"): "TransformerLens cannot take" for name in _UNKNOWN},
}
"""What a backend refuses, and in which words."""
ABSENT = {
    ("opt", "bridge"): {"mlp_in"},
    ("opt without gains", "bridge"): {"mlp_in"},
    ("deepseek_v3", "bridge"): {"head_z", "mlp_up", "mlp_gate"},
    **{
        (name, "bridge"): {"mlp_up", "mlp_gate"}
        for name in ("glm4_moe", "ernie4_5_moe", "llama4_text")
    },
}
"""Kinds of site that a backend does not have of a model, or has wrong."""
HEADLESS = {"gemma4_text": {"head_v", "head_z"}, "deepseek_v3": {"head_v"}}
LINEAR = {"head_v", "attn_pattern", "head_z"}
"""What a layer of linear attention has no site for."""


@pytest.fixture(scope="module")
def model_of(model_folder):
    """`model_of(name)`: a folder, and what transformers loads of it, loaded once."""
    loaded = {}

    def get(name):
        if name not in loaded:
            folder = model_folder(name.split()[0], **VARIANTS.get(name, {}))
            eager = {"attn_implementation": "eager"}
            loaded[name] = folder, AutoModelForCausalLM.from_pretrained(folder, **eager)
        return loaded[name]

    return get


@pytest.fixture(scope="module")
def opened(model_of):
    made = {}

    def get(name, backend):
        if (name, backend) not in made:
            made[name, backend] = open_subject(model_of(name)[1], backend, attention="eager")
        return made[name, backend]

    return get


def close(a, b, mask):
    torch.testing.assert_close(a[mask], b[mask], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_silent_config_means_is_transformers_own(family):
    own = AutoConfig.for_model(family)
    entry = FAMILIES[family]
    decided_outside = {"tie_word_embeddings"} if entry.inside else set()
    for name in entry.defaults.keys() - decided_outside:
        assert getattr(own, name) == entry.defaults[name], name
    fields = (entry.eps, entry.activation, entry.softcap, entry.residual_scale, entry.logit_scale)
    for name in filter(None, (*fields, entry.logit_divisor)):
        assert name in entry.defaults or name in entry.fixed, name


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_what_lies_inside_is_transformers_own(wrapper):
    own = AutoConfig.for_model(wrapper)
    assert own.tie_word_embeddings == WRAPPERS[wrapper].tied
    assert own.get_text_config().model_type == WRAPPERS[wrapper].text


@pytest.mark.parametrize("name", [name for name in MODELS if name not in SPARSE])
def test_neurons_are_what_the_mlp_computes_with(name, model_of, own_home):
    """In float64, against transformers' own module: down(act(gate x) * up x)."""
    folder, model = model_of(name)
    weights, spec = Weights(folder), read_spec(model.config.to_dict())
    layer = copy.deepcopy(_layers(model)[1]).double()
    x = torch.randn(5, 3, spec.d_model, dtype=torch.float64)
    up, down = (weights.neurons(kind, 1).double() for kind in ("up", "down"))
    hidden = x @ up.T + weights.bias("up", 1)
    act = ACT2FN[spec.activation]
    if "gate" in spec.kinds:
        gate = x @ weights.neurons("gate", 1).double().T + weights.bias("gate", 1)
        hidden = act(gate) * hidden
    else:
        hidden = act(hidden)
    ours = hidden @ down + weights.bias("down", 1)
    # BLOOM's activation has sqrt(2 / pi) to eight digits
    torch.testing.assert_close(ours, _mlp(layer)(x), atol=1e-9, rtol=1e-7)
    assert torch.equal(weights.W_E(), model.get_input_embeddings().weight)
    assert torch.equal(weights.W_U(), model.get_output_embeddings().weight)


@pytest.mark.parametrize("name", SPARSE)
def test_neurons_of_experts_are_what_they_compute_with(name, model_of, own_home):
    """In float64, against transformers' own module with one expert chosen for all tokens."""
    folder, model = model_of(name)
    weights, spec = Weights(folder), read_spec(model.config.to_dict())
    layer = copy.deepcopy(_layers(model)[1]).double()
    experts = next(m for m in layer.modules() if hasattr(m, "gate_up_proj"))
    x = torch.randn(5, spec.d_model, dtype=torch.float64)
    names = [bank.expert for bank in weights.banks(1)]
    assert len(names) == spec.n_experts + bool(spec.d_shared) == 4 + ("shared" in names)
    for expert in names:
        up, gate, down = (
            weights.neurons(kind, 1, expert).double() for kind in ("up", "gate", "down")
        )
        if expert == "shared":
            own = next(
                m for n, m in layer.named_modules() if n.endswith(FAMILIES[name].experts.shared)
            )
            theirs = own(x)
        else:
            theirs = _one_expert(experts, x, int(expert[1:]))
        ours = _glu(experts, x @ gate.T, x @ up.T) @ down
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-9)


def _one_expert(experts, x, number):
    if type(experts).__name__ == "Llama4TextExperts":  # gets a copy of all tokens for each
        return experts(x.repeat(experts.num_experts, 1)).view(experts.num_experts, *x.shape)[number]
    experts.config._experts_implementation = "eager"
    return experts(x, torch.full((len(x), 1), number), torch.ones(len(x), 1).double())


def _glu(experts, gate, up):
    if hasattr(experts, "_apply_gate") and hasattr(experts, "limit"):  # gpt-oss
        return experts._apply_gate(torch.stack([gate, up], -1).flatten(-2))
    return torch.nn.functional.silu(gate) * up


def _layers(model):
    return next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))


def _mlp(layer):
    if hasattr(layer, "fc1"):  # OPT
        return lambda x: layer.fc2(layer.activation_fn(layer.fc1(x)))
    takes = layer.mlp.forward.__code__.co_varnames
    return lambda x: layer.mlp(x, torch.zeros_like(x)) if "residual" in takes else layer.mlp(x)


@pytest.mark.parametrize("name", MODELS)
def test_weights_of_the_files_are_those_in_memory(name, model_of, own_home):
    """Those in memory are checked against the sites whenever a model is opened."""
    folder, model = model_of(name)
    stored, spec = Weights(folder), read_spec(model.config.to_dict())
    loaded = LoadedWeights(model, spec)
    assert stored.spec == spec
    views = ("W_V", "b_V", "W_O", "b_O")
    for view in () if spec.family.no_heads else views:
        assert torch.equal(getattr(stored, view)(1), getattr(loaded, view)(1))
    for kind in ("attn", "mlp", "attn_post", "mlp_post"):
        ours, theirs = stored.norm(kind, 1), loaded.norm(kind, 1)
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(torch.stack(ours), torch.stack(theirs))
    assert torch.equal(torch.stack(stored.norm("final")), torch.stack(loaded.norm("final")))
    assert torch.equal(stored.b_U(), loaded.b_U())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_and_sites(name, backend, opened):
    if reason := CANNOT.get((name, backend)):
        with pytest.raises(UserError, match=reason):
            opened(name, backend)
        return
    subject, native = opened(name, backend), opened(name, "native")
    lacks = ABSENT.get((name, backend), set())
    assert subject.parity < 2e-6
    assert subject.site_error < 2e-6
    assert {site.kind for site in subject.refused} <= lacks
    batch = native.pad([[5, 6, 7, 8, 9], [1, 2], [3, 4, 5]])
    if backend == "native":
        assert {site.kind for site in subject.sites if site.layer == 1} == _expected(name, subject)
        return
    assert {s for s in native.sites if s.kind not in lacks} == set(subject.sites)
    ours, theirs = (each.capture(batch, subject.sites) for each in (native, subject))
    for site in subject.sites:
        real = batch.mask
        if site.kind == "attn_pattern":
            real = real[:, None, :].expand(ours[site].shape[:3])
        close(ours[site], theirs[site], real)


def _expected(name, subject):
    """The kinds of site of layer 1: where there are experts, and full attention."""
    spec, lacks = subject.spec, HEADLESS.get(name, set())
    lacks |= {"resid_mid"} if spec.parallel else set()
    lacks |= {"mlp_up", "mlp_gate", "mlp_post"} if name in SPARSE else set()
    return set(LAYER_KINDS) - lacks - (set() if "gate" in spec.kinds else {"mlp_gate"})


def test_a_layer_of_linear_attention_has_no_heads(opened):
    subject = opened("qwen3_5_text", "native")
    first = {site.kind for site in subject.sites if site.layer == 0}
    assert first == {site.kind for site in subject.sites if site.layer == 1} - LINEAR


@pytest.mark.parametrize("name", MODELS)
def test_an_edit_at_each_site_is_what_is_read_there(name, opened):
    subject = opened(name, "native")
    batch = subject.pad([[5, 6, 7, 8, 9], [1, 2]])
    plain, before = subject.logits(batch), subject.capture(batch, subject.sites)
    generator = torch.Generator().manual_seed(0)
    for site in (site for site in before if site.kind != "attn_pattern" and site.layer != 0):
        vector = torch.randn(before[site].shape[-1], generator=generator)
        with subject.edited(edits.add(site, vector)):
            close(subject.capture(batch, [site])[site], before[site] + vector, batch.mask)
            changed = (subject.logits(batch) - plain)[batch.mask].abs().max()
        assert changed > 1e-5 * plain.abs().max(), f"the edit at {site} did nothing"


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_edits_at_all_sites_together_are_the_same(name, backend, opened):
    if (name, backend) in CANNOT:
        return
    native, other = opened(name, "native"), opened(name, backend)
    batch = native.pad([[5, 6, 7, 8, 9], [1, 2]])
    generator = torch.Generator().manual_seed(0)
    found = native.capture(batch, other.sites)
    every = [
        edits.add(site, 0.1 * torch.randn(x.shape[-1], generator=generator))
        for site, x in found.items()
        if site.kind != "attn_pattern"
    ]
    with native.edited(*every), other.edited(*every):
        close(native.logits(batch), other.logits(batch), batch.mask)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_generation_with_a_cache_equals_without(name, backend, opened):
    if (name, backend) in CANNOT:
        return
    subject = opened(name, backend)
    subject.ends = ()
    push = edits.add(Site("resid_post", 0), torch.randn(32, generator=torch.manual_seed(0)))
    for steering in ((), (push,)):
        batch = subject.pad([[5, 6, 7, 8], [1, 2]])
        rows = [r[m].tolist() for r, m in zip(batch.ids, batch.mask, strict=True)]
        with subject.edited(*steering):
            new = subject.generate(batch, 2)
            for _ in range(2):
                logits = subject.logits(subject.pad(rows))[:, -1]
                rows = [[*r, int(i)] for r, i in zip(rows, logits.argmax(-1), strict=True)]
        assert new.tolist() == [row[-2:] for row in rows]


def test_a_row_of_the_table():
    row = check_family("phi")
    assert row.atlas == "0"
    assert row.generation == "12 of 12"
    assert max(float(row.parity), float(row.sites), float(row.nnsight)) < 1e-5
    assert "no neurons" in check_family("mamba").atlas
