"""Learn the subspace that carries the intent: interchange interventions at one layer's residual.

With rows of U orthonormal [r, d], a target run's last-token residual h_tgt becomes

    h_tgt + U^T U (h_src - h_tgt)         for r = 1: h_tgt + u (u.h_src - u.h_tgt)

where the source has the same context and query and the other intent; the loss is the cross-entropy
of the first token of the source's answer. The model is frozen, and a QR makes U orthonormal at
every step. Projections cost O(r d): the d x d matrix U^T U is never computed. Adam, linear after
10 % warm-up, 8 rows a step, one epoch. The paper's rate is 1e-3; studies here take 1e-2, as they
learn on fewer rows.

Several layers are learned side by side, each independently: they share every batch's runs up to the
last token, and only that token runs again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..errors import UserError
from ..model.edits import Edit, patch
from ..model.site import Site
from ..progress import progress
from .items import Item
from .last_token_cache import CachedPrompts
from .prompts import Prompter, Row, rows_of
from .schedule import rate_at

if TYPE_CHECKING:
    from ..model.subject import Subject

ITEMS = 4
"""Items in a step of learning, each under both intents."""


def interchange(site: Site, basis: Float[Tensor, "r d"], source: Float[Tensor, "batch d"]) -> Edit:
    """The edit above, at the last token; `basis` has orthonormal rows and may need gradients."""

    def change(h: Tensor) -> Tensor:
        rows = basis.to(h)
        changed: Tensor = h + (source[:, None].to(h) - h) @ rows.T @ rows
        return changed

    return Edit(site, change, "last", f"interchange a subspace of {len(basis)} dimensions")


def orthonormal(rows: Float[Tensor, "r d"]) -> Float[Tensor, "r d"]:
    """An orthonormal basis of the rows' span; one row is divided by its length."""
    if len(rows) == 1:
        unit: Tensor = rows / torch.linalg.vector_norm(rows)
        return unit
    basis: Tensor = torch.linalg.qr(rows.T).Q.T
    return basis


class IntentPairs(NamedTuple):
    """Items under both intents, side by side: row i's source is row `other[i]`."""

    prompts: CachedPrompts
    other: Int[Tensor, " batch"]
    answers: Int[Tensor, " batch"]
    """First token of each row's own answer."""
    rows: list[Row]

    @classmethod
    def of(cls, subject: Subject, prompter: Prompter, items: Sequence[Item]) -> IntentPairs:
        """Raises UserError where an item's two answers begin with the same token."""
        rows = rows_of(items)
        answers = torch.tensor([prompter.first_token(row.answer) for row in rows])
        if not all(map(prompter.first_tokens_differ, items)):
            raise UserError("two answers of an item begin with the same token: leave it out")
        other = torch.arange(len(rows)).view(-1, 2).flip(1).flatten()
        prompts = CachedPrompts(subject, [prompter.ids(row) for row in rows])
        return cls(prompts, other.to(subject.device), answers.to(subject.device), rows)


def learn_subspaces(
    subject: Subject,
    prompter: Prompter,
    items: Sequence[Item],
    layers: Sequence[int],
    rank: int = 1,
    lr: float = 1e-3,
    seed: int = 0,
) -> tuple[dict[int, Float[Tensor, "r d"]], list[dict[str, float]]]:
    """An orthonormal basis for each layer, and the losses: layer, step, loss.

    Raises:
        UserError: too few items for one batch.
    """
    steps = len(items) // ITEMS
    if not steps:
        raise UserError(f"a batch of {2 * ITEMS} rows needs more than {len(items)} items")
    shuffled = random.Random(f"{seed}/learn").sample(list(items), len(items))
    generator = torch.Generator().manual_seed(seed)
    raw = {layer: torch.randn(rank, subject.spec.d_model, generator=generator) for layer in layers}
    raw = {
        layer: orthonormal(rows.to(subject.device)).requires_grad_() for layer, rows in raw.items()
    }
    optimiser = torch.optim.Adam(raw.values(), lr=lr)
    curve = []
    with progress(f"learn, rank {rank}", 2 * ITEMS * steps, "rows") as advance:
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = lr * rate_at(step, steps, max(steps // 10, 1))
            optimiser.zero_grad()
            batch = shuffled[step * ITEMS : (step + 1) * ITEMS]
            pairs = IntentPairs.of(subject, prompter, batch)
            for layer, loss in _losses(pairs, raw):
                loss.backward()  # type: ignore[no-untyped-call]
                curve.append({"layer": layer, "step": step + 1, "loss": float(loss.detach())})
            optimiser.step()
            advance(2 * ITEMS, f"loss {min(c['loss'] for c in curve[-len(layers) :]):.3f}")
    return {layer: orthonormal(rows).detach() for layer, rows in raw.items()}, curve


def _losses(pairs: IntentPairs, raw: dict[int, Tensor]) -> Iterator[tuple[int, Tensor]]:
    sites = {layer: Site("resid_post", layer) for layer in raw}
    with torch.no_grad():
        states = pairs.prompts.run(sites=sites.values()).sites
    for layer, rows in raw.items():
        source = states[sites[layer]][pairs.other]
        edit = interchange(sites[layer], orthonormal(rows), source)
        logits = pairs.prompts.run([edit]).logits
        yield layer, cross_entropy(logits.float(), pairs.answers[pairs.other])


@torch.no_grad()
def swap_loss_and_share(
    pairs: Sequence[IntentPairs], site: Site, basis: Float[Tensor, "r d"] | None
) -> tuple[float, float]:
    """Loss of the source's answer, and the share of rows in which it beats the target's, after the
    interchange; without a basis the source's whole residual, the maximum an edit here can do."""
    losses, wins = [], []
    for batch in pairs:
        source = batch.prompts.run(sites=[site]).sites[site][batch.other]
        whole = patch(site, source[:, None], "last")
        edit = whole if basis is None else interchange(site, basis, source)
        logits = batch.prompts.run([edit]).logits.float()
        wanted = batch.answers[batch.other]
        losses += cross_entropy(logits, wanted, reduction="none").tolist()
        rows = torch.arange(len(logits), device=logits.device)
        wins += (logits[rows, wanted] > logits[rows, batch.answers]).tolist()
    return sum(losses) / len(losses), sum(wins) / len(wins)
