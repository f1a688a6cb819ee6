"""A set of activations by several workers."""

import torch
from safetensors.torch import save_file

from interp.runs.store import Store
from interp.runs.study import run_or_load
from interp.saes.activations import ActivationsConfig
from interp.saes.feed import POOL

from ..workers import assert_same_by_two


def test_two_workers_make_the_same_to_the_byte(dog_model, tmp_path):
    corpus = tmp_path / "corpus.safetensors"
    drawn = torch.randint(1, 211, (2400, 61), generator=torch.Generator().manual_seed(0))
    save_file({"ids": drawn.int()}, corpus)
    config = ActivationsConfig(
        model=str(dog_model), sites=("1.resid_post",), tokens=2 * POOL + 1, corpus=str(corpus),
        length=61, precision="float32",
    )  # fmt: skip
    one = run_or_load(config, Store(tmp_path / "one"))
    assert len(one.table("shards")) == 3
    assert_same_by_two(config, one, tmp_path / "others")
