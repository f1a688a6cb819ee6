"""Sparse autoencoders of any kind trained with sae-lens, many at once in step over one stream.

The kinds and their dead latents: `kinds.py`. Inputs are centred and scaled (`spread.py`: robust
statistics of the stream's first batches; massive activations are left out) and both are folded into
the stored weights (`fold.py`), so the vectors are those of training. Naive equivalent for one of
them: sae_lens.SAETrainer(...).fit() over the same stream, centred and scaled.

Written to the run: `saes/<name>/`, each a folder that `SAE.load_from_disk` opens (cfg.json;
sae_weights.safetensors in float16, or in float32 where float16 would lose something), and in it
`training.parquet`: step, tokens int64, l0, fvu, dead (share of the latents), penalty (coefficient,
    NaN where there is none) double: of some batches as they were trained on
While training, a checkpoint: weights, Adam's moments and counters of all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import UserError
from ..model.site import Site
from ..progress import progress, waiting
from ..runs.checkpoint import Checkpoint
from ..runs.writer import RunWriter
from .fold import FILES, save_sae
from .plan import SaePlan, Schedule

if TYPE_CHECKING:
    from torch import Tensor

    from .learner import Learner
    from .spread import Spread

    Batches = Iterator[Mapping[Site, Tensor]]
    """Activations [batch, d] of every site, batch by batch."""

REPORT = 50
"""Steps between two reports of progress, at least..."""
REPORTS = 200
"""... and how many reports there are, at most."""
OBSERVED = 16
"""The first batches of the stream, whose centre and distances all are scaled by."""


def train_saes(
    plans: Sequence[SaePlan],
    batches: Callable[[int], Batches],
    schedule: Schedule,
    out: RunWriter,
    label: str,
) -> None:
    """Train all plans on one stream, each token seen once; resumes from a checkpoint if there is
    one.

    Args:
        batches: `batches(n)` is the stream from batch n on: activations [batch, d] by site.

    Raises:
        UserError: the stream ends before the last step, its activations do not vary, or a training
            diverges.
        ValueError: two plans of one name.
    """
    from .learner import learners, restored, state_of

    if len({plan.name for plan in plans}) < len(plans):
        raise ValueError("two SAEs of one name would be trained as one")
    checkpoint = Checkpoint(out, f"saes/{plans[0].name}")
    if state := checkpoint.read():
        done, spreads, each = restored(plans, schedule, state)
        stream = batches(done)
    else:
        done, stream = 0, batches(0)
        with waiting("read the first activations, to shuffle and to scale by"):
            first = list(itertools.islice(stream, min(OBSERVED, schedule.steps)))
        spreads = _spreads(first, schedule.batch)
        each = learners(plans, schedule, spreads)
        stream = itertools.chain(first, stream)
        del first
    total, every = schedule.steps * schedule.batch, max(REPORT, schedule.steps // REPORTS)
    with progress(label, total, "tokens", done * schedule.batch) as advance:
        for step in range(done + 1, schedule.steps + 1):
            batch = next(stream, None)
            if batch is None:
                tokens = (step - 1) * schedule.batch
                raise UserError(f"the text ended after {tokens} tokens: train on fewer of them")
            report = step % every == 0 or step == schedule.steps
            moved = {site: batch[site].to(schedule.device) for site in spreads}
            for learner in each:
                learner.step(step, learner.inputs(moved, spreads), report)
            advance(schedule.batch, _words(each))
            if checkpoint.due():
                _check(each, step)
                checkpoint.write(*state_of(each, spreads, step))
    _check(each, schedule.steps)
    for learner in each:
        out.table(f"saes/{learner.plan.name}/training", learner.curve)
        save_sae(learner.sae, learner.plan, spreads, out, schedule.half)
    checkpoint.remove()


def _spreads(first: Sequence[Mapping[Site, Tensor]], size: int) -> dict[Site, Spread]:
    """Of every site, over the first batches of `size` tokens."""
    import torch

    from .spread import Spread

    if not first:
        raise UserError(f"the text does not fill one batch of {size} tokens: give more")
    return {site: Spread.of(torch.cat([x[site].cpu() for x in first])) for site in first[0]}


def _words(each: Sequence[Learner]) -> str:
    """The last report of the first of them."""
    if not each[0].curve:
        return ""
    now = each[0].curve[-1]
    others = f" (and {len(each) - 1} more)" if len(each) > 1 else ""
    return (
        f"{each[0].plan.name} FVU {now['fvu']:.3f} L0 {now['l0']:.1f} "
        f"dead {100 * now['dead']:.1f} %{others}"
    )


def _check(each: Sequence[Learner], step: int) -> None:
    """Before anything of them is kept: no weight is a NaN."""
    for learner in each:
        if not all(weight.isfinite().all() for weight in learner.sae.parameters()):
            raise UserError(
                f"the training of {learner.plan.name} diverges: its weights are no numbers after "
                f"{step} steps; give a smaller --lr"
            )


def trained(out: RunWriter, name: str) -> bool:
    """Whether an autoencoder of the run is stored, whole."""
    return all(out.has(f"saes/{name}/{file}") for file in FILES)
