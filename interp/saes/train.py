"""Sparse autoencoders trained with sae-lens, many at once in step over one stream of activations.

Two architectures, as sae-lens has them: TopK, and the ReLU one with an L1 penalty (weighted by
decoder norms, encoder and decoder untied). Inputs are centred and scaled (`spread.py`: robust
statistics of the stream's first batches; massive activations are left out) and both are folded into
the stored biases, so the vectors are those of training. TopK has a loss for dead latents, in the
other they are resampled (`resample.py`). Naive equivalent for one of them:
sae_lens.SAETrainer(...).fit() over the same stream, centred and scaled.

Written to the run: `saes/<name>/`, each a folder that `SAE.load_from_disk` opens (cfg.json;
sae_weights.safetensors in float16, or in float32 where float16 would lose something). While
training, a checkpoint: weights, Adam's moments and counters of all of them.
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UserError
from ..model.site import Site
from ..progress import progress
from ..runs.checkpoint import Checkpoint, State, restore_training, training_state
from ..runs.writer import RunWriter, save_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from .spread import Spread

    Batches = Iterator[Mapping[Site, Tensor]]
    """Activations [batch, d] of every site, batch by batch."""

REPORT = 50
"""Steps between two reports of progress."""
OBSERVED = 16
"""The first batches of the stream, whose centre and distances all are scaled by."""
DEAD = 200
"""A latent is dead that was silent for so many steps, or for a tenth of a shorter training."""
FILES = ("sae_weights.safetensors", "cfg.json")
"""What the folder of an autoencoder holds, in the order in which they are written."""


@dataclass(frozen=True)
class SaePlan:
    """One autoencoder to be trained."""

    name: str
    site: Site
    arch: Literal["topk", "l1"]
    d_sae: int
    sparsity: float
    """Active latents a token (topk), or the L1 coefficient (l1)."""
    seed: int = 0
    reads: str = ""
    """What the stream holds if not the site's activations; stored in the metadata."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: Adam, linear warm-up over a twentieth, down to lr / 10 at the end."""

    steps: int
    batch: int
    """Tokens a step."""
    lr: float
    model: str
    """The model's name, stored in the autoencoders' metadata."""
    bos: bool | None = None
    """Whether a BOS token stood before each text, stored too; None: the tokens are no text."""
    device: str = "cpu"
    autocast: bool = False
    """Products in bfloat16 (weights and moments stay in float32)."""

    @property
    def warm_up(self) -> int:
        return self.steps // 20

    @property
    def decay(self) -> int:
        """Steps at the end in which the rate falls."""
        return self.steps // 3

    @property
    def dead(self) -> int:
        """Steps of silence after which a latent is dead."""
        return max(1, min(DEAD, self.steps // 10))


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
    if len({plan.name for plan in plans}) < len(plans):
        raise ValueError("two SAEs of one name would be trained as one")
    checkpoint = Checkpoint(out, f"saes/{plans[0].name}")
    state = checkpoint.read()
    if state:
        done = int(state.note["done"])
        stream, spreads = batches(done), _stored_spreads(state)
    else:
        done, stream = 0, batches(0)
        first = list(itertools.islice(stream, min(OBSERVED, schedule.steps)))
        spreads = _spreads(first, schedule.batch)
        stream = itertools.chain(first, stream)
        del first
    trainers = {p.name: _trainer(p, schedule, len(spreads[p.site].centre)) for p in plans}
    if state:
        _restore(trainers, state)
    total = schedule.steps * schedule.batch
    with progress(label, total, "tokens", done * schedule.batch) as advance:
        for step in range(done + 1, schedule.steps + 1):
            batch = next(stream, None)
            if batch is None:
                tokens = (step - 1) * schedule.batch
                raise UserError(f"the text ended after {tokens} tokens: train on fewer of them")
            inputs = {
                site: s.inputs(batch[site].to(schedule.device)) for site, s in spreads.items()
            }
            for plan in plans:
                _step(trainers[plan.name], plan, schedule, step, inputs[plan.site])
            if step % REPORT == 0 or step == schedule.steps:
                advance(schedule.batch * ((step - 1) % REPORT + 1))
            if checkpoint.due():
                _check(trainers, step)
                checkpoint.write(*_state(trainers, spreads, step))
    _check(trainers, schedule.steps)
    for plan in plans:
        _save(trainers[plan.name].sae, spreads[plan.site], out, plan.name)
    checkpoint.remove()


def _spreads(first: Sequence[Mapping[Site, Tensor]], size: int) -> dict[Site, Spread]:
    """Of every site, over the first batches of `size` tokens."""
    import torch

    from .spread import Spread

    if not first:
        raise UserError(f"the text does not fill one batch of {size} tokens: give more")
    return {site: Spread.of(torch.cat([x[site].cpu() for x in first])) for site in first[0]}


def _step(trainer: Any, plan: SaePlan, schedule: Schedule, step: int, x: Tensor) -> None:
    """One step on inputs [n, d]; dead latents of an L1 penalty are resampled before the rate
    falls."""
    from .resample import resample

    if not len(x):  # all of the batch was massive
        return
    trainer.step(x)
    trainer.n_training_steps += 1
    if plan.arch == "l1" and step % schedule.dead == 0 and step <= schedule.steps - schedule.decay:
        dead = trainer.dead_neurons
        resample(trainer.sae, trainer.optimizer, dead, x, 1_000_003 * plan.seed + step)
        trainer.n_forward_passes_since_fired[dead] = 0


def _trainer(plan: SaePlan, schedule: Schedule, d_in: int) -> Any:
    """A sae-lens trainer to be stepped, whose decoder's bias starts at 0: inputs are centred."""
    import sae_lens as lens
    import torch
    from sae_lens.config import SAETrainerConfig

    from interp.saes.hooks import hook_of_site

    torch.manual_seed(1000 * plan.seed + (plan.site.layer or 0))
    sizes = {"d_in": d_in, "d_sae": plan.d_sae, "device": schedule.device}
    sae: Any
    if plan.arch == "topk":
        sae = lens.TopKTrainingSAE(lens.TopKTrainingSAEConfig(**sizes, k=int(plan.sparsity)))
    else:
        penalty = {"l1_coefficient": plan.sparsity, "l1_warm_up_steps": schedule.warm_up}
        sae = lens.StandardTrainingSAE(lens.StandardTrainingSAEConfig(**sizes, **penalty))
    sae.cfg.metadata.model_name = schedule.model
    sae.cfg.metadata.hook_name = hook_of_site(str(plan.site))
    if plan.site.head is not None:
        sae.cfg.metadata.hook_head_index = plan.site.head
    if schedule.bos is not None:
        sae.cfg.metadata.prepend_bos = schedule.bos
        sae.cfg.metadata.exclude_special_tokens = True
    if plan.reads:
        sae.cfg.metadata.reads = plan.reads
    config = SAETrainerConfig(
        total_training_samples=schedule.steps * schedule.batch,
        train_batch_size_samples=schedule.batch,
        lr=schedule.lr,
        lr_end=schedule.lr / 10,
        lr_warm_up_steps=schedule.warm_up,
        lr_decay_steps=schedule.decay,
        dead_feature_window=schedule.dead,
        device=schedule.device,
        autocast=schedule.autocast,
        logger=lens.LoggingConfig(log_to_wandb=False),
    )
    return lens.SAETrainer(cfg=config, sae=sae, data_provider=iter([]))


def _check(trainers: Mapping[str, Any], step: int) -> None:
    """Before anything of them is kept: no weight is a NaN."""
    for name, trainer in trainers.items():
        if not all(weight.isfinite().all() for weight in trainer.sae.parameters()):
            raise UserError(
                f"the training of {name} diverges: its weights are no numbers after {step} steps; "
                "give a smaller --lr"
            )


def _state(trainers: Mapping[str, Any], spreads: Mapping[Site, Spread], done: int) -> State:
    """Everything that the steps after `done` depend on."""
    tensors: dict[str, Tensor] = {}
    for site, spread in spreads.items():
        tensors |= {f"spread/{site}/{key}": value for key, value in spread._asdict().items()}
    for name, trainer in trainers.items():
        tensors[f"{name}/silent"] = trainer.n_forward_passes_since_fired
        own = training_state(trainer.sae.named_parameters(), trainer.optimizer)
        tensors |= {f"{name}/{key}": value for key, value in own.items()}
    steps = {name: trainer.n_training_steps for name, trainer in trainers.items()}
    return State(tensors, {"done": done, "steps": steps, "sites": list(map(str, spreads))})


def _stored_spreads(state: State) -> dict[Site, Spread]:
    from .spread import Spread

    return {
        Site.parse(site): Spread(*(state.tensors[f"spread/{site}/{key}"] for key in Spread._fields))
        for site in state.note["sites"]
    }


def _restore(trainers: Mapping[str, Any], state: State) -> None:
    """Set the trainers to a checkpoint's state."""
    for name, trainer in trainers.items():
        trainer.n_training_steps = state.note["steps"][name]
        trainer.n_forward_passes_since_fired = state.tensors[f"{name}/silent"].to(
            trainer.cfg.device
        )
        with warnings.catch_warnings():  # torch expects a step of the optimizer before each
            warnings.simplefilter("ignore", UserWarning)
            for scheduler in (trainer.lr_scheduler, *trainer.coefficient_schedulers.values()):
                for _ in range(trainer.n_training_steps):
                    scheduler.step()
        prefix = f"{name}/"
        own = {k.removeprefix(prefix): v for k, v in state.tensors.items() if k.startswith(prefix)}
        restore_training(own, trainer.sae.named_parameters(), trainer.optimizer)


def trained(out: RunWriter, name: str) -> bool:
    """Whether an autoencoder of the run is stored, whole."""
    return all(out.has(f"saes/{name}/{file}") for file in FILES)


def _save(sae: Any, spread: Spread, out: RunWriter, name: str) -> None:
    """Fold centre and scale into the biases and store the SAE, cfg.json last."""
    from ..runs.halves import halved

    weights = {key: weight.detach().clone() for key, weight in sae.state_dict().items()}
    sae.process_state_dict_for_saving_inference(weights)
    weights["b_enc"] = weights["b_enc"] / spread.scale
    b_dec = weights["b_dec"].double() / spread.scale + spread.centre
    weights["b_dec"] = b_dec.to(weights["W_dec"])
    # an error of this bias is one of every reconstruction
    stored = halved(weights, {"b_dec": float(spread.distance)})
    config = sae.cfg.get_inference_sae_cfg_dict()
    config["dtype"] = str(stored["b_dec"].dtype).removeprefix("torch.")
    with out.part(f"saes/{name}/{FILES[0]}") as path:
        save_tensors(stored, path)
    with out.part(f"saes/{name}/{FILES[1]}") as path:
        path.write_text(json.dumps(config))
