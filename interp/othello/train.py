"""Train an OthelloGPT on random games made on the fly: `interp othello train`.

The model is a plain transformers GPT-2 (LayerNorm, exact GELU, learned positions, no dropout,
untied embeddings, vocabulary 61, context 59); its folder opens like that of any other model.
Loss: mean cross-entropy of moves 2 .. 60 given the moves before, pads left out. Game number k
of the stream `seed` is seen exactly once, and held-out games never (see games.py).

Naive code:
    for step in range(games // batch):
        tokens = random_games(batch, seed, first=step * batch, split="train")
        loss = cross_entropy(model(tokens[:, :-1]).logits, tokens[:, 1:], ignore_index=0)
        loss.backward(); clip_grad_norm_(...); optimiser.step()

The same command run again continues from the last checkpoint. A training can be paused (SIGSTOP);
one that is killed loses the steps after its last checkpoint.

Speed, measured on 2 cores of an AMD EPYC with avx512_bf16, 4 layers, d 128, batch 256, games/s
of forward + backward with two OpenMP threads: fp32 344 (sdpa) and 386 (eager attention), bf16
autocast 430 (sdpa) and 716 (eager). With another busy program on both cores bf16 + eager fell
to 99-119, because its threads wait for each other in every operation. Two Python threads that each
take half of the batch, single-threaded inside and meeting once per step, kept 369-378. Hence the
defaults: bf16 over fp32 weights, eager attention, one shard of the batch per core.
Batch and rate: trainings of 40,000 games ended at a KL of 1.294 nats (batch 256, lr 1e-3), 1.090
(128, 1e-3) and 1.086 (128, 2e-3): few steps cost more than noisy ones.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

from ..errors import UserError
from ..progress import log, progress
from . import board
from .card import write_card
from .evaluate import evaluate, loss_floor
from .games import random_games
from .settings import TrainConfig
from .training_state import TrainingState, load_checkpoint, save_checkpoint

EVAL_SEED = 1_000_003
"""Stream of the held-out games; the split, not the seed, keeps them out of training."""


def build_model(config: TrainConfig) -> GPT2LMHeadModel:
    """An OthelloGPT with random weights, which depend on the seed alone."""
    torch.manual_seed(config.seed)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=board.N_PLIES + 1,
            n_positions=board.N_PLIES - 1,
            n_embd=config.d_model,
            n_layer=config.n_layers,
            n_head=config.n_heads,
            activation_function="gelu",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            tie_word_embeddings=False,
            use_cache=False,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )
    )
    model.set_attn_implementation(config.attention)
    return model


def build_optimiser(model: GPT2LMHeadModel, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on the matrices only."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.95), fused=True)


def lr_at(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine that reaches zero with the last planned game."""
    warmup = min(config.warmup_games, config.games // 10) / config.batch
    if step < warmup:
        return config.lr * (step + 1) / (warmup + 1)
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (config.steps - warmup)))


def shard_gradients(
    model: GPT2LMHeadModel, tokens: Tensor, n_real: int, bf16: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Summed loss / n_real of some games [b, 60], and its gradients; no `.grad` is written."""
    # Threads share the model; autocast's cache of cast weights is not safe for threads.
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False):
        logits = model(input_ids=tokens[:, :-1]).logits
    total = cross_entropy(
        logits.float().flatten(0, 1),
        tokens[:, 1:].flatten(),
        ignore_index=board.PAD,
        reduction="sum",
    )
    loss = total / n_real
    return loss.detach(), torch.autograd.grad(loss, list(model.parameters()))


def train_step(
    model: GPT2LMHeadModel,
    optimiser: torch.optim.AdamW,
    step: int,
    config: TrainConfig,
    pool: ThreadPoolExecutor,
) -> tuple[float, float]:
    """One optimiser step on batch number `step`; returns (loss, floor) in nats."""
    games = random_games(config.batch, config.seed, first=step * config.batch, split="train")
    tokens = torch.from_numpy(games).long()
    n_real = int((games[:, 1:] != board.PAD).sum())
    bf16 = config.precision == "bf16"
    parts = list(
        pool.map(lambda t: shard_gradients(model, t, n_real, bf16), tokens.chunk(config.shards))
    )
    for p, *grads in zip(model.parameters(), *(grads for _, grads in parts), strict=True):
        p.grad = torch.stack(grads).sum(0)
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    for group in optimiser.param_groups:
        group["lr"] = lr_at(step, config)
    optimiser.step()
    return sum(loss.item() for loss, _ in parts), loss_floor(games)


def _log_step(
    config: TrainConfig,
    state: TrainingState,
    loss: float,
    floor: float,
    advance: Callable[..., None],
) -> None:
    """Add a step's loss; every `log_every` steps log the mean and keep it for the card's curve."""
    losses = state.pending
    losses.append((loss, floor))
    if state.step % config.log_every and state.step != config.steps:
        return
    mean = sum(a for a, _ in losses) / len(losses)
    above = mean - sum(b for _, b in losses) / len(losses)
    state.curve.append({"games": state.step * config.batch, "loss": mean, "above_floor": above})
    advance(len(losses) * config.batch, f"loss {mean:.4f}, {above:.4f} above the floor,")
    losses.clear()


def train(config: TrainConfig, stop_after: int | None = None) -> bool:
    """Train, or continue, to the end; returns whether the model was finished and saved.

    Args:
        stop_after: stop with a checkpoint after this many steps.

    Raises:
        UserError: settings that cannot work, a folder that cannot be written, checkpoints of a
            training with other settings, or one that another process goes on with.
    """
    config.check()
    lock = FileLock(config.ckpt / ".lock", timeout=0)
    for folder in (config.out, config.ckpt):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"another process is training with the checkpoints in {config.ckpt}: give another "
            "--ckpt, or wait"
        ) from error
    except OSError as error:
        raise UserError(f"cannot write {config.ckpt}: {error.strerror or error}") from error
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(
            config.shards, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            return _train(config, min(config.steps, stop_after or config.steps), pool)
    finally:
        torch.set_num_threads(threads)
        lock.release()


def _train(config: TrainConfig, last: int, pool: ThreadPoolExecutor) -> bool:
    model, began = build_model(config).train(), time.monotonic()
    optimiser = build_optimiser(model, config)
    state = load_checkpoint(config.ckpt, model, optimiser, config.identity())
    seconds_before = state.seconds
    monitor = random_games(200, EVAL_SEED, first=config.eval_games, split="held_out")
    saved = time.monotonic()
    total, done = config.steps * config.batch, state.step * config.batch
    with progress("train", total, "games", done) as advance:
        for step in range(state.step, last):
            loss, floor = train_step(model, optimiser, step, config, pool)
            state.step = step + 1
            _log_step(config, state, loss, floor, advance)
            if time.monotonic() - saved > config.ckpt_seconds or state.step == last:
                score = evaluate(model, monitor)
                games = state.step * config.batch
                state.legality.append({"games": games, "legality": score.legality, "kl": score.kl})
                state.seconds = seconds_before + time.monotonic() - began
                save_checkpoint(config.ckpt, model, optimiser, state)
                saved = time.monotonic()
                log.info("checkpoint at %s games, legality %.4f", games, score.legality)
    if last < config.steps:
        return False
    held_out = random_games(config.eval_games, EVAL_SEED, split="held_out")
    model.save_pretrained(config.out)
    write_card(config.out, asdict(config), state, evaluate(model, held_out))
    return True
