"""Every key that sae-lens may write into a config is judged; what is not known is refused."""

import ast
import dataclasses
import inspect
import json
import warnings

import pytest
import torch
from sae_lens import LanguageModelSAERunnerConfig, StandardSAE, StandardSAEConfig
from sae_lens.loading import pretrained_sae_loaders
from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY
from safetensors.torch import save_file
from transformer_lens import HookedTransformer

from interp.errors import UserError
from interp.saes import open_sae, wrap
from interp.saes.config import CENTRED, HARMLESS, LOADING, ONLY, PROCESSING, check_keys
from interp.saes.open import saes_bos


def made(hook="blocks.2.hook_resid_post", **metadata):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = StandardSAE(StandardSAEConfig(d_in=8, d_sae=16))
    inner.cfg.metadata.hook_name = hook
    for name, value in metadata.items():
        inner.cfg.metadata[name] = value
    return inner


def names(config_class):
    return {field.name for field in dataclasses.fields(config_class)}


def loaders_keys():
    """What the loaders of published SAEs put into a config, from their source."""
    tree = ast.parse(inspect.getsource(pretrained_sae_loaders))
    getters = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("get_")
        and "conf" in node.name
    ]
    found = set()
    for getter in getters:
        for node in ast.walk(getter):
            given = isinstance(node, ast.Dict) and any(
                isinstance(key, ast.Constant) and key.value == "architecture" for key in node.keys
            )
            if given:
                found |= {key.value for key in node.keys if isinstance(key, ast.Constant)}
    return found


def test_every_key_of_sae_lens_is_judged():
    known = HARMLESS | set(ONLY) | {"activation_fn_kwargs"}
    found = loaders_keys()
    assert {"hook_name", "jump_relu_threshold", "hook_name_out"} < found
    followed = set().union(*(names(config) for _, config in SAE_CLASS_REGISTRY.values()))
    trained = set().union(*(names(config) for _, config in SAE_TRAINING_CLASS_REGISTRY.values()))
    runner = names(LanguageModelSAERunnerConfig) - {"sae"}
    wanted = runner | trained | found | pretrained_sae_loaders.LLM_METADATA_KEYS
    raw_configs_of_gemma_3 = {"hf_hook_point_in", "affine_connection", "hf_hook_point_out"}
    assert wanted - known - followed - raw_configs_of_gemma_3 == set()


def test_every_option_of_loading_a_model_is_judged():
    options = set(inspect.signature(HookedTransformer.from_pretrained).parameters)
    known = {*LOADING, *PROCESSING, CENTRED}
    refused = {"hf_model", "tokenizer"}
    assert options - known - refused == {"from_pretrained_kwargs"}


@pytest.mark.parametrize(
    ("hook", "metadata", "words"),
    [
        ("blocks.2.hook_resid_post", {"whitened": 1}, "its metadata has a key 'whitened'"),
        (
            "blocks.2.hook_resid_post",
            {"model_from_pretrained_kwargs": {"rotate": True}},
            "model_from_pretrained_kwargs has a key 'rotate' that is not known here",
        ),
        (
            "blocks.2.attn.hook_z",
            {"model_from_pretrained_kwargs": {"fold_value_biases": True}},
            "with fold_value_biases, so on other activations than the model has at 2.head_z",
        ),
        (
            "blocks.2.attn.hook_z",
            {"model_from_pretrained_kwargs": {"refactor_factored_attn_matrices": True}},
            "loaded with refactor_factored_attn_matrices",
        ),
        (
            "blocks.2.ln2.hook_normalized",
            {"model_from_pretrained_kwargs": {"fold_ln": True}},
            "loaded with fold_ln, .* at blocks.2.ln2.hook_normalized",
        ),
        (
            "blocks.2.hook_resid_post",
            {"model_from_pretrained_kwargs": {"hf_model": "mine"}},
            "loaded with hf_model",
        ),
        ("blocks.2.hook_resid_post", {"model_class_name": "HookedMamba"}, "model_class_name"),
        ("blocks.2.hook_resid_post", {"hook_head_index": 3}, "'resid_post' has no heads"),
    ],
)
def test_what_is_not_followed_is_named(hook, metadata, words):
    with pytest.raises(UserError, match=words):
        wrap(made(hook, **metadata))


def test_what_changes_nothing_is_let_through():
    loading = {"n_devices": 2, "dtype": "bfloat16", "fold_ln": True, "center_unembed": True}
    loading |= {"fold_value_biases": True, "refactor_factored_attn_matrices": False}
    sae = wrap(made(model_from_pretrained_kwargs=loading, context_size=128, l0=3.0))
    assert not sae.centred
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sae.encode(x), sae.inner.encode(x).detach())


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("activation_fn", "tanh-relu", "has activation_fn 'tanh-relu', which is not followed"),
        ("activation_fn_kwargs", {"k": 4, "signed": True}, "keeps latents of both signs"),
        ("activation_fn_kwargs", {"power": 2}, "activation_fn_kwargs has a key 'power'"),
        ("finetuning_scaling_factor", True, "has finetuning_scaling_factor True"),
        ("rotation", "pca", "its config has a key 'rotation' that is not known here"),
        ("architecture", "batchtopk", "has the architecture 'batchtopk', which sae-lens does not"),
    ],
)
def test_keys_that_sae_lens_drops(key, value, words, tmp_path):
    made().save_model(tmp_path)
    path = tmp_path / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError, match=words):
        open_sae(tmp_path)


OLD = {
    **{"model_name": "gpt2-small", "hook_point": "blocks.2.hook_resid_pre", "hook_point_layer": 2},
    **{"hook_point_head_index": None, "dataset_path": "x", "is_dataset_tokenized": False},
    **{"context_size": 128, "use_cached_activations": False, "d_in": 8, "d_sae": 16, "seed": 42},
    **{"total_training_tokens": 300, "store_batch_size": 32, "device": "mps", "dtype": "float32"},
    **{"b_dec_init_method": "geometric_median", "expansion_factor": 32, "l1_coefficient": 8e-5},
    **{"lr": 4e-4, "lr_scheduler_name": None, "use_ghost_grads": False, "log_to_wandb": True},
    **{"feature_sampling_method": None, "resample_batches": 1028, "feature_reinit_scale": 0.2},
    **{"dead_feature_estimation_method": "no_fire", "run_name": "x", "tokens_per_buffer": 9},
}
"""As sae-lens wrote before version 6: gpt2-small-res-jb's keys."""


@pytest.mark.parametrize("said", [{}, {"prepend_bos": False}])
def test_an_old_config(said, tmp_path):
    made().save_model(tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps(OLD | said))
    sae = open_sae(tmp_path)
    assert (sae.site, sae.model) == ("2.resid_pre", "gpt2-small")
    assert saes_bos(str(tmp_path)) == sae.bos == ("never" if said else "always")


def test_a_published_sae_of_a_centred_model(tmp_path, monkeypatch):
    """gpt2-small-res-jb: sae-lens itself adds what its old config does not say."""
    made().save_model(tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps(OLD))
    save_file({"sparsity": torch.zeros(16)}, tmp_path / "sparsity.safetensors")

    def download(repo_id, filename, **more):
        return str(tmp_path / filename.split("/")[-1])

    monkeypatch.setattr(pretrained_sae_loaders, "hf_hub_download", download)
    source = "gpt2-small-res-jb:blocks.2.hook_resid_pre"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sae = open_sae(source)
    assert sae.centred
    assert (sae.site, sae.model, sae.bos) == ("2.resid_pre", "gpt2-small", "always")
    x = torch.randn(9, 8, generator=torch.Generator().manual_seed(0)) + 3
    centred = x - x.mean(1, keepdim=True)
    torch.testing.assert_close(sae.encode(x), sae.inner.encode(centred).detach())
    (tmp_path / "sae_weights.safetensors").unlink()
    assert saes_bos(source) == "always", "read without the weights"


def test_a_checkpoint_is_part_of_the_models_name():
    assert wrap(made(model_name="pythia-70m")).model == "pythia-70m"
    for key, value in (("revision", "step1000"), ("checkpoint_value", 1000)):
        sae = wrap(made(model_name="pythia-70m", model_from_pretrained_kwargs={key: value}))
        assert sae.model == f"pythia-70m@{value}"


def test_positions_it_was_trained_on():
    assert list(wrap(made()).positions(4)) == [0, 1, 2, 3]
    assert list(wrap(made(seqpos_slice=(5, -5))).positions(12)) == [5, 6]
    assert list(wrap(made(seqpos_slice=(None, None, 2))).positions(5)) == [0, 2, 4]


@pytest.mark.parametrize("told", [{"activation_fn": "topk"}, {"activation_fn_kwargs": {"k": 5}}])
def test_a_topk_activation_of_another_architecture(told):
    """sae-lens 6 would read it as ReLU; the older layout it turns into a TopK SAE."""
    own = {"architecture": "standard", "d_in": 8, "d_sae": 16}
    with pytest.raises(UserError, match="but the architecture 'standard': make it a topk SAE"):
        check_keys({**own, **told, "metadata": {}}, {"d_in", "d_sae"}, "this")
    check_keys({**own, **told}, {"d_in", "d_sae"}, "this")


def test_followed_keys_are_not_judged_twice():
    check_keys({"d_in": 8, "anything": 1}, {"d_in", "anything"}, "this")
