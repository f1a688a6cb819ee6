"""A random atlas of the size of a large model's, to time the app with: no model is needed.

    python -m tests.neurons.big_atlas --runs runs-big             # Llama-3.1-8B: 2,752,512 rows
    python -m tests.neurons.big_atlas --runs r --layers 126 --neurons 53248 --k 16     # of 405B

Its tokens are drawn by Zipf's law, its logits and statistics from distributions like those of a
real atlas (means and spreads of SmolLM2's). Its parts and its index are written as an atlas's.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from interp.cli.common import say
from interp.model.vocabulary import word_family
from interp.neurons.indexing import AtlasTables, write_index, write_rows
from interp.runs.making import open_or_make
from interp.runs.manifest import SCHEMA, key_of
from interp.runs.store import Run
from interp.runs.writer import RunWriter

KINDS = ("up", "gate", "down")
WORDS = ("dog", "Monday", "king", "water", "Python", "California", "seven", "red", "tree")
"""Words that are there whatever the size."""
SHIFT = 100


def vocabulary(size: int, rng: np.random.Generator) -> pd.DataFrame:
    """Tokens of a byte-pair vocabulary's look: words with and without a space and a capital, their
    plurals, pieces, figures and signs."""
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    share = 1 / np.arange(1.0, 27.0)
    tokens = dict.fromkeys(f"{s}{w}" for w in WORDS for s in ("", " "))
    while len(tokens) < size:
        drawn = rng.choice(letters, (size, 12), p=share / share.sum())
        lengths = rng.integers(2, 9, size)
        for row, length, form in zip(drawn, lengths, rng.integers(0, 10, size), strict=True):
            word = "".join(row[:length])
            forms = (word, f" {word}", f" {word.title()}", f" {word}s", word.title())
            tokens |= dict.fromkeys(
                forms[:form] if form < 6 else [f"{word[:2]}{form}'", f" {word}"]
            )
            if len(tokens) >= size:
                break
    texts = list(tokens)[:size]
    return pd.DataFrame(
        {"id": np.arange(size, dtype=np.int32), "token": texts, "word": map(word_family, texts)}
    )


def rows(
    layer: int, neurons: np.ndarray, tokens: pa.Array, k: int, rng: np.random.Generator
) -> pa.Table:
    """A layer's rows for some neurons of each kind: top sides, then bottom sides."""
    n = len(neurons) * len(KINDS)
    sides = [_side(side, n, tokens, k, rng) for side in ("top", "bottom")]
    place = {
        "layer": pa.array(np.full(n, layer, np.int16)),
        "kind": pa.array(np.repeat(KINDS, len(neurons)).tolist()),
        "neuron": pa.array(np.tile(neurons, len(KINDS)).astype(np.int32)),
    }
    return pa.concat_tables([pa.table({**place, **side}) for side in sides])


def _side(
    side: str, n: int, tokens: pa.Array, k: int, rng: np.random.Generator
) -> dict[str, pa.Array]:
    ids = _distinct(n, k, len(tokens), rng)
    z, std = rng.gamma(40, 0.12, n), rng.gamma(9, 0.02, n)
    behind = np.cumsum(rng.exponential(0.12, (n, k)), 1) - rng.exponential(0.02, (n, 1))
    behind = np.maximum(behind - behind[:, :1], 0)
    logits = (z[:, None] - behind) * std[:, None] * (1 if side == "top" else -1)
    numbers = {
        "norm": rng.gamma(30, 0.04, n), "std": std, "z": z, "margin": behind[:, 1],
        "coherence": rng.normal(0.03, 0.025, n), "skewness": rng.normal(0, 0.2, n),
        "kurtosis": rng.gamma(2, 0.1, n),
    }  # fmt: skip
    starts = pa.array(np.arange(0, n * k + 1, k, dtype=np.int32))
    lists = {
        "ids": pa.array(ids.ravel()),
        "tokens": tokens.take(pa.array(ids.ravel())),
        "logits": pa.array(logits.ravel().astype(np.float32)),
    }
    columns = {name: pa.ListArray.from_arrays(starts, each) for name, each in lists.items()}
    columns |= {name: pa.array(each.astype(np.float32)) for name, each in numbers.items()}
    return {"side": pa.array([side] * n), **columns}


def _distinct(n: int, k: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """[n, k] ids, none twice in a row. The token of rank r is drawn as often as 1 / (r + SHIFT):
    with it 3 % of the rows have the most frequent one and .25 % the thousandth, about as in
    SmolLM2's atlas. `WORDS` are among the frequent ones."""
    words = np.arange(2 * len(WORDS), dtype=np.int32)
    others = np.random.default_rng(size).permutation(size - len(words)).astype(np.int32)
    ranked = np.insert(others + len(words), np.minimum(100 * words, len(others)), words)
    spread = ((size + SHIFT) / SHIFT) ** rng.random((n, k))
    drawn = (SHIFT * (spread - 1)).astype(np.int64).clip(max=size - 1)
    for place in range(1, k):  # the next one that is free
        while (taken := (drawn[:, :place] == drawn[:, place : place + 1]).any(1)).any():
            drawn[taken, place] = (drawn[taken, place] + 1) % size
    return ranked[drawn]


def make(
    runs: Path, layers: int = 32, neurons: int = 14336, size: int = 128_256, k: int = 20,
    random: int = 512,
) -> Run:  # fmt: skip
    """The atlas, made or resumed."""
    name = f"random-{layers}x{neurons}"
    config = {
        "model": name, "device": "cpu", "weights": [], "norm": "raw", "lens": "", "k": k,
        "random": random, "seed": 0, "all_ids": False,
    }  # fmt: skip
    identity = {"study": "neurons.atlas", "version": 4, "config": config, "fingerprints": {}}
    plan = {"schema": SCHEMA, **identity, "unkeyed": [], "key": key_of(identity)}

    def write(out: RunWriter) -> dict[str, float]:
        start = time.monotonic()
        words = out.table_once(
            "vocabulary/tokens", lambda: vocabulary(size, np.random.default_rng(0))
        )
        tokens = pa.array(words["token"].tolist())
        share = max(random // layers, 1)
        for layer in range(layers):
            rng = np.random.default_rng([1, layer])
            parts = {"neurons": np.arange(neurons), "random": rng.integers(neurons, size=share)}
            for folder, numbers in parts.items():
                if not out.has(part := f"{folder}/L{layer:03d}.parquet"):
                    with out.part(part) as path:
                        write_rows(rows(layer, numbers, tokens, k, rng), path)
        out.facts = {
            "model": {"n_layers": layers, "d_mlp": neurons, "n_experts": 0, "d_expert": 0,
                      "d_shared": 0, "d_vocab": size},
            "kinds": list(KINDS), "device": "cpu",
        }  # fmt: skip
        made = time.monotonic()
        names = [f"L{layer:03d}.parquet" for layer in range(layers)]
        write_index(out, AtlasTables.of_folder(out.path, names))
        vectors = layers * neurons * len(KINDS)
        return {"vectors": vectors, "atlas_s": made - start, "index_s": time.monotonic() - made}

    folder = runs / "neurons.atlas" / plan["key"]
    return open_or_make(folder, plan, lambda: None, write)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True)
    for name, usual in (("layers", 32), ("neurons", 14336), ("size", 128_256), ("k", 20)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    run = make(**vars(parser.parse_args()))
    parts = run.manifest["files"].items()
    size = {f: sum(about["bytes"] for n, about in parts if n.startswith(f)) for f in ("", "index")}
    say(f"{run.path}: {run.metrics}")
    say(f"{size[''] / 1e6:.0f} MB, of these the index {size['index'] / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
