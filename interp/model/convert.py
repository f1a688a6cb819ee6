"""`python -m interp.model.convert FILE.gguf FOLDER`: a GGUF file -> a float32 safetensors folder.

Run by the catalog in a process of its own. transformers dequantises and renames the tensors.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import UserError
from .checkpoint import complete_model


def convert(gguf: Path, out: Path) -> None:
    if re.search(r"-\d{5}-of-\d{5}$", gguf.stem):
        raise UserError(f"{gguf.name} is a part of a split file: merge the parts first")
    import torch
    from transformers import AutoTokenizer

    # alone in a folder: transformers would take a tokenizer or config that lies beside it
    with TemporaryDirectory() as alone:
        where = Path(alone)
        (where / gguf.name).symlink_to(gguf)
        model = complete_model(where, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file=gguf.name)
    # dequantised already; transformers refuses to save while it believes otherwise
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    try:
        convert(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
    except UserError as error:
        sys.exit(str(error))
