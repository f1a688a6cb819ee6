"""What the tests of activations share: a small model, rows, their naive capture."""

import pytest
import torch

from interp.model.site import Site
from interp.model.subject import open_subject

RESID, HEADS = Site("resid_post", 0), Site("head_z", 1)
SITES = [RESID, Site("head_v", 1, 1), HEADS, Site("final_norm_in")]


@pytest.fixture(scope="module")
def subject(model_folder):
    return open_subject(model_folder("llama"))


@pytest.fixture(scope="module")
def rows():
    """Some of unequal length, so that some batches are padded; a repeated row makes ties."""
    generator = torch.Generator().manual_seed(0)
    lengths = [7] * 9 + [3, 7, 1, 5] + [7] * 4
    made = [torch.randint(0, 211, (n,), generator=generator).tolist() for n in lengths]
    return [*made, made[2], made[0]]


@pytest.fixture(scope="module")
def whole(subject, rows):
    """The naive twin: every row alone, everything kept."""
    alone = [subject.capture(torch.tensor([row]), SITES) for row in rows]
    return {site: torch.cat([found[site][0] for found in alone]) for site in SITES}


def places(rows):
    return [(i, j) for i, row in enumerate(rows) for j in range(len(row))]


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-5)
