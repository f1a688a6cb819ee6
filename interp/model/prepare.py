"""`python -m interp.model.prepare MODEL ADAPTER OUT`: a plain float32 folder of what is not plain.

A quantised checkpoint is dequantised, an adapter merged ("" for none). Run by the catalog in a
process of its own: transformers and the whole model never enter the caller's memory.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..errors import UserError
from .adapter import adapted
from .checkpoint import FIX, complete_model, refusing
from .folder import read_config
from .tokenizer_files import tokenizer_files


def prepare(base: Path, adapter: Path | None, out: Path) -> None:
    model = _load(base)
    if adapter:
        model = adapted(model, adapter)
    model.save_pretrained(out)
    # an adapter may come with tokens of its own
    own = tokenizer_files(adapter) if adapter else []
    for file in own or tokenizer_files(base):
        shutil.copyfile(file, out / file.name)


def _load(base: Path) -> Any:
    import torch
    from transformers import AutoConfig

    read_config(base)
    # in a folder without the adapter's files: transformers would add that adapter by itself
    with TemporaryDirectory() as alone:
        for file in base.iterdir():
            if file.is_file() and not file.name.startswith("adapter_"):
                (Path(alone) / file.name).symlink_to(file.resolve())
        with refusing(f"transformers cannot load the model in {base}", FIX):
            config = AutoConfig.from_pretrained(alone, trust_remote_code=False)
            if quantised := getattr(config, "quantization_config", None):
                quantised["dequantize"] = True  # where there is a GPU, too
        return complete_model(Path(alone), dtype=torch.float32, config=config)


if __name__ == "__main__":
    try:
        chosen = Path(sys.argv[2]) if sys.argv[2] else None
        prepare(Path(sys.argv[1]), chosen, Path(sys.argv[3]))
    except UserError as error:
        sys.exit(str(error))
