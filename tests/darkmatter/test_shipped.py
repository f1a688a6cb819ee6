"""The ladder that ships reads the stream that its card says."""

import pytest
import torch

from interp.model.subject import open_subject
from interp.probes import fvu
from interp.saes import open_sae
from interp.saes.study import LADDER

TEXT = """The garbage collector supplements the reference counting already used in Python. Modules
are searched in the list of folders given by the variable sys.path, which is set from the location
of the program. When a class definition is left normally, a class object is created."""


@pytest.fixture(scope="module")
def stream():
    subject = open_subject("smollm2-135m")
    captured = subject.capture(subject.tokens(TEXT), ["14.resid_post"])
    return next(iter(captured.values()))[
        0, 1:
    ].float()  # position 0 is not what they were trained on


@pytest.mark.parametrize("width", [768, 1536, 3072])
@pytest.mark.parametrize("k", [32, 64])
def test_every_autoencoder_explains_ordinary_text(stream, width, k):
    sae = open_sae(LADDER / "saes" / f"w{width}-k{k}")
    assert (sae.d_in, sae.d_sae) == (576, width)
    z = sae.encode(stream)
    assert int((z != 0).sum(1).max()) <= k
    # a few dozen tokens near the start of a context: not the card's figure, but most is explained
    assert fvu(stream, sae.decode(z)) < 0.25 * fvu(stream, sae.decode(z * 0))
    assert torch.isfinite(sae.W_dec).all()
