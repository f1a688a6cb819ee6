"""A model's folder, looked at before any library loads it: what it holds, or one line why not.

The weights are read from the files, and the model that runs is loaded by transformers, which
dequantises, adds an adapter or runs code that comes with a checkpoint, each without a word. What
passes here is a plain checkpoint: the two are of the same numbers. `catalog.resolve` makes one
of what can be made so (`prepare`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UserError
from .files import read_json
from .sizes import check_counts
from .tensor_files import Stored, stored_tensors, weight_files

if TYPE_CHECKING:
    from .families import ModelSpec

ADAPTER = "adapter_config.json"
DEQUANTISED = ("fp8", "mxfp4")
"""The quantisation methods whose numbers transformers gives exactly, on any processor."""
_SAVE = ".save_pretrained('NEW_FOLDER')"
_LOAD = "AutoModelForCausalLM.from_pretrained(FOLDER"
_CONVERT = (
    f'convert it once: python -c "from transformers import AutoModelForCausalLM; {_LOAD}){_SAVE}", '
    "and copy the tokenizer's files"
)
_WAY = {
    "bitsandbytes": f"install bitsandbytes and save it dequantised: {_LOAD}).dequantize(){_SAVE}",
    "compressed-tensors": "install compressed-tensors and save it dequantised: "
    f"{_LOAD}, quantization_config=CompressedTensorsConfig(dequantize=True)){_SAVE}",
}
_ORIGINAL = "open the checkpoint it was made from, in float16 or float32"
_PACKED = ("qweight", "weight_packed", "weight_scale", "weight_scale_inv", "SCB", "absmax")
"""What the names of quantised tensors end in."""
_FLOATS = ("F16", "BF16", "F32", "F64")
_DISTRIBUTED = "shard-?????-model-?????-of-?????.safetensors"
_ORIGINALS = ("consolidated*", "params.json")
_PICKLES = ("pytorch_model*.bin", "model*.bin", "*.pth", "*.pt", "*.ckpt")


class ModelFolder(NamedTuple):
    """What a plain checkpoint's folder holds."""

    config: dict[str, Any]
    tensors: dict[str, Stored]
    """By name, each with the safetensors file that holds it."""


def check_folder(folder: Path) -> ModelFolder:
    """The config and tensors of a plain checkpoint, whose weights every reader takes alike.

    Raises:
        UserError: the folder is not one; the line says what it is, and what to do.
    """
    if (folder / ADAPTER).exists():
        raise UserError(f"{folder} holds an adapter: open it by its path, which merges it")
    checked = check_base(folder)
    if method := quantisation(checked.config):
        raise UserError(f"{folder} is quantised ({method}): open it by its path, which dequantises")
    return checked


def check_base(folder: Path) -> ModelFolder:
    """As `check_folder`, but an adapter may stand beside the weights, and they may be quantised in
    a way that can be undone (`DEQUANTISED`)."""
    config = read_config(folder)
    method = quantisation(config)
    if method and method not in DEQUANTISED:
        way = _WAY.get(method, _ORIGINAL).replace("FOLDER", f"'{folder}'", 1)
        raise UserError(f"{folder} is quantised ({method}): {way}")
    spec = check_family(folder, config)
    if not weight_files(folder):
        raise UserError(_no_weights(folder))
    _check_no_others(folder, config)
    stored = stored_tensors(folder)
    check_counts(folder, config, stored)
    if method == "fp8":
        _check_whole_blocks(folder, config, stored)
    packed = [] if method else [tensor for tensor in stored if _is_packed(tensor)]
    if packed:
        raise UserError(
            f"{folder} is quantised though its config.json does not say so ('{packed[0].name}' is "
            f"{packed[0].dtype}): {_ORIGINAL}"
        )
    _check_one_name_each(folder, spec, [tensor.name for tensor in stored])
    return ModelFolder(config, {tensor.name: tensor for tensor in stored})


def _check_one_name_each(folder: Path, spec: ModelSpec, there: Collection[str]) -> None:
    """Raise UserError for a tensor that is there with the base model's prefix and without."""
    base = spec.family.prefix
    plain = Counter(name.removeprefix(base) for name in there)
    for name in there:
        if plain[name.removeprefix(base)] > 1:
            raise UserError(
                f"{folder} holds '{name.removeprefix(base)}' with '{base}' before it and without: "
                "fetch it again"
            )


def _check_no_others(folder: Path, config: dict[str, Any]) -> None:
    """transformers takes other files than model.safetensors and the index where the config names
    some, and all that there are where one has the name of a distributed checkpoint's shard."""
    if config.get("transformers_weights") is not None:
        raise UserError(
            f"{folder}/config.json names the files of its weights ('transformers_weights'), which "
            "is not followed: take that out, and name the file model.safetensors"
        )
    if found := _any(folder, _DISTRIBUTED):
        raise UserError(
            f"{folder} has {found}, a shard of a distributed checkpoint, beside its weights: "
            "move it out of the folder"
        )


def _check_whole_blocks(folder: Path, config: dict[str, Any], stored: list[Stored]) -> None:
    """transformers takes a block's size from the number of scales: wrong where the last block is
    cut off."""
    sizes = config["quantization_config"].get("weight_block_size") or []
    for tensor in stored:
        cut = [n for n, size in zip(tensor.shape[-2:], sizes, strict=False) if n % size]
        if tensor.dtype.startswith("F8") and cut:
            raise UserError(
                f"{folder} is quantised (fp8) in blocks of {sizes} that '{tensor.name}' "
                f"{list(tensor.shape)} does not fill, which transformers dequantises wrongly: "
                f"{_ORIGINAL}"
            )


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model's folder.

    Raises:
        UserError: there is none, or a damaged one; or the model is no decoder of text.
    """
    if not (folder / "config.json").exists():
        raise UserError(_no_config(folder))
    config = read_json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise UserError(f"{folder}/config.json has no model_type: it is no transformers model's")
    halves = ("decoder_layers", "num_decoder_layers", "decoder")
    if config.get("is_encoder_decoder") is True or any(name in config for name in halves):
        raise UserError(
            f"{folder} is an encoder-decoder ({config['model_type']}): only models that are a "
            "decoder alone are opened"
        )
    return config


def check_family(folder: Path, config: dict[str, Any]) -> ModelSpec:
    """The sizes of a model. Raises UserError for one that the family table does not know."""
    from .families import read_spec  # browsing needs no families, nor the search for others' ones

    plain = {k: v for k, v in config.items() if k != "quantization_config"}
    if isinstance(inner := config.get("text_config"), dict):
        plain["text_config"] = {k: v for k, v in inner.items() if k != "quantization_config"}
    try:
        return read_spec(plain)
    except UserError as error:
        code = "; the code that comes with it (auto_map) is never run"
        raise UserError(f"{folder}: {error}{code * ('auto_map' in config)}") from error


def quantisation(config: dict[str, Any]) -> str:
    """The method by which a checkpoint is quantised; empty for a plain one."""
    inner = config.get("text_config")
    said = config.get("quantization_config") or (
        inner.get("quantization_config") if isinstance(inner, dict) else None
    )
    method = said.get("quant_method") if isinstance(said, dict) else None
    # bitsandbytes' first configs do not name it
    return str(method or "bitsandbytes") if said else ""


def _is_packed(tensor: Stored) -> bool:
    """Masks and counters are no floats either, but they are no weights."""
    last = tensor.name.rpartition(".")[2]
    return last in _PACKED or (last == "weight" and tensor.dtype not in _FLOATS)


def _no_config(folder: Path) -> str:
    if not folder.is_dir():
        return f"there is no folder {folder}"
    if found := _any(folder, "*.gguf"):
        return f"{folder} holds GGUF files: name one of them, {folder / found}"
    if found := _any(folder, *_ORIGINALS):
        return f"{folder} has no config.json: {_original_release(found)}"
    if _any(folder, "adapter_model*"):
        return f"{folder} has an adapter's weights but no {ADAPTER}: fetch it again"
    return f"{folder} is no model folder: it has no config.json"


def _no_weights(folder: Path) -> str:
    if found := _any(folder, "model-*-of-*.safetensors"):
        return (
            f"{folder} has {found} but no model.safetensors.index.json, which says what the parts "
            "hold: fetch it again"
        )
    if found := _any(folder, *_ORIGINALS):
        return f"{folder} has no model.safetensors: {_original_release(found)}"
    if found := _any(folder, *_PICKLES):
        return (
            f"{folder} has its weights only as {found}, a pickle, which is never opened: "
            + _CONVERT.replace("FOLDER", f"'{folder}'", 1)
        )
    if found := _any(folder, "*.gguf"):
        return f"{folder} has its weights as GGUF: name the file, {folder / found}"
    found = _any(folder, "*.safetensors", "*.h5", "*.msgpack")
    other = f", only {found}" if found else ""
    return (
        f"{folder} has no model.safetensors (nor an index of shards){other}: save the model with "
        "transformers' save_pretrained first"
    )


def _original_release(found: str) -> str:
    return (
        f"{found} is of the original release's form; fetch the model in transformers' form "
        "(config.json and model*.safetensors)"
    )


def _any(folder: Path, *forms: str) -> str:
    """The name of the first file of one of these forms; empty if there is none."""
    return next((path.name for form in forms for path in sorted(folder.glob(form))), "")
