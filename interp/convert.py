"""`python -m interp.convert FILE.gguf FOLDER`: a GGUF file -> a float32 safetensors folder.

Run by the catalog in a process of its own. transformers dequantises and renames the tensors.
"""

from __future__ import annotations

import sys
from pathlib import Path


def convert(gguf: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    where = str(gguf.parent)
    model = AutoModelForCausalLM.from_pretrained(where, gguf_file=gguf.name, dtype=torch.float32)
    # dequantised already; transformers refuses to save while it believes otherwise
    model.hf_quantizer = None  # type: ignore[assignment]
    del model.config.quantization_config
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(where, gguf_file=gguf.name).save_pretrained(out)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
