"""`python -m interp.model.convert FILE.gguf FOLDER`: a GGUF file -> a float32 safetensors folder.

Run by the catalog in a process of its own. The tensors are dequantised and written a few rows at a
time, so that peak memory does not grow with the model.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..progress import log, progress
from .checkpoint import refusing
from .gguf.architectures import Architecture, Reordered
from .gguf.config import architecture_of, read_config, read_generation
from .gguf.file import GgufFile, Stored, read_gguf
from .gguf.rope import FACTORS
from .gguf.tensors import Planned, size_of, write_safetensors
from .gguf.tokenizer import write_tokenizer

_RATE = 200e6
"""Bytes of float32 a second, a careful figure: two cores of 2020 write 400 to 800 MB."""
_STEPS = 20
"""So many lines of progress where there is no terminal."""


def convert(path: Path, out: Path) -> None:
    """Write the folder that transformers opens as the same model.

    Raises:
        UserError: the file cannot be read, or transformers has nothing that computes the same.
    """
    if re.search(r"-\d{5}-of-\d{5}$", path.stem):
        raise UserError(f"{path.name} is a part of a split file: merge the parts first")
    file = read_gguf(path)
    fields = read_config(file)
    planned = plan_tensors(file, fields)
    size = size_of(planned)
    free = shutil.disk_usage(out).free
    log.info("%s: %.2f GB of float32, about %.0f s", path.name, size / 1e9, 2 + size / _RATE)
    if size > free:
        raise UserError(
            f"{out.parent} has {free / 1e9:.1f} GB free, and {size / 1e9:.1f} GB are needed"
        )
    config = _checked_config(path, fields, planned)
    config.save_pretrained(out)
    (out / "generation_config.json").write_text(json.dumps(read_generation(file), indent=1))
    write_tokenizer(file, out)
    with progress(f"converting {path.name}", max(round(size / 1e6), 1), "MB") as advance:
        write_safetensors(planned, out / "model.safetensors", _in_steps(advance, size))


def plan_tensors(file: GgufFile, fields: dict[str, Any]) -> dict[str, Planned]:
    """transformers' name -> which tensor of the file that is, and what llama.cpp did to it.

    Raises:
        UserError: a tensor that the architecture's table does not name.
    """
    architecture = architecture_of(file)
    heads = {"attn_q": fields["num_attention_heads"], "attn_qkv": fields["num_attention_heads"]}
    heads["attn_k"] = fields.get("num_key_value_heads", fields["num_attention_heads"])
    layers = {int(m[1]) for m in map(re.compile(r"blk\.(\d+)\.").match, file.tensors) if m}
    n_layers = fields["num_hidden_layers"]
    if (len(layers), max(layers, default=-1)) != (n_layers, n_layers - 1):
        raise UserError(f"{file.path.name} has tensors of {len(layers)} layers and not {n_layers}")
    planned = {}
    for name, stored in file.tensors.items():
        if name in FACTORS:
            continue
        match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
        base = match[2] if match else ""
        inside = architecture.inner | architecture.experts
        theirs = (inside if match and match[1] else architecture.outer).get(base)
        if match is None or theirs is None:
            raise UserError(f"{file.path.name} has a tensor '{name}', which is unknown")
        prefix = architecture.layer.format(match[1]) if match[1] else ""
        one_by_one = stored.stack() if base in architecture.experts else [stored]
        for number, tensor in enumerate(one_by_one):
            planned[f"{prefix}{theirs.format(number)}.{match[3]}"] = _planned(
                architecture, tensor, base, match[3], heads.get(base, 0)
            )
    return planned


def _planned(
    architecture: Architecture, stored: Stored, base: str, part: str, heads: int
) -> Planned:
    reordered = architecture.reordered.get(base)
    gain = part == "weight" and base.endswith("norm")
    return Planned(
        stored,
        order=_order(reordered, stored.shape[0], heads) if reordered else None,
        shift=architecture.norm_shift if gain else 0.0,
        transposed=part == "weight" and base in architecture.transposed,
    )


def _order(reordered: Reordered, rows: int, heads: int) -> NDArray[np.int64]:
    """Where each row lies in the file."""
    if rows % (heads * (2 if reordered == "rotary" else 3)):
        raise UserError(f"a tensor of {rows} rows cannot be that of {heads} heads")
    split = (heads, rows // heads // 2, 2) if reordered == "rotary" else (3, heads, -1)
    axes = (0, 2, 1) if reordered == "rotary" else (1, 0, 2)
    return np.arange(rows).reshape(split).transpose(axes).ravel()


def _checked_config(path: Path, fields: dict[str, Any], planned: dict[str, Planned]) -> Any:
    """transformers' config, once its model has just the tensors that will be written."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with refusing(f"transformers takes no such model as {path.name}", "fetch it again"):
        config = AutoConfig.for_model(**fields)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    config.architectures = [type(model).__name__]
    if _experts(model) > len(planned):
        raise UserError(f"{path.name} names more experts than it has tensors: fetch it again")
    wanted = {
        name: shape
        for stacked, tensor in model.state_dict().items()
        for name, shape in _one_by_one(stacked, tuple(tensor.shape))
    }
    if fields["tie_word_embeddings"]:
        wanted.pop("lm_head.weight")
    if missing := sorted(wanted.keys() - planned.keys()):
        raise UserError(
            f"{len(missing)} of the model's weights are not in {path.name}, {missing[0]} among "
            "them: fetch it again"
        )
    for name, plan in planned.items():
        if plan.shape != wanted.get(name):
            raise UserError(
                f"'{name}' in {path.name} is {list(plan.shape)}, and {wanted.get(name)} is expected"
            )
    return config


def _experts(model: Any) -> int:
    """The largest number of experts of a layer."""
    shapes = (t.shape for name, t in model.state_dict().items() if ".experts." in name)
    return max((shape[0] for shape in shapes if len(shape) == 3), default=0)


def _one_by_one(name: str, shape: tuple[int, ...]) -> list[tuple[str, tuple[int, ...]]]:
    """A tensor in which transformers stacks all experts, as files have it: a matrix each, and gate
    and up apart. Any other tensor is itself."""
    if len(shape) != 3 or ".experts." not in name:
        return [(name, shape)]
    stem, _, last = name.rpartition(".")
    count, rows, columns = shape
    if last == "gate_up_proj":
        parts, rows = ["gate_proj", "up_proj"], rows // 2
    else:
        parts = [last]
    each = ((part, number) for part in parts for number in range(count))
    return [(f"{stem}.{number}.{part}.weight", (rows, columns)) for part, number in each]


def _in_steps(advance: Callable[[float], None], size: int) -> Callable[[int], None]:
    """Passes bytes on as MB, a step's worth at a time."""
    waiting, left = 0, size

    def moved(n_bytes: int) -> None:
        nonlocal waiting, left
        waiting, left = waiting + n_bytes, left - n_bytes
        if not left or waiting >= size / _STEPS:
            advance(waiting / 1e6)
            waiting = 0

    return moved


if __name__ == "__main__":
    logging.basicConfig(
        format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=int(sys.argv[3])
    )
    try:
        convert(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
    except UserError as error:
        sys.stdout.write(f"{error}\n")  # the catalog reads it
        sys.exit(1)
