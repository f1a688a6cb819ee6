"""TransformerLens: a TransformerBridge around a private copy of the model.

Booting changes the transformers object in place, so the copy is given up to the bridge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from ...errors import UserError
from ..families import Family, ModelSpec
from ..site import LAYER_KINDS, Site
from . import Tap
from .hooks import Stop, check_all_fired, counting
from .locations import locations
from .midstream import through_attention, with_mid

_NAMES = {
    "resid_pre": "blocks.{}.hook_resid_pre",
    "head_v": "blocks.{}.attn.hook_v",
    "attn_pattern": "blocks.{}.attn.hook_pattern",
    "head_z": "blocks.{}.attn.hook_z",
    "attn_out": "blocks.{}.hook_attn_out",
    "mlp_in": "blocks.{}.mlp.hook_in",
    "mlp_gate": "blocks.{}.mlp.gate.hook_out",
    "mlp_up": "blocks.{}.mlp.in.hook_out",
    "mlp_post": "blocks.{}.mlp.hook_post",
    "mlp_out": "blocks.{}.hook_mlp_out",
    "resid_post": "blocks.{}.hook_resid_post",
    "final_norm_in": "ln_final.hook_in",
    "logits": "unembed.hook_out",
}


class BridgeBackend:
    """A TransformerBridge run with its own hooks.

    Raises:
        UserError: TransformerLens does not know the architecture.
    """

    def __init__(self, model: Any, spec: ModelSpec) -> None:
        there = locations(spec, model)
        with _known(model):
            self.bridge = _boot(model)
        for block in self.bridge.blocks:
            if hasattr(block, "attn"):  # not where attention is of another kind (Qwen 3.5)
                block.attn.register_forward_pre_hook(_cache_by_its_old_name, with_kwargs=True)
        names = _NAMES | _post_norms(spec.family)
        every = {
            Site(kind, layer if kind in LAYER_KINDS else None): name.format(layer)
            for layer in range(spec.n_layers)
            for kind, name in names.items()
            if kind != "mlp_gate" or "gate" in spec.kinds
        }
        with _known(model):
            fired = self._fired(set(every.values()))
        # hooks of experts' parts fire too, for one expert or the last one
        self._names = {
            site: name
            for site, name in every.items()
            if name in fired and (site in there or site.kind == "attn_pattern")
        }
        self.sites = with_mid(self._names, spec)

    def _fired(self, names: set[str]) -> set[str]:
        """Those of some hooks that a pass reaches: not every architecture has all."""
        fired: set[str] = set()
        there = [name for name in names if name in self.bridge.hook_dict]
        hooks = [(name, lambda x, hook, name=name: fired.add(name)) for name in there]
        device = next(self.bridge.parameters()).device
        with torch.no_grad(), self.bridge.hooks(fwd_hooks=hooks):
            self.bridge(torch.tensor([[1, 2]], device=device))
        return fired

    def run(self, inputs: dict[str, Any], taps: Mapping[Site, Tap], stop: bool) -> Tensor | None:
        moved = through_attention(taps)
        left = set(moved)

        def hook(site: Site, tap: Tap) -> tuple[str, Any]:
            counted = counting(tap, site, left, stop)
            return self._names[site], lambda x, hook: counted(x)

        ids = inputs["input_ids"]
        rest = {name: value for name, value in inputs.items() if name != "input_ids"}
        with self.bridge.hooks(fwd_hooks=[hook(s, t) for s, t in moved.items()]):
            try:
                logits: Tensor = self.bridge(ids, **rest)
            except Stop:
                return None
        check_all_fired(left)
        return logits


def _post_norms(family: Family) -> dict[str, str]:
    """Hooks at what is added, where that passes a norm: TransformerLens calls it the layer's first
    norm where there is none before attention (OLMo 2)."""
    found = {}
    if family.attn_post_norm:
        found["attn_out"] = f"blocks.{{}}.{'ln1_post' if family.attn_norm else 'ln1'}.hook_out"
    if family.mlp_post_norm:
        found["mlp_out"] = f"blocks.{{}}.{'ln2_post' if family.mlp_norm else 'ln2'}.hook_out"
    return found


def _cache_by_its_old_name(_: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """transformers 5.24 hands attention its cache as `cache`; TransformerLens 3.9 looks for
    `past_key_values`, and without it leaves the cache empty and forgets the prompt."""
    if "cache" in kwargs:
        kwargs = {"past_key_values": kwargs["cache"], **kwargs}
    return args, kwargs


def _boot(model: Any) -> Any:
    """A bridge around a model in memory.

    Booting reads config and tokenizer by name, from the hub if it must; so it gets a folder with
    the model's own config and a stand-in tokenizer. We only ever pass ids.
    """
    from tokenizers import Tokenizer, models
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "?")
    model.config.architectures = [type(model).__name__]  # by which it knows the family
    with TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        made = PreTrainedTokenizerFast(tokenizer_object=words, **special)  # type: ignore[no-untyped-call]
        made.save_pretrained(folder)
        stand_in = PreTrainedTokenizerFast.from_pretrained(folder)
        device = str(next(model.parameters()).device)
        return TransformerBridge.boot_transformers(
            folder, hf_model=model, tokenizer=stand_in, device=device
        )


_RAISED = (
    *(AssertionError, AttributeError, ImportError, IndexError, KeyError, NotImplementedError),
    *(RuntimeError, TypeError, ValueError),
)
"""What TransformerLens raises at a model that its adapters do not fit."""


@contextmanager
def _known(model: Any) -> Iterator[None]:
    """Raise UserError where TransformerLens fails at an architecture."""
    try:
        yield
    except _RAISED as error:
        reason = " ".join(str(error).split()).partition(". ")[0][:80]
        raise UserError(
            f"TransformerLens cannot take a {type(model).__name__} ({reason}): use backend='native'"
        ) from error
