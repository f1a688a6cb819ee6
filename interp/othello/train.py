"""Train an OthelloGPT on random games made on the fly: `interp othello train`.

The model is a plain transformers GPT-2 (LayerNorm, exact GELU, learned positions, no dropout,
untied embeddings, vocabulary 61, context 59); the folder it leaves opens like any other model.
Loss: mean cross-entropy of moves 2 .. 60 given the moves before, pads left out. Game number k
of the stream `seed` is seen exactly once, and held-out games never (see games.py).

Equivalent naive code:
    for step in range(games // batch):
        tokens = random_games(batch, seed, first=step * batch, split="train")
        loss = cross_entropy(model(tokens[:, :-1]).logits, tokens[:, 1:], ignore_index=0)
        loss.backward(); clip_grad_norm_(...); optimiser.step()

The same command run again continues from the last checkpoint. The run survives being stopped
(SIGSTOP) and continued; a killed run loses what came after its last checkpoint.

Speed, measured on 2 cores of an AMD EPYC with avx512_bf16, 4 layers, d 128, batch 256, games/s
of forward + backward with two OpenMP threads: fp32 344 (sdpa) and 386 (eager attention), bf16
autocast 430 (sdpa) and 716 (eager). With another busy program on both cores bf16 + eager fell
to 99-119, as its threads wait for each other in every operation; two Python threads that each
take half of the batch, single-threaded inside and meeting once a step, kept 369-378 (their fair
half). Hence the defaults: bf16 over fp32 weights, eager attention, one shard of the batch a core.
Batch and rate: runs of 40,000 games ended at a KL of 1.294 nats (batch 256, lr 1e-3), 1.090 (128,
1e-3) and 1.086 (128, 2e-3): few steps cost more than noisy ones.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

from interp.errors import UserError
from interp.othello import board
from interp.othello.card import write_card
from interp.othello.checkpoint import RunState, load_newest, save_checkpoint
from interp.othello.evaluate import evaluate, floor_of
from interp.othello.games import random_games
from interp.othello.settings import TrainConfig
from interp.progress import log, progress

EVAL_SEED = 1_000_003
"""Stream of the held-out games; the split, not the seed, keeps them out of training."""


def build_model(config: TrainConfig) -> GPT2LMHeadModel:
    """A freshly initialised OthelloGPT, the same one for the same seed."""
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
    """AdamW that decays matrices only."""
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
    """Summed loss / n_real of some games [b, 60] and its gradients, touching no `.grad`."""
    # Threads share the model; autocast's cache of cast weights is the one thing in their way.
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
    return sum(loss.item() for loss, _ in parts), floor_of(games)


class _Log:
    """Means of the loss between reports, and the curve kept for the card."""

    def __init__(self, config: TrainConfig, state: RunState, advance: Callable[..., None]) -> None:
        self.config, self.state, self.advance = config, state, advance

    def add(self, step: int, loss: float, floor: float) -> None:
        """Note one step; report and keep the mean of every `log_every` steps."""
        losses = self.state.pending
        losses.append((loss, floor))
        if step % self.config.log_every and step != self.config.steps:
            return
        mean = sum(a for a, _ in losses) / len(losses)
        above = mean - sum(b for _, b in losses) / len(losses)
        games = step * self.config.batch
        self.state.curve.append({"games": games, "loss": mean, "above_floor": above})
        done = len(losses) * self.config.batch
        self.advance(done, f"loss {mean:.4f}, {above:.4f} above the floor,")
        losses.clear()


def train(config: TrainConfig, stop_after: int | None = None) -> bool:
    """Train, or continue, to the end; returns whether the model was finished and saved.

    `stop_after` interrupts the run with a checkpoint once that many steps are done.
    """
    config.check()
    try:
        config.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {config.out}: {error.strerror or error}") from error
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(config.shards, initializer=_one_thread) as pool:
            return _train(config, min(config.steps, stop_after or config.steps), pool)
    finally:
        torch.set_num_threads(threads)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _train(config: TrainConfig, last: int, pool: ThreadPoolExecutor) -> bool:
    model, began = build_model(config).train(), time.monotonic()
    optimiser = build_optimiser(model, config)
    state = load_newest(config.ckpt, model, optimiser, config.identity())
    seconds_before = state.seconds
    monitor = random_games(200, EVAL_SEED, first=config.eval_games, split="held_out")
    saved = time.monotonic()
    total, done = config.steps * config.batch, state.step * config.batch
    with progress("train", total, "games", done) as advance:
        report = _Log(config, state, advance)
        for step in range(state.step, last):
            report.add(step + 1, *train_step(model, optimiser, step, config, pool))
            state.step = step + 1
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
