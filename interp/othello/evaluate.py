"""How good an OthelloGPT is: legality, loss above the floor, distance from uniform play.

Position t of the model has read moves 0 .. t and predicts move t + 1, so plies 2 .. 60 are scored.
On uniformly random games no model's loss can be below the mean log number of legal moves (the
floor, 2.010 nats). The floor is computed on the games that are scored, so their noise cancels.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import log_softmax
from transformers import GPT2LMHeadModel

from . import board
from .games import log_choices, replay, tokens_of


class Score(NamedTuple):
    """Means over every predicted move of a set of games."""

    loss: float
    """Cross-entropy of the moves played, in nats."""
    floor: float
    """Mean log number of legal moves on the same plies."""
    loss_above_floor: float
    """loss - floor. Its expectation is `kl`; the random choice of moves adds noise to it."""
    kl: float
    """KL(uniform over the legal moves || model), in nats."""
    legality: float
    """Share of plies whose most likely token is a legal move."""
    illegal_mass: float
    """Probability of all illegal tokens together."""
    n_games: int
    """Games scored."""
    n_moves: int
    """Moves predicted."""


def loss_floor(games: np.ndarray) -> float:
    """Least possible mean loss over plies 2 .. 60 of games [n, 60]."""
    return float(log_choices(replay(games))[:, 1:][games[:, 1:] != board.PAD].mean())


@torch.no_grad()
def evaluate(model: GPT2LMHeadModel, games: np.ndarray, *, batch: int = 256) -> Score:
    """Score a model in fp32 on games [n, 60]; its training mode is restored afterwards."""
    was_training = model.training
    model.train(False)
    device = next(model.parameters()).device
    sums = torch.zeros(4, dtype=torch.float64)  # loss, kl, legal argmax, illegal mass
    for start in range(0, len(games), batch):
        rows = games[start : start + batch]
        tokens = torch.from_numpy(rows.astype(np.int64)).to(device)
        legal = torch.from_numpy(tokens_of(replay(rows).legal[:, 1:])).to(device)
        real = tokens[:, 1:] != board.PAD
        log_p = log_softmax(model(input_ids=tokens[:, :-1]).logits.float(), -1)[real]
        target, legal = tokens[:, 1:][real], legal[real]
        n_legal = legal.sum(-1)
        kl = -(log_p * legal).sum(-1) / n_legal - n_legal.log()
        sums += torch.stack(
            [
                -log_p.gather(-1, target[:, None]).double().sum(),
                kl.double().sum(),
                legal.gather(-1, log_p.argmax(-1, keepdim=True)).double().sum(),
                (log_p.exp() * ~legal).double().sum(),
            ]
        ).cpu()
    model.train(was_training)
    n_moves = int((games[:, 1:] != board.PAD).sum())
    loss, kl_mean, legality, illegal = (sums / n_moves).tolist()
    floor = loss_floor(games)
    return Score(loss, floor, loss - floor, kl_mean, legality, illegal, len(games), n_moves)
