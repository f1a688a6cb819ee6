"""How the SAEs of each layout become a config and weights in sae-lens' names.

sae-lens' own loaders convert the weights (`seam`), told here what they would guess from names on
the hub: the sizes, and where the path says nothing, no model and no site. Two layouts are converted
here: OpenAI's, for which it has no loader, and sparsify's, which its loader (6.54) reads otherwise
than sparsify: it turns W_dec, takes b_dec from the input of some SAEs alone, and `layers.3.mlp` for
the residual stream.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..plain_json import read_json
from .config import check_kinds, check_said
from .layouts import Stored
from .seam import loaders_of

FLOAT = {"dtype": "float32"}
UNIT = 0.01
"""How far decoder rows may be from length 1 where an SAE's gates take their lengths for 1: bfloat16
rounds to less."""


FIX = "replace the SAE"


class Read(NamedTuple):
    """What a layout's files hold."""

    config: dict[str, Any]
    state: dict[str, Tensor]
    told: str = ""
    """What its model and site are known by, if not by its own files."""


def stored_config(stored: Stored) -> dict[str, Any]:
    """What the config of an SAE holds.

    Raises:
        UserError: it cannot be read, or has a value of another kind than its library writes.
    """
    config: dict[str, Any] = read_json(_config(stored), FIX)
    check_kinds(config, str(stored.place))
    return config


def sae_lens(stored: Stored, device: str) -> Read:
    """As sae-lens saves. What scaled the latents of SAEs before its version 6 becomes part of the
    decoder."""
    from sae_lens.loading.pretrained_sae_loaders import sae_lens_disk_loader

    said = stored_config(stored)
    config, state = sae_lens_disk_loader(stored.place, device, FLOAT)
    return Read(scaled(config, state, said.get("finetuning_scaling_factor")), state)


def scaled(config: dict[str, Any], state: dict[str, Tensor], asked: Any) -> dict[str, Any]:
    """Make the factors of fine-tuning part of W_dec, in place, as sae-lens applied them before its
    version 6: x_hat = (factor z) W_dec + b_dec. Returns the config; one that asks for factors the
    weights lack still does so.

    Raises:
        ValueError: factors that the config does not ask for.
    """
    factor = state.pop("finetuning_scaling_factor", None)
    if factor is None:
        return {**config, "finetuning_scaling_factor": asked or False}
    if not asked:
        raise ValueError("its weights hold a finetuning_scaling_factor that its config denies")
    state["W_dec"] = state["W_dec"] * factor[:, None]
    return {**config, "finetuning_scaling_factor": False}


def gemma_scope(stored: Stored, device: str) -> Read:
    """`gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71/params.npz`: the path alone tells
    model, site and whether it is a transcoder."""
    path = _path(stored)
    about = re.search(r"gemma-scope-(2b|9b|27b)-(pt|it)-(res|mlp|att|transcoders)", path)
    layer, embedding = re.search(r"layer_([0-9]+)", path), "/embedding/" in path
    known = about is not None and (layer is not None or embedding)
    with np.load(stored.weights) as arrays:
        shape, out = arrays["w_enc"].shape, arrays["b_dec"].shape
    sizes = {"d_in": int(shape[0]), "d_sae": int(shape[1])}
    folder = "embedding" if embedding else f"layer_{layer[1] if layer else 0}"
    transcoder = about is not None and about[3] == "transcoders"
    if transcoder:
        sizes["d_out"] = int(out[0])
    unsaid = {} if known else {"model_name": None, "hook_name": ""}
    loaders = loaders_of([stored.weights])
    load = loaders.NAMED_PRETRAINED_SAE_LOADERS["gemma_2_transcoder" if transcoder else "gemma_2"]
    repository = about[0] if known and about else "gemma-scope-2b-pt-res"
    config, state, _ = load(
        repository, f"{folder}/width_16k", device, False, {**FLOAT, **sizes, **unsaid}
    )
    return Read(config, state, "the names of its folders" if known else "")


def gemma_scope_2(stored: Stored, device: str) -> Read:
    """A config.json says the model and where in transformers' module it reads; without one the path
    does: `gemma-scope-2-270m-pt/resid_post/layer_9_width_16k_l0_small`."""
    path, config = _path(stored), _config(stored)
    said = stored_config(stored) if config.is_file() else {}
    about = re.search(r"gemma-scope-2-(270m|1b|4b|12b|27b)-(pt|it)", path)
    module = str(said.get("hf_hook_point_in", ""))
    if said:
        layer = re.search(r"layers\.([0-9]+)\.", module)
        kind = _gemma_kind(module, said.get("hf_hook_point_out"))
    else:
        layer = re.search(r"layer_([0-9]+)", path)
        named = re.search(r"/(resid_post|attn_out|mlp_out|transcoder)[^/]*/", path)
        kind = named[1] if named else ""
    if not (layer and kind and (said or about)):
        raise ValueError(
            "neither a config.json (hf_hook_point_in) nor its folders' names say its model and site"
        )
    repository = f"google/{about[0]}" if about else "google/gemma-scope-2"
    affine = "_affine" if "affine" in path else ""
    loaders = loaders_of(stored.files)
    read, state, _ = loaders.gemma_3_sae_huggingface_loader(
        repository, f"{kind}{affine}/layer_{layer[1]}", device, False, FLOAT
    )
    if state["W_dec"].ndim != 2:
        raise ValueError("it writes to several layers, as a cross-layer transcoder does")
    return Read(read, state, "" if said else "the names of its folders")


def _gemma_kind(module: str, out: Any) -> str:
    """sae-lens' word for where an SAE of Gemma Scope 2 reads; "" for a module that it has none for:
    all that a layer adds to the stream is as wide as the stream, so nothing else would tell."""
    normed = (".pre_feedforward_layernorm.output", ".post_feedforward_layernorm.output")
    if out and out != module:
        return "transcoder" if (_within(module), _within(str(out))) == normed else ""
    kinds = {
        ".self_attn.o_proj.input": "attn_out",
        normed[1]: "mlp_out",
        ".output": "resid_post",
    }
    return kinds.get(_within(module), "")


def _within(module: str) -> str:
    """'model.layers.9.mlp.output' -> '.mlp.output'."""
    named = re.fullmatch(r"(?:.*\.)?layers\.[0-9]+(\..*)", module)
    return named[1] if named else ""


def llama_scope(stored: Stored, device: str) -> Read:
    """Of activations scaled to a mean norm of sqrt(d) over the dataset: the scale, which
    hyperparams.json gives, becomes part of the weights."""
    said = stored_config(stored)
    only = {
        "act_fn": ("jumprelu",),
        "norm_activation": ("dataset-wise",),
        "use_glu_encoder": (False, None),
        "hook_point_out": (said["hook_point_in"], None),
        "use_decoder_bias": (True, None),
    }
    check_said(said, only, str(stored.place))
    norms = said["dataset_average_activation_norm"]
    check_said(norms, {"out": (norms["in"], None)}, str(stored.place))
    factor = said["d_model"] ** 0.5 / norms["in"]
    known = "Llama3_1-8B" in _path(stored)
    more = {
        "apply_b_dec_to_input": bool(said.get("apply_decoder_bias_to_pre_encoder")),
        **({} if known else {"model_name": None}),
    }
    loaders = loaders_of(stored.files)
    config, state, _ = loaders.llama_scope_sae_huggingface_loader(
        "", stored.place.name, device, False, FLOAT | more
    )
    lengths = state["W_dec"].norm(dim=1)
    if said.get("sparsity_include_decoder_norm") and not bool(((lengths - 1).abs() < UNIT).all()):
        raise UserError(
            f"{stored.place} gates its latents by the lengths of its decoder's rows, which are not "
            "1: give another SAE"
        )
    state["W_enc"] = state["W_enc"] * factor
    state["W_dec"], state["b_dec"] = state["W_dec"] / factor, state["b_dec"] / factor
    config["normalize_activations"] = "none"
    return Read(config, state, "the names of its folders (the model)" if known else "")


_KINDS = (
    *("AutoEncoder", "GatedAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE"),
    *("MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder"),
)


def dictionary_learning(stored: Stored, device: str) -> Read:
    """A trainer's ae.pt. A norm_factor of the activations is in its biases already. Whether texts
    began with a BOS was up to the tokenizer, so it is not said."""
    said = stored_config(stored)
    trainer, buffer = said["trainer"], said.get("buffer") or {}
    check_said(trainer, {"dict_class": _KINDS}, str(stored.place))
    if "ctx_len" not in buffer:
        raise ValueError("its config.json has no buffer with a ctx_len")
    part = str(trainer.get("submodule_name") or "resid_post")
    stream = re.fullmatch(r"resid(_post)?(_layer_?[0-9]+)?", part) and buffer.get("io") != "in"
    hook = {} if stream else {"hook_name": f"{part} ({buffer.get('io', 'out')})"}
    more = {"model_name": trainer.get("lm_name"), "prepend_bos": None}
    loaders = loaders_of(stored.files)
    config, state, _ = loaders.dictionary_learning_sae_huggingface_loader_1(
        "", stored.place.name, device, False, FLOAT | more | hook
    )
    return Read(config, state)


_SPARSIFY = {"activation": ("topk", None), "signed": (False, None), "transcode": (False, None)}
_SPARSIFY |= {"skip_connection": (False, None)}
_HARMLESS = ("d_in", "k", "num_latents", "expansion_factor", "normalize_decoder", "multi_topk")


def sparsify(stored: Stored, device: str) -> Read:
    """A hookpoint's folder, `layers.3`, beside which a config.json may name the model."""
    from safetensors.torch import load_file

    said = stored_config(stored)
    check_said(said, _SPARSIFY, str(stored.place), _HARMLESS)
    folder = stored.place.absolute()
    beside = folder.parent / "config.json"
    model = read_json(beside, FIX).get("model") if beside.is_file() else None
    layer = re.fullmatch(r"(?:layers|h)[._]([0-9]+)", folder.name)
    module = re.search(r"(?:layers|h)[._][0-9]+|embed", folder.name)
    tensors = load_file(stored.weights, device=device)
    state = {
        "W_enc": tensors["encoder.weight"].T.contiguous(),
        "b_enc": tensors["encoder.bias"],
        "W_dec": tensors["W_dec"],
        "b_dec": tensors["b_dec"],
    }
    hook = folder.name if module else ""
    config = _topk(state, said["k"], device) | {
        "model_name": model,
        "hook_name": f"blocks.{layer[1]}.hook_resid_post" if layer else hook,
    }
    return Read(config, state, "the name of its folder (the site)" if layer else "")


def qwen_scope(stored: Stored, device: str) -> Read:
    """`SAE-Res-Qwen3-1.7B-Base-W32K-L0_50/layer0.sae.pt`: the path alone tells the model and k."""
    named = re.search(r"SAE-Res-[^/]+-W[0-9]+K-L0_[0-9]+", _path(stored))
    if named is None:
        raise ValueError(
            "how many latents are active stands in the name of its folder alone: call it as on the "
            "hub, SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
        )
    d_sae, d_in = _tensors(stored, device)["W_enc"].shape
    loaders = loaders_of(stored.files)
    config, state, _ = loaders.qwen_scope_sae_huggingface_loader(
        named[0], stored.weights.name, device, False, {**FLOAT, "d_in": d_in, "d_sae": d_sae}
    )
    return Read(config, state, "the names of its folder and file")


_PLACES = {
    "resid_post_mlp": "hook_resid_post",
    "resid_post_attn": "hook_resid_mid",
    "resid_delta_attn": "hook_attn_out",
    "resid_delta_mlp": "hook_mlp_out",
    "mlp_post_act": "mlp.hook_post",
}
"""OpenAI's names of places in GPT-2, and hooks."""


def openai(stored: Stored, device: str) -> Read:
    """`gpt2-small/resid_post_mlp_v5_32k/autoencoders/7.pt`: the path alone tells model and site.

    TopK ones read x' = (x - mean(x)) / (sd(x) + 1e-5) and their outputs are scaled back; ReLU ones
    read x. Source: sparse_autoencoder/model.py, `Autoencoder.from_state_dict`.
    """
    tensors = _tensors(stored, device)
    missing = {"pre_bias", "latent_bias", "encoder.weight", "decoder.weight"} - tensors.keys()
    if missing:
        raise ValueError(f"it is no SAE of OpenAI's, it has no {', '.join(sorted(missing))}")
    state = {
        "W_enc": tensors["encoder.weight"].T.contiguous(),
        "b_enc": tensors["latent_bias"],
        "W_dec": tensors["decoder.weight"].T.contiguous(),
        "b_dec": tensors["pre_bias"],
    }
    about, name = tensors.get("activation_state_dict") or {}, str(stored.place)
    check_said(tensors, {"activation": ("TopK", "ReLU")}, name)
    check_said(about, {"postact_fn": ("ReLU",)}, name)
    config = _topk(state, int(about["k"]) if "k" in about else None, device)
    if tensors.get("activation") == "TopK":
        config["normalize_activations"] = "layer_norm"
    place = re.search(rf"/gpt2-small/({'|'.join(_PLACES)})[^/]*/", _path(stored))
    layer = re.fullmatch(r"([0-9]+)\.pt", stored.weights.name)
    if not (place and layer):
        return Read(config, state)
    names = {"model_name": "gpt2", "hook_name": f"blocks.{layer[1]}.{_PLACES[place[1]]}"}
    return Read(config | names, state, "the names of its folders and file")


def _topk(state: Mapping[str, Tensor], k: int | None, device: str) -> dict[str, Any]:
    """The config of a TopK SAE that says nothing of its texts; without a k a ReLU one."""
    return {
        "architecture": "standard" if k is None else "topk",
        **({} if k is None else {"k": k}),
        "d_in": state["W_enc"].shape[0],
        "d_sae": state["W_enc"].shape[1],
        "device": device,
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "prepend_bos": None,
        "hook_name": "",
        "model_name": None,
        **FLOAT,
    }


def _tensors(stored: Stored, device: str) -> dict[str, Any]:
    """What a .pt file holds, without running anything in it.

    Raises:
        ValueError: no dictionary.
    """
    held = torch.load(stored.weights, map_location=device, weights_only=True, mmap=True)
    if not isinstance(held, dict):
        raise ValueError("it holds no tensors by name")
    return held


def _config(stored: Stored) -> Path:
    assert stored.config is not None
    return stored.config


def _path(stored: Stored) -> str:
    """Its path with the names that the user sees: a link's target may have none."""
    return stored.weights.absolute().as_posix()
