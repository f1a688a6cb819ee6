"""Every layout, written small here: activations and reconstructions are those of a plain encode and
decode of the written arrays in float64; each damaged file is one line."""

import json

import numpy as np
import pytest
import torch
from sae_lens import (
    JumpReLUTranscoder,
    JumpReLUTranscoderConfig,
    SkipTranscoder,
    SkipTranscoderConfig,
    StandardSAE,
    StandardSAEConfig,
    Transcoder,
    TranscoderConfig,
)
from safetensors.torch import load_file, save_file

from interp.errors import UserError
from interp.saes import SaeSplit, open_sae
from interp.saes.open import open_saes, saes_bos, saes_fingerprint

D, N, K = 6, 20, 3
RNG = np.random.default_rng(0)
W_ENC, W_DEC = RNG.normal(size=(D, N)), RNG.normal(size=(N, D))
B_ENC, B_DEC, THRESHOLD = RNG.normal(size=N), RNG.normal(size=D), RNG.uniform(0.1, 2, size=N)
X = 2 * RNG.normal(size=(50, D)) + 1


def relu(pre):
    return np.maximum(pre, 0)


def jump(pre, threshold):
    return relu(pre) * (pre > threshold)


def top(pre, k=K):
    kept = pre >= np.sort(pre, 1)[:, -k, None]
    return relu(pre) * kept


def tensors(**arrays):
    return {
        name.replace("__", "."): torch.tensor(np.array(value), dtype=torch.float32).contiguous()
        for name, value in arrays.items()
    }


def put(path, content):
    """Writes what the file's ending asks for; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(content))
    elif path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".pt":
        torch.save(content, path)
    else:
        save_file(content, path)
    return path


def gemma_scope(root):
    arrays = {"w_enc": W_ENC, "w_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC}
    arrays = {k: v.astype(np.float32) for k, v in (arrays | {"threshold": THRESHOLD}).items()}
    folder = root / "gemma-scope-2b-pt-res" / "layer_20" / "width_16k" / "average_l0_71"
    put(folder / "params.npz", arrays)
    z = jump(X @ W_ENC + B_ENC, THRESHOLD)
    return folder, z, z @ W_DEC + B_DEC, ("20.resid_post", "gemma-2-2b", "always")


def gemma_scope_2(root):
    folder = root / "somewhere"
    named = {"w_enc": W_ENC, "w_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC}
    put(folder / "params.safetensors", tensors(**named, threshold=THRESHOLD))
    said = {"architecture": "jump_relu", "model_name": "gemma-v3-270m-pt"}
    put(folder / "config.json", said | {"hf_hook_point_in": "model.layers.9.output"})
    z = jump(X @ W_ENC + B_ENC, THRESHOLD)
    return folder, z, z @ W_DEC + B_DEC, ("9.resid_post", "google/gemma-3-270m", "always")


def gemma_scope_2_by_its_path(root):
    folder = root / "gemma-scope-2-1b-it" / "mlp_out" / "layer_7_width_16k_l0_small"
    named = {"w_enc": W_ENC, "w_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC}
    put(folder / "params.safetensors", tensors(**named, threshold=THRESHOLD))
    z = jump(X @ W_ENC + B_ENC, THRESHOLD)
    return folder, z, z @ W_DEC + B_DEC, ("7.mlp_out", "google/gemma-3-1b-it", "always")


def llama_scope(root):
    """x' = x sqrt(d) / norm, the threshold in units of x, and outputs scaled back."""
    folder = root / "Llama3_1-8B-Base-L5R-8x"
    named = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC}
    named |= {"decoder.weight": W_DEC.T, "decoder.bias": B_DEC}
    put(folder / "checkpoints" / "final.safetensors", tensors(**named))
    said = {"d_model": D, "d_sae": N, "hook_point_in": "blocks.5.hook_resid_post"}
    said |= {"hook_point_out": "blocks.5.hook_resid_post", "act_fn": "jumprelu"}
    said |= {"jump_relu_threshold": 0.5, "norm_activation": "dataset-wise"}
    put(folder / "hyperparams.json", said | {"dataset_average_activation_norm": {"in": 7.0}})
    factor = D**0.5 / 7
    z = jump(factor * X @ W_ENC + B_ENC, 0.5 * factor)
    x_hat = (z @ W_DEC + B_DEC) / factor
    return folder, z, x_hat, ("5.resid_post", "meta-llama/Llama-3.1-8B", "always")


def qwen_scope(root):
    folder = root / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_3"
    named = {"W_enc": W_ENC.T, "W_dec": W_DEC.T, "b_enc": B_ENC, "b_dec": B_DEC}
    put(folder / "layer3.sae.pt", tensors(**named))
    z = top(X @ W_ENC + B_ENC)
    return folder, z, z @ W_DEC + B_DEC, ("3.resid_post", "Qwen/Qwen3-1.7B-Base", "always")


def openai(root):
    folder = root / "gpt2-small" / "resid_post_attn_v5_32k" / "autoencoders"
    named = {"encoder.weight": W_ENC.T, "latent_bias": B_ENC}
    named |= {"decoder.weight": W_DEC.T, "pre_bias": B_DEC}
    more = {"activation": "TopK", "activation_state_dict": {"k": K, "postact_fn": "ReLU"}}
    path = put(folder / "7.pt", tensors(**named) | more)
    mean, spread = X.mean(1, keepdims=True), X.std(1, keepdims=True, ddof=1) + 0
    z = top(((X - mean) / (spread + 1e-5) - B_DEC) @ W_ENC + B_ENC)
    return path, z, (z @ W_DEC + B_DEC) * spread + mean, ("7.resid_mid", "gpt2", "auto")


def openai_relu(root):
    folder = root / "gpt2-small" / "mlp_post_act" / "autoencoders"
    named = {"encoder.weight": W_ENC.T, "latent_bias": B_ENC}
    named |= {"decoder.weight": W_DEC.T, "pre_bias": B_DEC}
    path = put(folder / "7.pt", tensors(**named) | {"activation": "ReLU"})
    z = relu((X - B_DEC) @ W_ENC + B_ENC)
    return path, z, z @ W_DEC + B_DEC, ("7.mlp_post", "gpt2", "auto")


def sparsify(root):
    folder = root / "sae-some" / "layers.4"
    named = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}
    put(folder / "sae.safetensors", tensors(**named))
    said = {"expansion_factor": 32, "normalize_decoder": True, "num_latents": 0, "k": K}
    put(folder / "cfg.json", said | {"multi_topk": False, "d_in": D, "transcode": False})
    put(root / "sae-some" / "config.json", {"model": "EleutherAI/pythia-160m"})
    z = top((X - B_DEC) @ W_ENC + B_ENC)
    return folder, z, z @ W_DEC + B_DEC, ("4.resid_post", "EleutherAI/pythia-160m", "auto")


def trained(root, dict_class, arrays, **more):
    """As dictionary_learning's trainSAE saves it."""
    folder = root / "trainer_0"
    put(folder / "ae.pt", tensors(**arrays))
    trainer = {"dict_class": dict_class, "activation_dim": D, "dict_size": N, "layer": 3}
    trainer |= {"lm_name": "EleutherAI/pythia-70m", "submodule_name": "resid_post_layer_3"}
    buffer = {"d_submodule": D, "io": "out", "ctx_len": 128}
    put(folder / "config.json", {"trainer": trainer | more, "buffer": buffer})
    return folder


LINEAR = {"encoder.weight": W_ENC.T, "decoder.weight": W_DEC.T}
PYTHIA = ("3.resid_post", "EleutherAI/pythia-70m", "auto")


def standard(root):
    arrays = LINEAR | {"encoder.bias": B_ENC, "bias": B_DEC}
    z = relu((X - B_DEC) @ W_ENC + B_ENC)
    return trained(root, "AutoEncoder", arrays), z, z @ W_DEC + B_DEC, PYTHIA


def gated(root):
    gate, r_mag = RNG.normal(size=N), RNG.normal(size=N)
    arrays = {"decoder_bias": B_DEC, "gate_bias": gate, "mag_bias": B_ENC, "r_mag": r_mag}
    pre = (X - B_DEC) @ W_ENC
    z = (pre + gate > 0) * relu(np.exp(r_mag) * pre + B_ENC)
    return trained(root, "GatedAutoEncoder", LINEAR | arrays), z, z @ W_DEC + B_DEC, PYTHIA


def topk(root):
    arrays = LINEAR | {"encoder.bias": B_ENC, "b_dec": B_DEC, "k": K, "threshold": -1.0}
    z = top((X - B_DEC) @ W_ENC + B_ENC)
    return trained(root, "AutoEncoderTopK", arrays, k=K), z, z @ W_DEC + B_DEC, PYTHIA


def batch_topk(root):
    arrays = LINEAR | {"encoder.bias": B_ENC, "b_dec": B_DEC, "k": K, "threshold": 0.7}
    z = jump((X - B_DEC) @ W_ENC + B_ENC, 0.7)
    return trained(root, "BatchTopKSAE", arrays, k=K), z, z @ W_DEC + B_DEC, PYTHIA


def matryoshka(root):
    arrays = {"W_enc": W_ENC, "W_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC, "threshold": 0.7}
    z = jump((X - B_DEC) @ W_ENC + B_ENC, 0.7)
    return trained(root, "MatryoshkaBatchTopKSAE", arrays, k=K), z, z @ W_DEC + B_DEC, PYTHIA


def jumprelu(root):
    arrays = {"W_enc": W_ENC, "W_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC}
    arrays["threshold"] = THRESHOLD
    z = jump(X @ W_ENC + B_ENC, THRESHOLD)
    return trained(root, "JumpReluAutoEncoder", arrays), z, z @ W_DEC + B_DEC, PYTHIA


def before_version_6(root):
    """Fine-tuned factors scale the latents before they are decoded."""
    factor = RNG.uniform(0.5, 2, size=N)
    folder = root / "old"
    named = {"W_enc": W_ENC, "W_dec": W_DEC, "b_enc": B_ENC, "b_dec": B_DEC}
    put(folder / "sae_weights.safetensors", tensors(**named, scaling_factor=factor))
    said = {"model_name": "gpt2-small", "hook_point": "blocks.2.hook_resid_pre", "d_in": D}
    said |= {"d_sae": N, "dtype": "float32", "finetuning_scaling_factor": True, "hook_layer": 2}
    put(folder / "cfg.json", said)
    z = relu((X - B_DEC) @ W_ENC + B_ENC)
    return folder, z, (z * factor) @ W_DEC + B_DEC, ("2.resid_pre", "gpt2-small", "always")


LAYOUTS = (
    *(gemma_scope, gemma_scope_2, gemma_scope_2_by_its_path, llama_scope, qwen_scope, openai),
    *(openai_relu, sparsify, standard, gated, topk, batch_topk, matryoshka, jumprelu),
    before_version_6,
)


@pytest.mark.parametrize("write", LAYOUTS)
def test_it_computes_what_its_files_say(write, tmp_path):
    place, z, x_hat, named = write(tmp_path)
    for source in (place, tmp_path):
        sae = open_sae(source)
        assert (sae.site, sae.model, sae.bos) == named
        x = torch.tensor(X, dtype=torch.float32)
        assert np.abs(sae.encode(x).numpy() - z).max() < 1e-6 * max(1, np.abs(z).max())
        assert np.abs(sae.outputs(x).numpy() - x_hat).max() < 1e-6 * max(1, np.abs(x_hat).max())
        assert sae.W_dec.dtype == torch.float32
    assert saes_bos(str(place)) == named[2]
    assert open_saes(str(tmp_path), model=sae.model).site
    before = saes_fingerprint(str(place))
    damaged = max(
        (f for f in tmp_path.rglob("*") if f.is_file() and f.suffix != ".json"),
        key=lambda f: f.stat().st_size,
    )
    damaged.write_bytes(damaged.read_bytes() + b"0")
    assert saes_fingerprint(str(place)) != before


def refused(source, **named):
    with pytest.raises(UserError) as caught:
        open_sae(source, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("write", LAYOUTS)
def test_what_is_damaged_is_one_line(write, tmp_path):
    place = write(tmp_path)[0]
    files = [f for f in tmp_path.rglob("*") if f.is_file() and f.parent.name != "sae-some"]
    for file in files:
        whole = file.read_bytes()
        for kept in (0, 5, len(whole) // 2, len(whole) - 3):
            file.write_bytes(whole[:kept])
            line = refused(place)
            said = ("cannot be read", "is broken JSON", "is truncated or corrupt")
            assert any(words in line for words in said)
        file.write_bytes(whole)
    assert "not of 3.head_z" in refused(place, site="3.head_z")
    assert "not of smollm2-135m" in refused(place, model="smollm2-135m")


def test_a_nan_is_named(tmp_path):
    place = sparsify(tmp_path)[0]
    held = load_file(place / "sae.safetensors")
    held["W_dec"][3, 2] = torch.nan
    save_file(held, place / "sae.safetensors")
    assert "is damaged: its W_dec holds a NaN" in refused(place)


def test_a_layout_that_is_not_known(tmp_path):
    put(tmp_path / "weights.safetensors", tensors(a=W_ENC))
    for source in (tmp_path, tmp_path / "weights.safetensors"):
        line = refused(source)
        assert "holds no SAEs: give a folder or file with cfg.json and sae_weights" in line
        assert "ae.pt (dictionary_learning)" in line
    put(tmp_path / "some.pt", tensors(a=W_ENC))
    assert "no SAE of OpenAI's, it has no decoder.weight" in refused(tmp_path / "some.pt")
    put(tmp_path / "a" / "hyperparams.json", {})
    assert "holds no SAE (no file final.safetensors)" in refused(tmp_path / "a")


def test_what_would_be_read_otherwise_is_refused(tmp_path):
    place = sparsify(tmp_path)[0]
    said = json.loads((place / "cfg.json").read_text())
    for change, words in (
        ({"transcode": True}, "has transcode True"),
        ({"activation": "groupmax"}, "has activation 'groupmax'"),
        ({"rotation": 1}, "a key 'rotation' that is not known here"),
    ):
        put(place / "cfg.json", said | change)
        assert words in refused(place)
    arrays = LINEAR | {"encoder.bias": B_ENC, "decoder.bias": B_DEC}
    assert "has dict_class 'AutoEncoderNew'" in refused(trained(tmp_path, "AutoEncoderNew", arrays))
    place = qwen_scope(tmp_path)[0].rename(tmp_path / "qwen")
    assert "call it as on the hub" in refused(place)
    place = llama_scope(tmp_path)[0]
    said = json.loads((place / "hyperparams.json").read_text())
    put(place / "hyperparams.json", said | {"hook_point_out": "blocks.5.hook_mlp_out"})
    assert "has hook_point_out" in refused(place)
    put(place / "hyperparams.json", said | {"sparsity_include_decoder_norm": True})
    assert "by the lengths of its decoder's rows" in refused(place)
    place = before_version_6(tmp_path)[0]
    said = json.loads((place / "cfg.json").read_text())
    put(place / "cfg.json", said | {"finetuning_scaling_factor": False})
    assert "Scaling factor is present" in refused(place)


def test_a_hook_that_is_no_site_here_is_none(tmp_path):
    arrays = LINEAR | {"encoder.bias": B_ENC, "bias": B_DEC}
    place = trained(tmp_path, "AutoEncoder", arrays, submodule_name="mlp_layer_3")
    assert (open_sae(place).site, open_sae(place).hook) == ("", "mlp_layer_3 (out)")
    place = sparsify(tmp_path)[0]
    place = place.rename(place.parent / "layers.4.mlp")
    assert (open_sae(place).site, open_sae(place).hook) == ("", "layers.4.mlp")


def test_a_model_and_site_that_are_told(tmp_path):
    folder = gemma_scope(tmp_path)[0].rename(tmp_path / "plain")
    assert (open_sae(folder).site, open_sae(folder).model, open_sae(folder).told) == ("", "", "")
    sae = open_sae(folder, site="9.resid_post", model="gemma-2-2b")
    assert (sae.site, sae.model) == ("9.resid_post", "gemma-2-2b")
    assert sae.told == "whoever opened it (the site and the model)"
    assert open_sae(gemma_scope(tmp_path)[0]).told == "the names of its folders"


@pytest.mark.parametrize("kind", ["relu", "skip", "jumprelu"])
def test_a_transcoder_writes_at_another_site(kind, tmp_path):
    classes = {
        "relu": (Transcoder, TranscoderConfig),
        "skip": (SkipTranscoder, SkipTranscoderConfig),
        "jumprelu": (JumpReLUTranscoder, JumpReLUTranscoderConfig),
    }
    made, config = classes[kind]
    inner = made(config(d_in=D, d_sae=N, d_out=4, apply_b_dec_to_input=False))
    w_out, b_out, skip = RNG.normal(size=(N, 4)), RNG.normal(size=4), RNG.normal(size=(4, D))
    own = tensors(W_enc=W_ENC, b_enc=B_ENC, W_dec=w_out, b_dec=b_out)
    own |= tensors(W_skip=skip) if kind == "skip" else {}
    own |= tensors(threshold=THRESHOLD) if kind == "jumprelu" else {}
    inner.load_state_dict(own)
    inner.cfg.metadata.hook_name = "blocks.2.mlp.hook_in"
    inner.cfg.metadata.hook_name_out = "blocks.2.hook_mlp_out"
    inner.save_model(tmp_path)
    sae = open_sae(tmp_path)
    assert (sae.site, sae.out_site, sae.d_out, sae.transcodes) == ("2.mlp_in", "2.mlp_out", 4, True)
    pre = X @ W_ENC + B_ENC
    z = jump(pre, THRESHOLD) if kind == "jumprelu" else relu(pre)
    want = z @ w_out + b_out + (X @ skip.T if kind == "skip" else 0)
    x = torch.tensor(X, dtype=torch.float32)
    np.testing.assert_allclose(sae.encode(x), z, atol=1e-5)
    np.testing.assert_allclose(sae.outputs(x), want, atol=1e-5)
    assert sae.decode(sae.encode(x)).shape == (50, 4)
    for use in (lambda: sae.quality(x), lambda: SaeSplit.of(sae, x)):
        with pytest.raises(UserError, match="is a transcoder: it gives blocks.2.hook_mlp_out"):
            use()


def test_gemma_scopes_transcoders(tmp_path):
    place = gemma_scope(tmp_path)[0]
    named = tmp_path / "gemma-scope-2b-pt-transcoders" / "layer_5" / "width_16k" / "average_l0_9"
    named.parent.mkdir(parents=True)
    place.rename(named)
    sae = open_sae(named)
    assert (sae.hook, sae.site, sae.out_site) == ("blocks.5.ln2.hook_normalized", "", "5.mlp_out")
    place = gemma_scope_2(tmp_path)[0]
    said = json.loads((place / "config.json").read_text())
    said |= {"hf_hook_point_in": "model.layers.9.pre_feedforward_layernorm.output"}
    said |= {"hf_hook_point_out": "model.layers.9.post_feedforward_layernorm.output"}
    put(place / "config.json", said)
    sae = open_sae(place)
    assert (sae.site, sae.out_site, sae.transcodes) == ("9.mlp_in", "9.mlp_out", True)


def test_several_saes_are_named(tmp_path):
    for name in ("a", "b"):
        StandardSAE(StandardSAEConfig(d_in=D, d_sae=N)).save_model(tmp_path / name)
    assert f"holds several SAEs: give one of {tmp_path / 'a'}, {tmp_path / 'b'}" in refused(
        tmp_path
    )
    assert open_sae(tmp_path / "a" / "cfg.json").d_sae == N


@pytest.mark.parametrize("module", ["mlp", "self_attn", "post_attention_layernorm"])
def test_what_a_layer_adds_is_not_taken_for_the_stream(module, tmp_path):
    """It is as wide as the stream, so no size tells them apart."""
    folder, *_ = gemma_scope_2(tmp_path)
    said = json.loads((folder / "config.json").read_text())
    said["hf_hook_point_in"] = f"model.layers.9.{module}.output"
    put(folder / "config.json", said)
    assert "neither a config.json" in refused(folder)


def test_a_transcoder_is_one_by_both_of_its_modules(tmp_path):
    folder, *_ = gemma_scope_2(tmp_path)
    said = json.loads((folder / "config.json").read_text())
    put(folder / "config.json", said | {"hf_hook_point_out": "model.layers.10.output"})
    assert "neither a config.json" in refused(folder)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"use_decoder_bias": False}, "has use_decoder_bias False"),
        ({"dataset_average_activation_norm": {"in": 7.0, "out": 3.0}}, "has out 3.0"),
    ],
)
def test_what_llama_scope_says_and_is_not_followed(more, says, tmp_path):
    folder, *_ = llama_scope(tmp_path)
    said = json.loads((folder / "hyperparams.json").read_text())
    put(folder / "hyperparams.json", said | more)
    assert says in refused(folder)
