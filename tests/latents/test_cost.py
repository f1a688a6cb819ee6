"""What a survey costs beside the bare forward pass and encoding, interleaved."""

import time
from contextlib import contextmanager
from itertools import islice

import pytest
from safetensors.torch import load, save

from interp.latents.merging import Tallies
from interp.latents.survey import SurveyConfig
from interp.latents.survey_part import BATCH, PartReader, contexts_a_part
from interp.model.subject import open_subject


@pytest.mark.slow
def test_tallies_cost_less_than_a_third():
    """SmolLM2 and the widest SAE that ships. Seconds of the processor: other programs disturb
    these less. The first batches are the dearest: every activation is among the largest so far."""
    config = SurveyConfig(tokens=256 * 80)
    saes, subject = config.opened(), open_subject(config.model)
    stream, sae = config.stream(subject, saes), next(iter(saes.by_name.values()))
    reader, whole = PartReader(stream, sae, config), Tallies.empty(sae.d_sae, config.top)
    a_part = contexts_a_part(config.length) // BATCH
    spent = {"bare": 0.0, "survey": 0.0}

    @contextmanager
    def timed(what):
        start = time.process_time()
        yield
        spent[what] += time.process_time() - start

    rows, counted = stream.rows(config.contexts), 0
    own = Tallies.empty(sae.d_sae, config.top)
    for number, part in enumerate(islice(stream.contexts(rows, config.contexts, BATCH), 10)):
        for what in ("bare", "survey") if number % 2 else ("survey", "bare"):
            with timed(what):
                read, tokens = stream.read(part)
                if what == "bare":
                    sae.encode(tokens.x)
                    continue
                for step in reader.steps(read, tokens):
                    counted += len(step.context)
                    reader.add(own, step)
                if number % a_part == a_part - 1:
                    whole.merge(load(save(own.packed())))
                    own = Tallies.empty(sae.d_sae, config.top)
    assert counted > 20_000
    assert spent["survey"] < 1.3 * spent["bare"], spent
