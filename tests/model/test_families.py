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
ALONE = [name for name, family in FAMILIES.items() if not family.inside]
MODELS = [*ALONE, *VARIANTS]
CANNOT = {
    ("cohere", "bridge"): "gives other logits",
    ("cohere2", "bridge"): "gives other logits",
    **{
        (name, "bridge"): "TransformerLens cannot take"
        for name in (
            "falcon new",
            "falcon new, one norm",
            "gpt_bigcode many heads",
            "helium",
            "ministral",
        )
    },
}
"""What a backend refuses, and in which words."""
ABSENT = {("opt", "bridge"): {"mlp_in"}, ("opt without gains", "bridge"): {"mlp_in"}}
"""Kinds of site that a backend does not have of a model."""


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


@pytest.mark.parametrize("name", MODELS)
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
    for view in ("W_V", "b_V", "W_O", "b_O"):
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
    assert subject.parity < 2e-6
    assert subject.site_error < 2e-6
    assert not subject.refused
    batch = native.pad([[5, 6, 7, 8, 9], [1, 2], [3, 4, 5]])
    lacks = ABSENT.get((name, backend), set())
    if backend == "native":
        spec = subject.spec
        lacks |= {"resid_mid"} if spec.parallel else set()
        lacks |= set() if "gate" in spec.kinds else {"mlp_gate"}
        assert {site.kind for site in subject.sites} >= set(LAYER_KINDS) - lacks
        return
    assert {s for s in native.sites if s.kind not in lacks} == set(subject.sites)
    ours, theirs = (each.capture(batch, subject.sites) for each in (native, subject))
    for site in subject.sites:
        real = batch.mask
        if site.kind == "attn_pattern":
            real = real[:, None, :].expand(ours[site].shape[:3])
        close(ours[site], theirs[site], real)


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
