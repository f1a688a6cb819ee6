"""What an SAE's config says, key by key: followed, refused by name, or without effect on numbers.

sae-lens keeps the keys of its config classes, and drops others without a word; what it finds in
`metadata` it does not use. An SAE of activations that were changed first, though, is another SAE of
those a model has. So every key is judged here: those of cfg.json (`check_keys`), of its metadata
and of the metadata's `model_from_pretrained_kwargs` (`reads_centred`). The lists hold what sae-lens
0.1 to 6.54 write, and what its loaders of published SAEs put there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import UserError
from ..plain_json import check
from .hooks import STREAM

_TRAINING = """
    adam_beta1 adam_beta2 autocast autocast_lm b_dec_init_method compile_llm compile_sae
    dead_feature_estimation_method dead_feature_threshold dead_feature_window
    decoder_heuristic_init decoder_heuristic_init_norm decoder_init_norm decoder_orthogonal_init
    expansion_factor feature_reinit_scale feature_sampling_method feature_sampling_window
    finetuning_method finetuning_tokens from_pretrained_path init_encoder_as_decoder_transpose
    jumprelu_bandwidth jumprelu_init_threshold jumprelu_sparsity_loss_mode jumprelu_ste_to_input
    jumprelu_tanh_scale target_l0 use_matryoshka_aux_loss l0_coefficient
    l0_warm_up_steps l1_coefficient l1_warm_up_steps llm_compilation_mode lp_norm lr lr_decay_steps
    lr_end lr_scheduler_name lr_warm_up_steps mse_loss_normalization n_restart_cycles noise_scale
    normalize_sae_decoder pre_act_loss_coefficient resample_batches sae_compilation_mode
    scale_sparsity_penalty_by_decoder_norm seed train_batch_size train_batch_size_tokens
    training_architecture training_architecture_details training_tokens total_training_tokens
    use_ghost_grads aux_loss_coefficient topk_threshold_lr use_sparse_activations
    n_batches_for_norm_estimate matryoshka_widths
"""
"""How its weights were found."""
_TEXT = """
    act_store_device activations_mixing_fraction cached_activations_path context_size dataset_path
    dataset_trust_remote_code disable_concat_sequences hook_eval hook_point_eval
    is_dataset_tokenized n_batches_in_buffer sequence_separator_token store_batch_size
    store_batch_size_prompts streaming tokens_per_buffer use_cached_activations use_chat_formatting
"""
"""On which text: it makes the SAE better or worse at other text, not another function."""
_RECORD = """
    checkpoint_path device dtype eval_batch_size_prompts eval_every_n_wandb_logs hf_hook_name l0
    llm_device log_activations_store_to_wandb log_optimizer_state_to_wandb log_to_wandb logger
    model_kwargs n_checkpoints n_eval_batches neuronpedia_id num_dead_features output_path
    prefetch_llm_batches resume resume_from_checkpoint run_name sae_lens_training_version
    sae_lens_version save_final_checkpoint verbose wandb_entity wandb_id wandb_log_frequency
    wandb_project
"""
"""Where it was computed, logged and kept, in which precision, by which version, with what success;
and a hook's name in transformers beside the one in TransformerLens."""
_ELSEWHERE = """
    exclude_special_tokens hook_head_index hook_head_index_out hook_layer hook_name hook_name_out
    hook_point hook_point_head_index hook_point_layer model_from_pretrained_kwargs model_name
    prepend_bos reads seqpos_slice architecture metadata jump_relu_threshold hf_hook_name_out
"""
"""Followed: by `Sae`, `wrap` and `no_data`; the threshold is among the weights too."""
HARMLESS = frozenset(f"{_TRAINING} {_TEXT} {_RECORD} {_ELSEWHERE}".split())
ONLY: Mapping[str, tuple[Any, ...]] = {
    "activation_fn": (None, "relu", "topk"),
    "activation_fn_str": (None, "relu", "topk"),
    "finetuning_scaling_factor": (None, False),
    "model_class_name": (None, "HookedTransformer", "AutoModelForCausalLM"),
}
"""Keys that sae-lens reads no longer, or not here, with the values that need nothing done."""

_LOADING = """
    device n_devices move_to_device device_map max_memory offload_folder cache_dir token
    use_auth_token trust_remote_code local_files_only force_download low_cpu_mem_usage
    use_safetensors attn_implementation dtype torch_dtype load_in_8bit load_in_4bit
    default_prepend_bos default_padding_side first_n_layers n_ctx checkpoint_index checkpoint_value
    checkpoint_label revision model_name
"""
LOADING = frozenset(_LOADING.split())
"""Of `model_from_pretrained_kwargs`: where the model lay, how it was rounded, how text was padded
(sae-lens puts BOS there itself), which layers behind were left out; and whose weights they were,
which `Sae.model` says."""
PROCESSING = ("fold_ln", "center_unembed", "fold_value_biases", "refactor_factored_attn_matrices")
"""What TransformerLens does to the weights, the model's logits kept, besides centring. The
first changes what MLPs read behind their norm, the last two what heads give."""
CENTRED = "center_writing_weights"


_KINDS: Mapping[str, Any] = {
    **dict.fromkeys(("architecture", "dtype", "device", "normalize_activations"), str | None),
    **dict.fromkeys(("reshape_activations", "sae_lens_version", "reads"), str | None),
    **dict.fromkeys(("model_name", "hook_name", "hook_name_out", "hook_point"), str | None),
    **dict.fromkeys(("d_in", "d_sae", "d_out", "hook_head_index"), int | None),
    "apply_b_dec_to_input": bool,
    "prepend_bos": bool | None,
    **dict.fromkeys(
        ("metadata", "model_from_pretrained_kwargs", "activation_fn_kwargs"), dict | None
    ),
}
"""Of which kind the values are that are followed."""
SIZES = ("d_in", "d_sae", "d_out")


def check_kinds(config: Mapping[str, Any], name: str) -> None:
    """Raise UserError for a cfg.json with a value of another kind than sae-lens writes."""
    for part in (config, config.get("metadata")):
        if isinstance(part, Mapping):
            for key in _KINDS.keys() & part.keys():
                where = f"'{key}' in the config of {name}"
                check(part[key], _KINDS[key], where, "replace the SAE")


def metadata_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a cfg.json says of the SAE's training. Before sae-lens 6 it stood beside the sizes, and
    a BOS went before each text unless it said otherwise."""
    metadata = config.get("metadata") or {}
    version = str(config.get("sae_lens_version") or metadata.get("sae_lens_version") or "0")
    major = version.partition(".")[0]
    if re.fullmatch("[0-9]{1,4}", major) and int(major) >= 6:
        return dict(metadata)
    return {"prepend_bos": True, **config}


def check_keys(config: Mapping[str, Any], followed: Collection[str], name: str) -> None:
    """Judge the keys of an SAE's cfg.json, or of what a loader of published SAEs gives for it.

    Args:
        followed: those that sae-lens' class of this architecture follows.

    Raises:
        UserError: a key that is not known, or a value that is not followed.
    """
    for key, value in config.items():
        if key in followed:
            continue
        if key == "activation_fn_kwargs":
            signed = dict(value or {}).get("signed")
            _check_known(dict(value or {}), ("k", "signed"), f"{name}: its activation_fn_kwargs")
            if signed:
                raise UserError(
                    f"{name} keeps latents of both signs (signed), which sae-lens does not read: "
                    "make it an abstopk SAE"
                )
        elif key in ONLY:
            _check_value(key, value, name)
        else:
            _check_known((key,), HARMLESS, f"{name}: its config")
        # sae-lens makes a TopK SAE of the older layout, which has no metadata, but not of its own
        dense = "metadata" in config and "k" not in followed
        if dense and (value == "topk" or (key == "activation_fn_kwargs" and "k" in (value or {}))):
            raise UserError(
                f"{name} has {key} {value!r}, but the architecture "
                f"{config.get('architecture', 'standard')!r}: make it a topk SAE"
            )


def check_said(
    config: Mapping[str, Any],
    only: Mapping[str, tuple[Any, ...]],
    name: str,
    harmless: Collection[str] | None = None,
) -> None:
    """Judge what the config of another library than sae-lens says.

    Args:
        only: its keys that may change what the SAE computes, with the values that are followed.
        harmless: its other keys; None where any may stand there.

    Raises:
        UserError: another value, or a key that is not known.
    """
    if harmless is not None:
        _check_known(config, (*only, *harmless), f"{name}: its config")
    for key, values in only.items():
        if key in config and config[key] not in values:
            raise UserError(
                f"{name} has {key} {config[key]!r}, which is not followed here: give another SAE"
            )


def _check_value(key: str, value: Any, name: str) -> None:
    if value not in ONLY[key]:
        raise UserError(f"{name} has {key} {value!r}, which is not followed here: give another SAE")


def _check_known(keys: Collection[str], known: Collection[str], what: str) -> None:
    for key in keys:
        if key not in known:
            raise UserError(
                f"{what} has a key '{key}' that is not known here, so it may change what the SAE "
                "reads: if it does not, save the SAE without it"
            )


def reads_centred(metadata: Mapping[str, Any], site: str, name: str) -> bool:
    """Whether an SAE of a site reads the stream without its mean over d_model: TransformerLens'
    `center_writing_weights` takes the mean from all that is written to the stream. No LayerNorm
    sees it go, so heads and neurons stay as they are.

    Args:
        site: "" for one that is not known here.

    Raises:
        UserError: a key that is not known, or says that the activations are others than a model
            has at the site.
    """
    for key, value in metadata.items():
        if key in ONLY:
            _check_value(key, value, name)
        else:
            _check_known((key,), HARMLESS, f"{name}: its metadata")
    kwargs = metadata.get("model_from_pretrained_kwargs") or {}
    known = (*LOADING, *PROCESSING, CENTRED, "hf_model", "tokenizer")
    _check_known(kwargs, known, f"{name}: its model_from_pretrained_kwargs")
    kind = site.split(".")[1] if site else ""
    kept = {"": (), "head_z": (CENTRED, *PROCESSING[:2]), "mlp_in": (CENTRED, *PROCESSING[1:])}.get(
        kind, (CENTRED, *PROCESSING)
    )
    for key, value in kwargs.items():
        if value and key not in (*LOADING, *kept):
            raise UserError(
                f"{name} was trained on a model loaded with {key}, so on other activations than "
                f"the model has at {site or metadata.get('hook_name') or 'its hook'}: give "
                "another SAE"
            )
    return bool(kwargs.get(CENTRED)) and kind in STREAM
