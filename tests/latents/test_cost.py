"""What a survey costs beside the bare forward pass and encoding, in turns."""

import pytest

from interp.latents.speed import BATCHES, pairs
from interp.timing import turns_of


@pytest.mark.slow
def test_tallies_cost_less_than_a_third():
    """SmolLM2 and the widest SAE that ships. Seconds of the processor: other programs disturb
    these less."""
    (pair,) = pairs("smollm2-135m")
    turns = turns_of(pair, BATCHES - 1)
    survey, bare = (sum(getattr(turn, f"{of}_cpu_s") for turn in turns) for of in ("ours", "bare"))
    assert survey < 1.3 * bare, turns
