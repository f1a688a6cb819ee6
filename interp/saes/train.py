"""Sparse autoencoders trained with sae-lens, many at once in step over one stream of activations.

Two architectures, as sae-lens has them: TopK, and the ReLU one with an L1 penalty (weighted by
decoder norms, encoder and decoder untied). Inputs are scaled to a mean norm of sqrt(d) in training,
the scale is folded into the weights afterwards, and the decoder's bias starts at the mean: without
that most latents die. Naive equivalent for one of them: sae_lens.SAETrainer(...).fit() over the
same stream.

Written to the run: `saes/<name>/`, each a folder that `SAE.load_from_disk` opens (cfg.json;
sae_weights.safetensors in float16). While training, `checkpoint.safetensors`: weights, Adam's
moments and counters of all of them; gone when they are done.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UserError
from ..model.site import Site
from ..progress import progress
from ..runs.writer import RunWriter, save_tensors

if TYPE_CHECKING:
    from torch import Tensor

    Batches = Iterator[Mapping[Site, Tensor]]

REPORT = 50
"""Steps between two reports of progress."""
CHECKPOINT = "checkpoint.safetensors"
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
    checkpoint: int = 0
    """Steps between two checkpoints, 0 for none."""


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
        batches: `batches(n)` is the stream from batch n on: activations [batch, d] by site. Batch
            0 sets scales and biases; it is not trained on.

    Raises:
        UserError: the stream ends before the last step.
        ValueError: two plans of one name.
    """
    if len({plan.name for plan in plans}) < len(plans):
        raise ValueError("two SAEs of one name would be trained as one")
    stream = batches(0)
    first = next(stream, None)
    if first is None:
        raise UserError(f"the text does not fill one batch of {schedule.batch} tokens: give more")
    scales = {site: float(x.shape[1] ** 0.5 / x.norm(dim=1).mean()) for site, x in first.items()}
    trainers = {p.name: _trainer(p, schedule, first[p.site] * scales[p.site]) for p in plans}
    done = _resume(trainers, schedule, out) if out.has(CHECKPOINT) else 0
    if done:
        stream = batches(1 + done)
    total = schedule.steps * schedule.batch
    with progress(label, total, "tokens", done * schedule.batch) as advance:
        for step in range(done + 1, schedule.steps + 1):
            batch = next(stream, None)
            if batch is None:
                tokens = (step - 1) * schedule.batch
                raise UserError(f"the text ended after {tokens} tokens: train on fewer of them")
            for plan in plans:
                trainer = trainers[plan.name]
                trainer.step(batch[plan.site].to(schedule.device) * scales[plan.site])
                trainer.n_training_steps += 1
            if step % REPORT == 0 or step == schedule.steps:
                advance(schedule.batch * ((step - 1) % REPORT + 1))
            if schedule.checkpoint and step % schedule.checkpoint == 0:
                _write_checkpoint(trainers, step, out)
    for plan in plans:
        _save(trainers[plan.name].sae, scales[plan.site], out, plan.name)
    (out.path / CHECKPOINT).unlink(missing_ok=True)


def _trainer(plan: SaePlan, schedule: Schedule, x: Tensor) -> Any:
    """A sae-lens trainer to be stepped; `x` [batch, d] are scaled activations to start from."""
    import sae_lens as lens
    import torch
    from sae_lens.config import SAETrainerConfig

    from interp.saes.hooks import hook_of_site

    torch.manual_seed(1000 * plan.seed + (plan.site.layer or 0))
    warm_up = schedule.steps // 20
    sizes = {"d_in": x.shape[1], "d_sae": plan.d_sae, "device": schedule.device}
    sae: Any
    if plan.arch == "topk":
        sae = lens.TopKTrainingSAE(lens.TopKTrainingSAEConfig(**sizes, k=int(plan.sparsity)))
    else:
        penalty = {"l1_coefficient": plan.sparsity, "l1_warm_up_steps": warm_up}
        sae = lens.StandardTrainingSAE(lens.StandardTrainingSAEConfig(**sizes, **penalty))
    sae.b_dec.data.copy_(x.mean(0))
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
        lr_warm_up_steps=warm_up,
        lr_decay_steps=schedule.steps // 3,
        dead_feature_window=200,
        device=schedule.device,
        autocast=schedule.autocast,
        logger=lens.LoggingConfig(log_to_wandb=False),
    )
    return lens.SAETrainer(cfg=config, sae=sae, data_provider=iter([]))


def _write_checkpoint(trainers: Mapping[str, Any], step: int, out: RunWriter) -> None:
    import torch

    tensors = {"step": torch.tensor(step)}
    for name, trainer in trainers.items():
        tensors[f"{name}/silent"] = trainer.n_forward_passes_since_fired
        for key, weight in trainer.sae.named_parameters():
            tensors[f"{name}/weights/{key}"] = weight.detach()
            for moment, value in trainer.optimizer.state[weight].items():
                tensors[f"{name}/{moment}/{key}"] = value
    with out.part(CHECKPOINT) as path:
        save_tensors(tensors, path)


def _resume(trainers: Mapping[str, Any], schedule: Schedule, out: RunWriter) -> int:
    """Set the trainers to the checkpoint's state; returns the number of steps it has made."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(out.path / CHECKPOINT, device=schedule.device)
    done = int(tensors["step"])
    for name, trainer in trainers.items():
        trainer.n_training_steps, trainer.n_training_samples = done, done * schedule.batch
        trainer.n_forward_passes_since_fired = tensors[f"{name}/silent"]
        with warnings.catch_warnings():  # torch expects a step of the optimizer before each
            warnings.simplefilter("ignore", UserWarning)
            for scheduler in (trainer.lr_scheduler, *trainer.coefficient_schedulers.values()):
                for _ in range(done):
                    scheduler.step()
        for key, weight in trainer.sae.named_parameters():
            with torch.no_grad():
                weight.copy_(tensors[f"{name}/weights/{key}"])
            moments = ("exp_avg", "exp_avg_sq")
            trainer.optimizer.state[weight] = {
                "step": tensors[f"{name}/step/{key}"].cpu(),
                **{moment: tensors[f"{name}/{moment}/{key}"] for moment in moments},
            }
    return done


def trained(out: RunWriter, name: str) -> bool:
    """Whether an autoencoder of the run is stored, whole."""
    return all(out.has(f"saes/{name}/{file}") for file in FILES)


def _save(sae: Any, scale: float, out: RunWriter, name: str) -> None:
    """Fold the scale in and store in float16, cfg.json last."""
    import torch

    sae.fold_activation_norm_scaling_factor(scale)
    sae.to(torch.float16)
    with tempfile.TemporaryDirectory() as scratch:
        sae.save_inference_model(scratch)
        for part in FILES:
            with out.part(f"saes/{name}/{part}") as path:
                path.write_bytes((Path(scratch) / part).read_bytes())
