"""Models with a text model inside: `model_type` of config.json -> what is inside.

The text model is what is opened: its neurons, its sites, with the whole model's own logits on text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .dense import TINY


class Wrapper(NamedTuple):
    """One such model."""

    text: str
    """The text model's family where config.json does not say."""
    tied: bool
    """Whether transformers ties the embeddings where config.json does not say."""
    tiny: Mapping[str, Any]
    """The config of a tiny one, but for the text model's."""
    text_decides: bool = False
    """Whether they are tied too where only the text model's config says so."""
    no_sites: str = ""
    """Why such a model can be decoded, but not opened as a subject."""

    def tiny_config(self, text_tiny: Mapping[str, Any]) -> dict[str, Any]:
        """The whole config of a tiny model, from that of the text model's family."""
        own = {**text_tiny, **self.tiny.get("text_config", {}), "model_type": self.text}
        return {**self.tiny, "text_config": own}


_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
_PATCHES = {"image_size": 28, "patch_size": 14}
_IMAGE = TINY["vocab_size"] - 1
_TOKEN = {"image_token_index": _IMAGE}


def _tower(model_type: str = "", **more: Any) -> dict[str, Any]:
    """A vision tower's config."""
    named = {"model_type": model_type, "projection_dim": 32} if model_type else {}
    return {**_SIZES, **_PATCHES, "num_attention_heads": 2, **named, **more}


_CLIP = {**_TOKEN, "vision_config": _tower("clip_vision_model")}
_SIGLIP = {**_TOKEN, "vision_config": _tower("siglip_vision_model")}
_PLAIN = {"image_token_id": _IMAGE, "vision_config": _tower()}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
_QWEN_TOKENS = {
    **{"image_token_id": _IMAGE, "video_token_id": _IMAGE - 1},
    "vision_start_token_id": _IMAGE - 2,
}
_QWEN_TOWER = {"depth": 1, "hidden_size": 32, "num_heads": 2, "patch_size": 14}
_QWEN_25_TOWER = {**_QWEN_TOWER, "out_hidden_size": 32, "intermediate_size": 48}
_QWEN_VL = {**_QWEN_TOKENS, "text_config": {"rope_parameters": _ROPE}}
_LLAMA4_TOWER = {
    **_tower(intermediate_size=128, vision_output_dim=32),
    **{"projector_input_dim": 32, "projector_output_dim": 32},
}
_PIXTRAL = {**_TOKEN, "vision_config": _tower("pixtral", head_dim=16)}

WRAPPERS: dict[str, Wrapper] = {
    "aya_vision": Wrapper("cohere2", True, _SIGLIP),
    "gemma3": Wrapper("gemma3_text", True, {**_SIGLIP, "mm_tokens_per_image": 4}),
    "idefics3": Wrapper("llama", False, _PLAIN),
    "internvl": Wrapper(
        "qwen2",
        True,
        {**_PLAIN, "vision_config": _tower(image_size=[28, 28], patch_size=[14, 14])},
    ),
    "llama4": Wrapper("llama4_text", False, {**_TOKEN, "vision_config": _LLAMA4_TOWER}),
    "llava": Wrapper("llama", False, _CLIP, text_decides=True),
    "llava_next": Wrapper("llama", False, _CLIP),
    "llava_onevision": Wrapper(
        "qwen2", False, {**_SIGLIP, "video_token_index": _IMAGE - 1}, text_decides=True
    ),
    "mistral3": Wrapper("mistral", True, _PIXTRAL),
    "paligemma": Wrapper(
        "gemma",
        True,
        {**_SIGLIP, "projection_dim": 32, "hidden_size": 32, "vocab_size": TINY["vocab_size"]},
        no_sites="it reads a prompt in both directions, the padding of shorter rows with it",
    ),
    "qwen2_5_vl": Wrapper(
        "qwen2_5_vl_text",
        False,
        {**_QWEN_VL, "vision_config": {**_QWEN_25_TOWER, "fullatt_block_indexes": [0]}},
        text_decides=True,
    ),
    "qwen2_vl": Wrapper(
        "qwen2_vl_text",
        False,
        {**_QWEN_VL, "vision_config": {**_QWEN_TOWER, "embed_dim": 32, "mlp_ratio": 2}},
        text_decides=True,
    ),
    "qwen3_5": Wrapper("qwen3_5_text", False, {**_QWEN_TOKENS, "vision_config": _QWEN_25_TOWER}),
    "qwen3_5_moe": Wrapper(
        "qwen3_5_moe_text", False, {**_QWEN_TOKENS, "vision_config": _QWEN_25_TOWER}
    ),
    "smolvlm": Wrapper("llama", False, _PLAIN),
    "vipllava": Wrapper("llama", False, {**_CLIP, "vision_feature_layers": [-1]}),
}
