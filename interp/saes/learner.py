"""One SAE in training: a sae-lens trainer to be stepped, and all that its next step depends on."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.probes.metrics import fvu

from ..model.site import Site
from ..runs.checkpoint import State, restore_training, training_state
from .hooks import hook_of_site
from .kinds import TABLE, settings
from .plan import SaePlan, Schedule
from .resample import resample
from .spread import Spread
from .transcoder import target_of, transcoding

STEERS = 8.0
"""How far the logarithm of a steered penalty can move over a whole training."""
START = 1.0
"""Coefficient that a steered penalty begins with."""


class Learner:
    """One plan's trainer, its penalty and its report."""

    def __init__(self, plan: SaePlan, schedule: Schedule, d_in: int, d_out: int) -> None:
        self.plan, self._schedule = plan, schedule
        self.trainer = _trainer(plan, schedule, d_in, d_out)
        self.curve: list[dict[str, float]] = []
        """Rows of `training.parquet`."""

    @property
    def sae(self) -> Any:
        return self.trainer.sae

    @property
    def _penalty(self) -> Any:
        """sae-lens' scheduler of the coefficient; None where there is none."""
        return next(iter(self.trainer.coefficient_schedulers.values()), None)

    def inputs(
        self, batch: Mapping[Site, Tensor], spreads: Mapping[Site, Spread]
    ) -> Float[Tensor, "kept d"]:
        """A batch as its trainer takes it: centred and scaled, the sites of a transcoder side by
        side, without tokens that are massive at one of them."""
        kept = torch.stack([spreads[s].near(batch[s]) for s in self.plan.sites]).all(0)
        scaled = [spreads[site].scaled(batch[site][kept]) for site in self.plan.sites]
        return torch.cat(scaled, dim=1) if len(scaled) > 1 else scaled[0]

    def step(self, step: int, x: Float[Tensor, "n d"], report: bool = False) -> None:
        """Learn from one batch; dead latents of a penalty are resampled before the rate falls."""
        schedule, plan = self._schedule, self.plan
        if len(x):  # else all of the batch was massive
            made = self.trainer.step(x)
            self.trainer.n_training_steps += 1
            if plan.steered and step > schedule.warm_up:
                self._steer(float((made.feature_acts != 0).sum(1, dtype=torch.float32).mean()))
            if report:
                self._report(step, x, made)
            resampling = TABLE[plan.kind].resampled and step % schedule.dead == 0
            if resampling and step <= schedule.steps - schedule.decay:
                dead = self.trainer.dead_neurons
                resample(self.sae, self.trainer.optimizer, dead, x, 1_000_003 * plan.seed + step)
                self.trainer.n_forward_passes_since_fired[dead] = 0
        elif report:
            self.curve.append(self._row(step, math.nan, math.nan))

    def _steer(self, l0: float) -> None:
        """Raise the penalty where too many latents are active, lower it where too few are."""
        off = math.log(max(l0, 1e-3) / self.plan.sparsity)
        moved = math.exp(STEERS / self._schedule.steps * max(-1.0, min(1.0, off)))
        self._penalty.final_value *= moved
        self._penalty.current_value = self._penalty.final_value

    def _report(self, step: int, x: Tensor, made: Any) -> None:
        target = target_of(self.sae, x)
        l0 = float((made.feature_acts != 0).sum(1, dtype=torch.float64).mean())
        varies = bool((target != target[0]).any())
        unexplained = fvu(target, made.sae_out.detach()) if varies else math.nan
        self.curve.append(self._row(step, l0, unexplained))

    def _row(self, step: int, l0: float, unexplained: float) -> dict[str, float]:
        return {
            "step": step,
            "tokens": step * self._schedule.batch,
            "l0": l0,
            "fvu": unexplained,
            "dead": float(self.trainer.dead_neurons.double().mean()),
            "penalty": float(self._penalty.value) if self._penalty else math.nan,
        }

    @property
    def _named(self) -> str:
        return f"{self.plan.name}/"

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds of it."""
        own = training_state(self.sae.named_parameters(), self.trainer.optimizer)
        own |= {f"buffer/{key}": value for key, value in self.sae.named_buffers()}
        own["silent"] = self.trainer.n_forward_passes_since_fired
        return {f"{self._named}{key}": value for key, value in own.items()}

    def note(self) -> dict[str, Any]:
        """And beside the tensors."""
        penalty = self._penalty.final_value if self._penalty else None
        return {"steps": self.trainer.n_training_steps, "penalty": penalty, "curve": self.curve}

    def restore(self, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> None:
        """Set it to what `tensors` and `note` gave."""
        trainer, prefix = self.trainer, self._named
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        trainer.n_training_steps, self.curve = note["steps"], list(note["curve"])
        trainer.n_forward_passes_since_fired = own["silent"].to(trainer.cfg.device)
        if self._penalty:
            self._penalty.final_value = note["penalty"]
        with warnings.catch_warnings():  # torch expects a step of the optimizer before each
            warnings.simplefilter("ignore", UserWarning)
            for scheduler in (trainer.lr_scheduler, *trainer.coefficient_schedulers.values()):
                for _ in range(trainer.n_training_steps):
                    scheduler.step()
        for key, buffer in self.sae.named_buffers():
            buffer.copy_(own[f"buffer/{key}"])
        restore_training(own, self.sae.named_parameters(), trainer.optimizer)


def learners(
    plans: Sequence[SaePlan], schedule: Schedule, spreads: Mapping[Site, Spread]
) -> list[Learner]:
    widths = {site: len(spread.centre) for site, spread in spreads.items()}
    return [Learner(p, schedule, widths[p.sites[0]], widths[p.sites[-1]]) for p in plans]


def state_of(each: Sequence[Learner], spreads: Mapping[Site, Spread], done: int) -> State:
    """Everything that the steps after `done` depend on."""
    tensors: dict[str, Tensor] = {}
    for site, spread in spreads.items():
        tensors |= {f"spread/{site}/{key}": value for key, value in spread._asdict().items()}
    for learner in each:
        tensors |= learner.tensors()
    notes = {learner.plan.name: learner.note() for learner in each}
    return State(tensors, {"done": done, "learners": notes, "sites": list(map(str, spreads))})


def restored(
    plans: Sequence[SaePlan], schedule: Schedule, state: State
) -> tuple[int, dict[Site, Spread], list[Learner]]:
    """The steps that are done, the spreads and the learners of a checkpoint."""
    spreads = {
        Site.parse(site): Spread(*(state.tensors[f"spread/{site}/{key}"] for key in Spread._fields))
        for site in state.note["sites"]
    }
    each = learners(plans, schedule, spreads)
    for learner in each:
        learner.restore(state.tensors, state.note["learners"][learner.plan.name])
    return int(state.note["done"]), spreads, each


def _trainer(plan: SaePlan, schedule: Schedule, d_in: int, d_out: int) -> Any:
    """A sae-lens trainer to be stepped, whose decoder's bias starts at 0: inputs are centred."""
    import sae_lens as lens
    from sae_lens.config import SAETrainerConfig
    from sae_lens.registry import get_sae_training_class

    torch.manual_seed(1000 * plan.seed + (plan.site.layer or 0))
    own, sparse = TABLE[plan.kind], (plan.kind, START if plan.steered else plan.sparsity)
    kind, config_class = get_sae_training_class(own.trained)
    config = config_class(
        d_in=d_in,
        d_sae=plan.d_sae,
        device=schedule.device,
        apply_b_dec_to_input=plan.gives is None,
        **settings(*sparse, plan.d_sae, schedule.steps, schedule.warm_up),
    )
    sae = transcoding(kind)(config, d_out) if plan.gives else kind(config)
    for key, value in _about(plan, schedule).items():
        setattr(sae.cfg.metadata, key, value)
    trainer = SAETrainerConfig(
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
    return lens.SAETrainer(cfg=trainer, sae=sae, data_provider=iter([]))


def _about(plan: SaePlan, schedule: Schedule) -> dict[str, Any]:
    """What an SAE says of the activations it was trained on, in sae-lens' names."""
    about: dict[str, Any] = {
        "model_name": schedule.model,
        "hook_name": hook_of_site(str(plan.site)),
        "hook_head_index": plan.site.head,
        "hook_name_out": hook_of_site(str(plan.gives)) if plan.gives else None,
        "context_size": schedule.context,
        "reads": plan.reads or None,
    }
    if schedule.bos is not None:
        about |= {"prepend_bos": schedule.bos, "exclude_special_tokens": True}
    return {key: value for key, value in about.items() if value is not None}
