"""What a survey's tallies cost beside the model's passes and the SAE's encoder."""

from __future__ import annotations

from itertools import cycle, islice

from safetensors.torch import load, save

from ..model.subject import open_subject
from ..timing import Pair
from .merging import Tallies
from .survey import SurveyConfig
from .survey_part import BATCH, PartReader, contexts_a_part

BATCHES = 10


def pairs(model: str) -> list[Pair]:
    """For `interp bench all`: of the model's widest SAE that ships, a batch of contexts each turn.
    The first are the dearest: every activation is among the largest so far.

    Raises:
        UserError: no SAE of the model ships.
    """
    config = SurveyConfig(model=model, tokens=256 * 80)
    config.check()
    saes, subject = config.opened(), open_subject(config.model, bos=config.feeding)
    stream, sae = config.stream(subject, saes), next(iter(saes.by_name.values()))
    reader, whole = PartReader(stream, sae, config), Tallies.empty(sae.d_sae, config.top)
    own, taken = Tallies.empty(sae.d_sae, config.top), 0
    rows = stream.rows(config.contexts)
    parts = list(islice(stream.contexts(rows, config.contexts, BATCH), BATCHES))
    surveyed, bare = cycle(parts), cycle(parts)

    def survey() -> None:
        nonlocal own, taken
        for step in reader.steps(*stream.read(next(surveyed))):
            reader.add(own, step)
        taken += 1
        if taken % (contexts_a_part(config.length) // BATCH) == 0:
            whole.merge(load(save(own.packed())))
            own = Tallies.empty(sae.d_sae, config.top)

    def passes() -> None:
        sae.encode(stream.read(next(bare))[1].x)

    against = "the model's passes and the encoder"
    return [Pair("a survey of an SAE's latents", against, "saes", survey, passes)]
