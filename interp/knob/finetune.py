"""Fine-tune a model to answer by the intent: LoRA on its attention, loss on the answer alone.

As in the paper: AdamW (weight decay .01), linear schedule after 5 warm-up steps, one epoch over
`rows` rows, 16 a step, loss on the completion (the answer and the end token). Unlike the paper:
rank 32 instead of 64, so that the adapter stays below 10 MB, and a higher rate, as the model is
small. Naive equivalent of a step:

    loss = cross_entropy(model(prompt + answer + end).logits[:-1], ids[1:]) over answer and end
    loss.backward(); optimiser.step()

Written to the run: the table `data/items` (see data.py), the table `train/curve` (step int64, rows
int64, loss double: mean of the step), `adapter/` (peft's folder, float16), and the tables
`answers/…` and `scores/scores` (see scoring.py).
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..model.devices import Split
from ..progress import progress
from ..runs.checkpoint import Checkpoint, restore_training, training_state
from ..runs.writer import RunWriter
from .adapter import save_adapter, with_lora
from .prompts import Prompter, Row, demonstrations, rows_of
from .schedule import rate_at
from .scoring import score_adapter
from .settings import ScoreSettings

if TYPE_CHECKING:
    from torch import Tensor

WARM_UP = 5


@dataclass(frozen=True)
class FinetuneConfig(ScoreSettings):
    """Train a small adapter with which the model answers by the intent."""

    STUDY: ClassVar[str] = "knob.finetune"

    rows: int = 2048
    """Rows to train on, each once."""
    rank: int = 32
    """Rank of the adapters."""
    alpha: int = 16
    """Scale of the adapters, times the rank."""
    lr: float = 8e-4
    """Adam's highest rate."""
    batch: int = 16
    """Rows a step."""
    bfloat16: bool = True
    """Compute in bfloat16 (weights stay in float32)."""
    checkpoint: int = field(default=8, metadata={"key": False})
    """Steps between two checkpoints."""

    def check(self) -> None:
        super().check()
        if Split.of(self.device):
            raise UserError("a model that is trained is not split: give cpu or cuda")
        if self.rows < self.batch or self.batch < 1 or self.rank < 1:
            raise UserError("--rows must be at least --batch; --batch and --rank at least 1")

    def run(self, out: RunWriter) -> dict[str, Any]:
        self.check_facts(out)
        self.train(out)
        return score_adapter(self, str(out.path / "adapter"), out)

    def check_facts(self, out: RunWriter) -> None:
        """Refuse too few facts for the prompts that are scored: after training it is late."""
        for setting in self.scored_settings():
            demonstrations(self.splits(out).train, setting.shots, self.seed)

    def train(self, out: RunWriter) -> None:
        """Train, or continue, until `adapter/` is there."""
        if out.has("adapter/adapter_config.json"):
            return
        import torch

        from ..model.catalog import resolve
        from ..model.checkpoint import load_model
        from ..model.prompting import Prompting
        from ..model.tokenizer_files import load_tokenizer

        rows = rows_of(self.splits(out).train)
        if len(rows) < self.rows:
            raise UserError(
                f"there are {len(rows)} rows to train on, fewer than {self.rows}: lower --rows or "
                "raise --draws"
            )
        chosen = random.Random(f"{self.seed}/train").sample(rows, self.rows)
        folder = resolve(self.model)
        prompter = Prompter(Prompting(load_tokenizer(folder), self.bos), template=self.template)
        plain = load_model(folder, dtype=torch.float32)
        model = with_lora(plain.to(self.device), self.rank, self.alpha, self.seed).train()
        training = Training(self, model, prompter, chosen, out)
        training.finish()
        save_adapter(model, self.model, out)
        training.checkpoint.remove()


class Training:
    """One epoch over rows, step by step, resumed from a checkpoint if the run has one."""

    def __init__(
        self,
        config: FinetuneConfig,
        model: Any,
        prompter: Prompter,
        rows: Sequence[Row],
        out: RunWriter,
    ) -> None:
        import torch

        self.config, self.model, self.prompter, self.rows = config, model, prompter, rows
        self.out, self.steps = out, len(rows) // config.batch
        self.checkpoint = Checkpoint(out, "train/curve")
        self.weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.optimiser = torch.optim.AdamW(self.weights.values(), config.lr, weight_decay=0.01)
        self.losses: list[float] = []

    def finish(self) -> None:
        """Train to the end of the epoch and write `train/curve`."""
        config = self.config
        self._resume()
        done = len(self.losses)
        with progress("fine-tune", self.steps * config.batch, "rows", done * config.batch) as go:
            for step in range(done, self.steps):
                loss = self.step(step)
                self.losses.append(loss)
                go(config.batch, f"loss {loss:.3f}")
                if (step + 1) % config.checkpoint == 0 and step + 1 < self.steps:
                    self._write()
        steps = enumerate(self.losses, 1)
        curve = ({"step": n, "rows": n * config.batch, "loss": loss} for n, loss in steps)
        self.out.table("train/curve", curve)

    def step(self, step: int) -> float:
        """One optimiser step on batch number `step`; its mean loss in nats a token."""
        import torch

        rows = self.rows[step * self.config.batch : (step + 1) * self.config.batch]
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.lr * rate_at(step, self.steps, WARM_UP)
        with torch.autocast(self.config.device, torch.bfloat16, enabled=self.config.bfloat16):
            loss = completion_loss(self.model, self.prompter, rows)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return float(loss.detach())

    def _write(self) -> None:
        tensors = training_state(self.weights.items(), self.optimiser)
        self.checkpoint.write(tensors, {"losses": self.losses})

    def _resume(self) -> None:
        if state := self.checkpoint.read():
            self.losses = state.note["losses"]
            restore_training(state.tensors, self.weights.items(), self.optimiser)


def completion_loss(model: Any, prompter: Prompter, rows: Sequence[Row]) -> Tensor:
    """Mean cross-entropy of every row's answer and end token, given its prompt."""
    import torch
    from torch.nn.functional import cross_entropy

    end = prompter.prompting.tokenizer.eos_token_id
    ends = [] if end is None else [int(end)]
    answers = [prompter.answer_ids(row.answer) + ends for row in rows]
    whole = [prompter.ids(row) + ids for row, ids in zip(rows, answers, strict=True)]
    width, longest = max(map(len, whole)), max(map(len, answers))
    device = next(model.parameters()).device

    def padded(rows: list[list[int]], filler: int, width: int) -> Tensor:
        return torch.tensor([[filler] * (width - len(row)) + row for row in rows], device=device)

    ids, labels = padded(whole, 0, width), padded(answers, -100, longest)
    mask = padded([[1] * len(text) for text in whole], 0, width)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers', about its own names
        logits = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            logits_to_keep=longest + 1,
            use_cache=False,
        ).logits
    return cross_entropy(logits[:, :-1].float().flatten(0, 1), labels.flatten(), ignore_index=-100)
