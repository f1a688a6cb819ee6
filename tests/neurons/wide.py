"""A checkpoint with a large model's shapes and random weights, and what decoding some of it takes.

    python -m tests.neurons.wide make llama-3.1-8b FOLDER            # 16 GB in bfloat16
    python -m tests.neurons.wide make llama-3.1-405b FOLDER --layers 1      # 15 GB
    python -m tests.neurons.wide decode FOLDER --layers 2 --slices 1 --workers 2

`decode` has workers make some slices as an atlas does, reads each worker's peak memory, and holds
it against the statement (`interp.neurons.memory`). After every slice comes a bare product with the
same unembedding (torch.mm, nothing kept), an eighth as long, so both are of the same minutes. What
the whole model takes is extrapolated from them, and says so. Only the coherence is left out: the
rows of the unembedding stand in for whitened ones.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from interp.cli.common import print_markdown, say
from interp.model.readout import open_readout
from interp.neurons.atlas import AtlasConfig
from interp.neurons.decode import Decoder
from interp.neurons.making import Slices
from interp.neurons.memory import shared_bytes
from interp.neurons.slices import Part
from interp.progress import in_words
from interp.runs.workers import map_parts
from interp.runs.workers_lent import Lent

ROWS = 512
"""Of the bare product, at once."""
COMMON = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "hidden_act": "silu", "torch_dtype": "bfloat16",
    "tie_word_embeddings": False, "max_position_embeddings": 131072,
}  # fmt: skip
SHAPES = {
    "llama-3.1-8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                     "num_attention_heads": 32},
    "llama-3.1-70b": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
                      "num_attention_heads": 64},
    "llama-3.1-405b": {"hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 126,
                       "num_attention_heads": 128},
}  # fmt: skip


def make(like: str, folder: Path, layers: int) -> None:
    """Write the checkpoint, a file a layer."""
    shape: dict[str, Any] = {**COMMON, **SHAPES[like]}
    shape["num_hidden_layers"] = layers or shape["num_hidden_layers"]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(shape, indent=1))
    generator, names = torch.Generator().manual_seed(0), {}
    for file, tensors in _files(shape):
        drawn = {name: _drawn(size, generator) for name, size in tensors.items()}
        save_file(drawn, folder / file, {"format": "pt"})
        names |= dict.fromkeys(tensors, file)
        say(f"{file}: {sum(x.nbytes for x in drawn.values()) / 1e9:.1f} GB")
    index = {"metadata": {}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _drawn(size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    whole = torch.ones(size, dtype=torch.bfloat16)
    if len(size) > 1:
        for rows in torch.split(whole, 1024):  # float32 is drawn far faster than bfloat16
            rows[:] = 0.02 * torch.randn(rows.shape, generator=generator)
    return whole


def _files(shape: dict[str, Any]) -> Iterator[tuple[str, dict[str, tuple[int, ...]]]]:
    d, inner, layers = (
        shape[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    values = d // shape["num_attention_heads"] * shape["num_key_value_heads"]
    total = layers + 2
    name = "model-{:05d}-of-{:05d}.safetensors"
    yield name.format(1, total), {"model.embed_tokens.weight": (shape["vocab_size"], d)}
    for layer in range(layers):
        own = {
            "self_attn.q_proj.weight": (d, d), "self_attn.k_proj.weight": (values, d),
            "self_attn.v_proj.weight": (values, d), "self_attn.o_proj.weight": (d, d),
            "mlp.up_proj.weight": (inner, d), "mlp.gate_proj.weight": (inner, d),
            "mlp.down_proj.weight": (d, inner), "input_layernorm.weight": (d,),
            "post_attention_layernorm.weight": (d,),
        }  # fmt: skip
        tensors = {f"model.layers.{layer}.{part}": size for part, size in own.items()}
        yield name.format(layer + 2, total), tensors
    last = {"model.norm.weight": (d,), "lm_head.weight": (shape["vocab_size"], d)}
    yield name.format(total, total), last


class Timed(Slices):
    """A slice, then a bare product of its shape: seconds of both, and this process's peak."""

    def opened(self, lent: Lent | None = None) -> Decoder:
        """With the rows themselves in the place of whitened ones: as many bytes, and whitening
        16,384 dimensions takes half an hour of two cores."""
        own = self.config
        if lent is None:
            rows, ids = open_readout(own.stored_weights)
            lent = {"rows": rows.numpy(), "ids": ids.numpy(), "units": rows.half().numpy()}
        return Decoder(own.stored_weights, own.k, lent=lent)

    def begun(self, opened: Any, part: Part) -> Any:
        """All of it, so that nothing is finished beside the bare product."""
        started = time.monotonic()
        tables = super().finished(opened, super().begun(opened, part))
        decoded = time.monotonic() - started
        vectors = self.config.slices(part.layer)[part.number].vectors
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        readout = opened._readout.rows
        block = torch.randn(ROWS, readout.shape[1])
        started, few = time.monotonic(), max(vectors // ROWS // 8, 1)
        for _ in range(few):
            for columns in torch.split(readout, 8192):
                torch.mm(block, columns.T)
        bare = (time.monotonic() - started) * vectors / (few * ROWS)
        return vectors, decoded, bare, peak, sum(map(len, tables))

    def finished(self, opened: Any, begun: Any) -> Any:
        return begun


def decode(folder: Path, layers: int, some: int, workers: str) -> None:
    config = AtlasConfig(model=str(folder), workers=workers)
    spec = config.stored_weights.spec
    counts = [len(config.slices(layer)) for layer in range(min(layers, spec.n_layers))]
    parts = [Part(i, n) for i, count in enumerate(counts) for n in range(min(some or count, count))]
    task, started, rows = Timed.of(config), time.monotonic(), []
    for part, (vectors, seconds, bare, peak, size) in map_parts(task, parts, config.spread):
        rows.append((part, vectors, seconds, bare, peak, size))
        say(f"{part}: {vectors:,} vectors in {seconds:.1f} s, bare {bare:.1f} s, {peak:,} bytes")
    ratio = statistics.median(seconds / bare for _, _, seconds, bare, _, _ in rows)
    each = sum(row[2] for row in rows) / sum(row[1] for row in rows)
    whole = sum(s.vectors for layer in range(spec.n_layers) for s in config.slices(layer))
    peak, stated = max(row[4] for row in rows), shared_bytes(spec) + config.worker_bytes
    print_markdown(
        ["", "measured"],
        [
            ["vectors decoded", f"{sum(row[1] for row in rows):,} in {len(rows)} slices"],
            ["ms a vector", f"{1000 * each:.2f}"],
            ["of the bare product's time", f"{ratio:.2f} (median over slices)"],
            ["peak memory of a worker", f"{peak / 2**30:.2f} GiB"],
            ["stated: shared, and of a worker", f"{stated / 2**30:.2f} GiB"],
            ["until the last slice", f"{time.monotonic() - started:.0f} s"],
            ["extrapolated: the whole model", f"{whole:,} vectors, {in_words(whole * each)}"],
        ],
    )
    assert peak <= stated, "more memory than is stated"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("like", choices=SHAPES)
    making.add_argument("folder", type=Path)
    making.add_argument("--layers", type=int, default=0)
    decoding = commands.add_parser("decode")
    decoding.add_argument("folder", type=Path)
    decoding.add_argument("--layers", type=int, default=2)
    decoding.add_argument("--slices", type=int, default=0, help="of each layer; 0 for all")
    decoding.add_argument("--workers", default="1")
    asked = parser.parse_args()
    if asked.command == "make":
        make(asked.like, asked.folder, asked.layers)
    else:
        decode(asked.folder, asked.layers, asked.slices, asked.workers)


if __name__ == "__main__":
    main()
