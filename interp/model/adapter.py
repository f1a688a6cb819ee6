"""Adapters (LoRA and its relatives, by peft) merged into the weights: a model of its own.

W + scale B A is then the weight, for whoever reads it and for the model that runs alike. peft
merges into shared storage: where the embedding and the unembedding are tied and an adapter acts on
one of them, the other would change too. They are set apart first, and what comes out is held
against the adapted model.
"""

from __future__ import annotations

import copy
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, reason
from .files import read_json
from .folder import ADAPTER

if TYPE_CHECKING:
    from torch import Tensor, nn


_SIZES = (
    *("r", "rank_pattern", "init_r", "target_r", "rank", "n_frequency", "num_vectors"),
    *("oft_block_size", "boft_block_size", "boft_block_num", "vector_length", "block_size"),
)
"""Fields of adapter_config.json that say how large what peft makes is."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder is peft's: an adapter, with the weights it is for or without."""
    return (folder / ADAPTER).is_file()


def named_base(folder: Path) -> str:
    """The model that an adapter says it is for; empty if it does not say."""
    config = read_json(folder / ADAPTER)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(name, str):
        return ""
    return f"{name}@{revision}" if revision and not Path(name).is_dir() else name


def adapted(model: Any, folder: Path) -> Any:
    """A model in memory with the adapter of a folder merged into its weights, which it changes.

    Raises:
        UserError: the adapter is damaged, of another model, or of a kind that is no change of the
            weights.
    """
    from peft import PeftConfig, PeftModel
    from peft.utils import load_peft_weights
    from safetensors import SafetensorError

    _check_config(folder)
    try:
        if PeftConfig.from_pretrained(str(folder)).is_prompt_learning:
            raise UserError(
                f"the adapter in {folder} puts trained vectors before the prompt: it is no change "
                "of the weights, and cannot be opened"
            )
        given = load_peft_weights(str(folder), device="cpu")
        _resize_as(model, given)
        _check_sizes(folder, given)
        tuned = PeftModel.from_pretrained(model, str(folder))
    # for files that are missing, damaged or of another model
    except (
        *(ArithmeticError, AttributeError, ImportError, LookupError, OSError, RuntimeError),
        *(TypeError, ValueError, SafetensorError, re.error),
    ) as error:
        raise UserError(
            f"the adapter in {folder} does not fit this model ({reason(error)}): fetch it again, "
            "or give the model that it is for"
        ) from error
    _check_every_tensor_fits(tuned, given, folder)
    return merged(tuned)


def _check_config(folder: Path) -> None:
    """Raise UserError for a config by which peft would import a module that it names, or that
    acts while a model runs, and for a field that says something and that peft would drop."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    path = folder / ADAPTER
    config = read_json(path)
    for name in ("megatron_config", "monteclora_config"):
        if config.get(name) is not None:
            raise UserError(f"{path} has a '{name}', which is not followed: give another adapter")
    kinds: dict[str, Any] = {kind.value: made for kind, made in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    made = kinds.get(str(config.get("peft_type")))
    known = {field.name for field in fields(made)} if made else config.keys()
    for name, value in config.items():
        if value and name not in known:
            raise UserError(
                f"{path} has '{name}', which this version of peft does not know: take it out if it "
                "changes nothing, or give another adapter"
            )


def _check_sizes(folder: Path, given: dict[str, Tensor]) -> None:
    """Raise UserError for ranks and blocks larger than any side of the adapter's tensors: peft
    makes matrices of them before it reads one."""
    most = max((side for tensor in given.values() for side in tensor.shape), default=0)
    config = read_json(folder / ADAPTER)
    for name in _SIZES:
        said = config.get(name)
        for value in said.values() if isinstance(said, dict) else [said]:
            if isinstance(value, int) and value > most:
                raise UserError(
                    f"{folder / ADAPTER} has {value} as '{name}', and no tensor of the adapter "
                    f"has a side of more than {most}: mend it or fetch it again"
                )


def private_copy(model: nn.Module) -> Any:
    """A copy of a model in memory, with the adapters that are active on it merged into the copy.

    Raises:
        UserError: an adapter that cannot be merged.
    """
    held = (tensor for module in model.modules() for tensor in _computed(vars(module)))
    own: Any = copy.deepcopy(model, {id(tensor): tensor.detach().clone() for tensor in held})
    peft = sys.modules.get("peft")
    if peft is not None and isinstance(own, peft.PeftModel):
        return merged(own)
    if getattr(own, "_hf_peft_config_loaded", False):
        raise UserError(
            "this model has an adapter of transformers' own inside: add it with peft's "
            "PeftModel.from_pretrained(model, folder) instead, which can be merged"
        )
    return own


def merged(tuned: Any) -> Any:
    """A peft model's base with its active adapters merged into it; the peft model is used up.

    Raises:
        UserError: it cannot be merged, or gives other logits then.
    """
    import torch

    if not hasattr(tuned.base_model, "merge_and_unload"):
        kind = str(tuned.active_peft_config.peft_type.value)
        raise UserError(f"an adapter of the kind {kind} is no change of the weights")
    tuned.eval()
    whole = tuned.get_base_model()
    probe = (
        torch.arange(1, 17, device=tuned.device)[None]
        % whole.get_input_embeddings().weight.shape[0]
    )
    with torch.no_grad(), warnings.catch_warnings():
        wanted = tuned(input_ids=probe).logits
        _untie(whole)
        try:
            # peft warns of what is meant here, and mended below
            warnings.filterwarnings("ignore", message="Input and output embeddings are no longer")
            enabled = tuned.get_model_status().enabled
            model = tuned.merge_and_unload() if enabled else tuned.unload()
        except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"peft cannot merge this adapter ({reason(error)}): give another"
            ) from error
        _tie_if_equal(model)
        difference = float((model(input_ids=probe).logits - wanted).abs().max())
    # the rounding of the sum W + B A, in the precision of the weights
    allowed = torch.finfo(wanted.dtype).eps ** 0.5 * (1 + float(wanted.abs().max()))
    if not difference <= allowed:
        raise UserError(
            f"with its adapter merged the model gives other logits, by {difference:.2g}: this "
            "adapter is no mere change of the weights"
        )
    return model


def _computed(held: Any) -> Iterator[Tensor]:
    """Tensors that come of a computation, in what a module holds: `deepcopy` refuses them. A head
    that is tied to an adapted embedding has such ones."""
    import torch

    if isinstance(held, torch.Tensor):
        if not held.is_leaf:
            yield held
    elif isinstance(held, dict | list | tuple):
        for each in held.values() if isinstance(held, dict) else held:
            yield from _computed(each)


def _weight(layer: Any) -> nn.Parameter:
    """Of an embedding or a head, without the adapters around it."""
    inner = getattr(layer, "base_layer", getattr(layer, "original_module", layer))
    weight: nn.Parameter = inner.weight
    return weight


def _untie(model: Any) -> None:
    from torch import nn

    head = model.get_output_embeddings()
    if _weight(head) is _weight(model.get_input_embeddings()):
        inner = getattr(head, "base_layer", getattr(head, "original_module", head))
        inner.weight = nn.Parameter(_weight(head).detach().clone(), requires_grad=False)


def _tie_if_equal(model: Any) -> None:
    """What config.json is to say of the merged model."""
    import torch

    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = torch.equal(head.weight, embedding.weight)
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = tied
    if tied:
        head.weight = embedding.weight


def _resize_as(model: Any, given: dict[str, Tensor]) -> None:
    """Give the model the adapter's vocabulary, where tokens were added for it."""
    embedding = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is embedding)
    for stored in (f"base_model.model.{name}.weight", f"base_model.model.{name}.base_layer.weight"):
        if stored in given and len(given[stored]) != embedding.weight.shape[0]:
            model.resize_token_embeddings(len(given[stored]), mean_resizing=False)


def _check_every_tensor_fits(tuned: Any, given: dict[str, Tensor], folder: Path) -> None:
    """peft silently skips tensors that fit nowhere, and leaves layers without tensors at zero.

    Raises:
        UserError: the adapter belongs to a model with more or fewer layers.
    """
    from peft import get_peft_model_state_dict

    # without embeddings: peft would ask the hub whether they have changed
    wanted = set(get_peft_model_state_dict(tuned, save_embedding_layers=False))
    # embeddings of the base's are stored beside an adapter where it touches them
    strange = given.keys() - wanted - set(tuned.state_dict())
    if strange or wanted - given.keys():
        raise UserError(
            f"the adapter in {folder} does not fit this model: {len(given.keys() & wanted)} of its "
            f"{len(given)} tensors match the {len(wanted)} that the model needs"
        )
