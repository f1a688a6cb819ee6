"""What is said of directions whose model's folder holds other weights by now: no gain of a norm
that they never had."""

import numpy as np
import pytest
import torch

from interp.cli import main
from interp.directions import open_directions
from interp.directions.compare import (
    IN_STREAM,
    WITHOUT_GAIN,
    between,
    cosines,
    in_stream,
    pairs,
    stream_cosine,
)
from interp.directions.inspect import scores_on_text
from interp.directions.keeping import keep
from interp.directions.nearest import nearest_neurons
from interp.errors import UserError
from interp.latents.nearest import nearest
from interp.model.subject import open_subject
from interp.model.weights import open_weights
from interp.report.of_collection import report_of_collection
from interp.saes import wrap

from ..latents.test_nearest import random_sae
from .gains import with_gain

READS, WRITES = "1.up.3", "0.down.3"
CHANGED = "the content of its folder changed since"


@pytest.fixture
def changed(dog_model, tmp_path, own_home):
    """A folder, and a reading and a writing neuron that were kept before its norm changed."""
    generator = torch.Generator().manual_seed(5)
    first, second = (3 * torch.randn(32, generator=generator) for _ in range(2))
    folder = with_gain(dog_model, tmp_path / "changed", first)
    for name in (READS, WRITES):
        keep("c", name, model=str(folder))
    every = [open_directions(f"kept:c:{name}") for name in (READS, WRITES)]
    got = between(every)
    read, written = (each.vectors[0].double().numpy() for each in every)
    read = read * first.numpy()
    want = read @ written / np.linalg.norm(read) / np.linalg.norm(written)
    assert float(got.cosine[0, 1]) == pytest.approx(want)
    assert got.told == IN_STREAM
    with_gain(folder, folder, second)
    return folder, every


def test_no_cosine_takes_another_gain(changed, caplog, capsys):
    folder, (reads, writes) = changed
    weights = open_weights(str(folder))
    got = between([reads, writes, writes])
    assert got.cosine[0].isnan().all()
    assert float(got.cosine[1, 2]) == pytest.approx(1)
    assert f"{READS} is left out: the gain of its norm is not here, it is of" in got.told
    assert CHANGED in got.told
    bare = cosines(reads, writes, weights)
    assert bare.told.startswith(WITHOUT_GAIN)
    assert CHANGED in bare.told
    torch.testing.assert_close(bare.cosine, reads.cosine(writes))
    table = pairs(reads, writes, weights=weights)
    assert table["in_stream"].isna().all()
    assert "no cosine in the stream: the gain of its norm is not here" in caplog.text
    for wrong in (
        lambda: stream_cosine(reads, writes, weights),
        lambda: in_stream(reads, weights),
        lambda: nearest_neurons(reads, weights),
        lambda: nearest(reads, wrap(random_sae()), weights=weights),
    ):
        with pytest.raises(UserError, match="no place in the stream: the gain of its norm"):
            wrong()
    assert len(nearest_neurons(writes, weights, 1)) == 1
    assert main(["directions", "compare", f"kept:c:{READS}", f"kept:c:{WRITES}"]) == 0
    assert CHANGED in capsys.readouterr().err


def test_what_shows_them_says_so(changed, caplog):
    folder, (reads, _) = changed
    scores_on_text(open_subject(folder), reads, "w5 dog")
    assert f"these directions are of {folder} as it was: {CHANGED}" in caplog.text
    assert report_of_collection("c").count(f"they are of {folder} as it was: {CHANGED}") >= 2
