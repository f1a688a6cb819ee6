"""A ladder of SAEs on one site of a language model: several widths and sparsities, one stream.

All of them see the same tokens in the same order, so that they differ in width and sparsity (and
kind) alone. What `darkmatter run` leaves out is left out here (`interp.saes.feed`).

Written to the run: `saes/<name>/`, each a folder that `SAE.load_from_disk` opens, and
`ladder.parquet`: name, kind string, d_sae int64, sparsity double (k), tokens int64, l0 double, fvu
    double, alive int64 (latents that fire): on MEASURED held-out rows, from the stored weights
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..model.aliases import public_name
from ..model.site import Site
from ..runs.study import TextStudy
from ..runs.writer import RunWriter
from ..saes.hooks import hook_of_site
from ..saes.kinds import Kind, check_kinds
from ..saes.plan import SaePlan, Schedule
from ..saes.train import train_saes, trained
from ..saes.training import check_schedule, check_sizes, measured, metrics_of, plans_of

if TYPE_CHECKING:
    from ..saes.train import Batches


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
    """Active latents a token; one SAE for each kind, width and k."""
    kinds: tuple[Kind, ...] = ("topk",)
    """Of these kinds (topk, batchtopk, matryoshka, jumprelu, l1, gated)."""
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
        check_kinds(self.kinds)
        check_sizes(self.widths, self.k, "--k")
        check_schedule(self.tokens, self.batch, self.length, self.lr, self.precision)

    def run(self, out: RunWriter) -> dict[str, Any]:
        import torch

        from ..saes.feed import TextFeed

        subject = self.open(out, dtype=getattr(torch, self.precision))
        plans, steps = self._plans(), self.tokens // self.batch
        feed = TextFeed(subject, [Site.parse(self.site)], self.corpus, self.length)
        if not all(trained(out, plan.name) for plan in plans):
            half, name = self.precision == "bfloat16", public_name(self.model)
            started = bool(subject.prompting.start)
            about = (steps, self.batch, self.lr, name, started, self.own_device)
            schedule = Schedule(*about, autocast=half, context=self.length)

            def batches(first: int) -> Batches:
                return feed.batches(self.batch, self.tokens, self.seed, first)

            train_saes(plans, batches, schedule, out, f"SAEs at {self.site}")
        rows = [measured(plan, steps * self.batch, feed, out.path) for plan in plans]
        out.table("ladder", rows)
        return metrics_of(rows)

    def _plans(self) -> list[SaePlan]:
        plans = plans_of(self.kinds, self.widths, self.k, Site.parse(self.site), self.seed)
        # the first ladders were of TopK SAEs alone, whose names do not say it
        return [replace(p, name=p.name.removeprefix("topk-")) for p in plans]
