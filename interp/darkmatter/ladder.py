"""A ladder of SAEs on one site of a language model: several widths and sparsities, one stream.

All of them see the same tokens in the same order, so that they differ in width and sparsity alone.
What `darkmatter run` leaves out is left out here: special tokens, massive activations, and the
first position of every row, an attention sink whose activation is about 160 times longer than the
others' (SmolLM2, 14.resid_post: 24,564 against 156 on average).

Written to the run: `saes/<name>/`, each a folder that `SAE.load_from_disk` opens, and
`ladder.parquet`: name string, d_sae int64, sparsity double (k), tokens int64, l0 double, fvu
    double, alive int64 (latents that fire): on MEASURED held-out rows, from the stored weights
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..model.aliases import public_name
from ..model.site import Site
from ..runs.study import TextStudy
from ..runs.writer import RunWriter
from ..saes.hooks import hook_of_site
from ..saes.study import SHIPPED
from ..saes.train import SaePlan, Schedule, train_saes, trained

if TYPE_CHECKING:
    from torch import Tensor

    from ..saes.train import Batches
    from ..text.contexts import ContextStream

LADDER = SHIPPED
"""The ladder that ships: a run of this study."""
HELD_OUT = 512
"""Rows at the corpus's beginning that are not trained on."""
MEASURED = 64
"""How many of them the table measures."""
POOL = 2**15
"""Tokens that are shuffled together, at least."""


@dataclass(frozen=True)
class LadderConfig(TextStudy):
    """Train SAEs of several widths and sparsities on one site of a model."""

    STUDY: ClassVar[str] = "darkmatter.ladder"
    VERSION: ClassVar[int] = 3

    site: str = "14.resid_post"
    """Which site; by default the residual stream in the middle of the default model."""
    widths: tuple[int, ...] = (768, 1536, 3072)
    """Latents."""
    k: tuple[int, ...] = (32, 64)
    """Active latents a token; one SAE for each width and k."""
    tokens: int = 800_000
    """Tokens each sees, every one once."""
    corpus: str = ""
    """A text, .jsonl or .parquet file, or a folder; by default the installed Python's own text."""
    length: int = 256
    """Tokens in a row of text."""
    batch: int = 1024
    """Tokens a step."""
    lr: float = 2e-3
    """Adam's learning rate; it falls to a tenth over the last third."""
    seed: int = 0
    """Initial weights and the shuffle."""
    precision: str = "bfloat16"
    """Arithmetic of the model and of the training's products (bfloat16 or float32)."""

    def check(self) -> None:
        super().check()
        hook_of_site(self.site)
        if self.precision not in ("bfloat16", "float32"):
            raise UserError(f"--precision must be bfloat16 or float32, not {self.precision}")
        if not self.widths or not self.k or not 1 <= min(self.k) <= max(self.k) < min(self.widths):
            raise UserError("give at least one width and one k, every k from 1 to below the widths")
        for option, numbers in (("--widths", self.widths), ("--k", self.k)):
            if len(set(numbers)) < len(numbers):
                raise UserError(f"{option} has a number twice: give each once")
        if min(self.batch, self.length - 1) < 1 or self.tokens < self.batch:
            raise UserError("give at least one step, and rows and batches of two tokens or more")
        if not 0 < self.lr < math.inf:
            raise UserError(f"--lr must be above 0, not {self.lr:g}")

    def run(self, out: RunWriter) -> dict[str, Any]:
        import torch

        from ..text.contexts import ContextStream

        subject = self.open(out, dtype=getattr(torch, self.precision))
        plans = self._plans()
        stream = ContextStream(subject, [Site.parse(self.site)], self.corpus, self.length)
        measured = list(stream.rows(MEASURED))
        held_out = stream.activations(iter(measured), len(measured))
        if not all(trained(out, plan.name) for plan in plans):
            half = self.precision == "bfloat16"
            steps, name = self.tokens // self.batch, public_name(self.model)
            started = bool(subject.prompting.start)
            about = (steps, self.batch, self.lr, name, started, self.device)
            schedule = Schedule(*about, autocast=half)
            label = f"SAEs at {self.site}"
            train_saes(plans, lambda n: _batches(self, stream, n), schedule, out, label)
        table = out.table("ladder", _measured(self, held_out, plans, out.path))
        columns = ("l0", "fvu", "alive")
        return {
            f"{column}_{row['name']}": round(float(row[column]), 4)
            for row in table.to_dict("records")
            for column in columns
        }

    def _plans(self) -> list[SaePlan]:
        site = Site.parse(self.site)
        return [
            SaePlan(f"w{width}-k{k}", site, "topk", width, k, self.seed)
            for width in self.widths
            for k in self.k
        ]


def _batches(config: LadderConfig, stream: ContextStream, first: int) -> Batches:
    """Activations [batch, d] in float32 from batch `first` on, of what is not held out."""
    from ..text.shuffled import shuffled

    site, rows = stream.sites[0], itertools.islice(stream.rows(), HELD_OUT, None)
    pool, read = min(POOL, config.tokens), False
    for x in shuffled(stream, rows, config.batch, pool, first, config.seed):
        read = True
        yield {site: x}
    if not (read or first):
        raise UserError(
            f"the text does not fill one batch of {config.batch} tokens past the first {HELD_OUT} "
            f"rows of {config.length} tokens, which are held out: give more text or shorter rows"
        )


def _measured(
    config: LadderConfig, x: Tensor, plans: list[SaePlan], folder: Path
) -> Iterator[dict[str, Any]]:
    """L0, FVU and living latents of each stored SAE on held-out activations [tokens, d]."""
    from ..saes.open import open_sae

    for plan in plans:
        yield {
            "name": plan.name,
            "d_sae": plan.d_sae,
            "sparsity": plan.sparsity,
            "tokens": config.tokens // config.batch * config.batch,
            **open_sae(folder / "saes" / plan.name).quality(x),
        }
