"""What a survey costs beside the bare forward pass and encoding, interleaved."""

import time
from contextlib import contextmanager
from itertools import islice

import pytest

from interp.latents.gather import SurveyPass
from interp.latents.survey import SurveyConfig
from interp.model.subject import open_subject


@pytest.mark.slow
def test_tallies_cost_less_than_a_third():
    """SmolLM2 and the widest SAE that ships. Seconds of the processor: other programs disturb
    these less. The first batches are the dearest: every activation is among the largest so far."""
    config = SurveyConfig(tokens=256 * 80)
    saes, subject = config.opened(), open_subject(config.model)
    stream, sae = config.stream(subject, saes), next(iter(saes.by_name.values()))
    gathered = SurveyPass(stream, sae, config.contexts, config.top, 0, "cpu")
    spent = {"bare": 0.0, "survey": 0.0}

    @contextmanager
    def timed(what):
        start = time.process_time()
        yield
        spent[what] += time.process_time() - start

    rows = stream.rows(config.contexts)
    for number, part in enumerate(islice(stream.contexts(rows, config.contexts, 8), 10)):
        for what in ("bare", "survey") if number % 2 else ("survey", "bare"):
            with timed(what):
                read, tokens = stream.read(part)
                if what == "bare":
                    sae.encode(tokens.x)
                else:
                    for step in gathered.steps(read, tokens):
                        gathered.add(step)
    assert gathered.counted > 20_000
    assert spent["survey"] < 1.3 * spent["bare"], spent
