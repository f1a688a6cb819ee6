"""The paths of a projection on the CPU, data of every scale, and what a path must get right."""

import pytest
import torch

from interp.kernels import project_topk, screened
from interp.kernels.data import KINDS
from interp.kernels.reference import exact_ids

FORMATS = {numbers.name: numbers for numbers in screened.FORMATS if numbers.sound()}
"""Those that torch computes well enough here; whether the processor is made for them or not."""
PATHS = (*FORMATS, "tiled")
every_format = pytest.mark.parametrize("impl", FORMATS)
every_path = pytest.mark.parametrize("impl", PATHS)
DECADES = 30
MIXES = {
    "alike": (),
    "vectors": ("vectors",),
    "tokens": ("tokens",),
    "both": ("vectors", "tokens"),
    "numbers": ("numbers",),
}
"""What has a scale of its own within one call; numbers of x have the inverse of those of w."""


def at_every_scale(
    kind: str, mix: str, n: int, vocabulary: int, d: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors and a read-out of some kind (`data.KINDS`), times powers from 1e-30 to 1e30."""
    x, w = KINDS[kind](n, vocabulary, d, seed)
    generator = torch.Generator().manual_seed(seed)

    def powers(own: str, *shape: int) -> torch.Tensor:
        drawn = torch.rand(*shape, generator=generator, dtype=torch.float64)
        return DECADES * (2 * drawn - 1) * (own in MIXES[mix])

    rows, tokens = powers("vectors", n, 1), powers("tokens", vocabulary, 1)
    numbers = powers("numbers", 1, d)
    if mix == "alike":
        rows, tokens = DECADES * (2 * torch.rand(2, generator=generator, dtype=torch.float64) - 1)
    x, w = x.double() * 10.0 ** (rows + numbers), w.double() * 10.0 ** (tokens - numbers)
    return x.float(), w.float()


def check(x: torch.Tensor, w: torch.Tensor, k: int, impl: str, stats: bool = False) -> float:
    """Both sides' ids and logits against float64, no statistic that is NaN; the certified share."""
    got, want = project_topk(x, w, k, stats=stats, impl=impl), exact_ids(x, w, k)
    assert got.impl == impl
    logits = x.double() @ w.double().T
    # float64 products add in another order; `tiled` gives those of float32 that need no second look
    lost = 2.0 ** (-24 if impl == "tiled" else -52) * x.shape[1]
    size = lost * x.double().norm(dim=1, keepdim=True) * w.double().norm(dim=1).max()
    for name in ("top", "bottom"):
        side = getattr(got, name)
        assert torch.equal(side.ids, want[name]), name
        exact = logits.gather(1, side.ids)
        allowed = size + 2.0**-23 * exact.abs() + 2.0**-149
        assert ((side.logits - exact.float()).nan_to_num(0.0).abs() <= allowed).all(), name
        for values in side[2:] if stats else ():
            assert not values.isnan().any(), name
    for name, values in (got.moments._asdict() if stats else {}).items():
        assert not values.isnan().any(), name
    assert got.certified is not None
    return got.certified
