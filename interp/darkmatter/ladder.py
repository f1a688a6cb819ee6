"""A ladder of SAEs on one site of a language model: several widths and sparsities, one stream.

All of them see the same tokens in the same order, so that they differ in width and sparsity alone.
The first position of every row is left out: it is an attention sink whose activation is two
hundred times longer than the others' (SmolLM2, 14.resid_post: 24,564 against 156 on average).

Written to the run: `saes/<name>/`, each a folder that `SAE.load_from_disk` opens, and
`ladder.parquet`: name string, d_sae int64, sparsity double (k), tokens int64, l0 double, fvu
    double, alive int64 (latents that fire): on MEASURED held-out rows, from the stored weights
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from interp.data import FOLDER

from ..errors import UserError
from ..sae_training import SaePlan, Schedule, train_saes
from ..site import Site
from ..store import RunWriter

if TYPE_CHECKING:
    from torch import Tensor

    from ..subject import Subject

LADDER = FOLDER / "darkmatter" / "smollm2-135m-14"
"""The ladder that ships: a run of this study."""
HELD_OUT = 512
"""Rows at the corpus's beginning that are not trained on."""
MEASURED = 64
"""How many of them the table measures."""
POOL = 2**15
"""Tokens that are shuffled together."""


@dataclass(frozen=True)
class LadderConfig:
    """Train SAEs of several widths and sparsities on one site of a model."""

    STUDY: ClassVar[str] = "darkmatter.ladder"
    VERSION: ClassVar[int] = 1

    model: str = "smollm2-135m"
    """A catalog name, hub id, folder or .gguf file."""
    site: str = "14.resid_post"
    """Where: by default the residual stream in the middle of the default model."""
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
    device: str = field(default="cpu", metadata={"key": False})
    """Where to compute."""

    def fingerprints(self) -> dict[str, str]:
        from ..corpus import fingerprint
        from ..weights import open_weights

        return {
            "model": open_weights(self.model).fingerprint(),
            "corpus": fingerprint(self.corpus or None),
        }

    def check(self) -> None:
        if self.precision not in ("bfloat16", "float32"):
            raise UserError(f"--precision must be bfloat16 or float32, not {self.precision}")
        if not self.widths or not self.k or not 1 <= min(self.k) <= max(self.k) < min(self.widths):
            raise UserError("give at least one width and one k, every k from 1 to below the widths")
        if min(self.tokens // self.batch, self.length - 1, self.batch) < 1:
            raise UserError("give at least one step, and rows of two tokens or more")

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd
        import torch

        from ..subject import open_subject

        dtype = getattr(torch, self.precision)
        subject = open_subject(self.model, device=self.device, dtype=dtype)
        plans = self._plans()
        if not all(out.has(f"saes/{plan.name}/cfg.json") for plan in plans):
            schedule = Schedule(
                self.tokens // self.batch,
                self.batch,
                self.lr,
                Path(self.model).name,
                self.device,
                autocast=self.precision == "bfloat16",
                checkpoint=100,
            )
            label = f"SAEs at {self.site}"
            train_saes(plans, lambda n: _batches(self, subject, n), schedule, out, label)
        table = pd.DataFrame(_measured(self, subject, plans, out.path))
        with out.part("ladder.parquet") as path:
            table.to_parquet(path)
        out.facts = {"parity": subject.parity, "device": self.device}
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


def _batches(config: LadderConfig, subject: Subject, first: int) -> Iterator[dict[Site, Tensor]]:
    """Activations [batch, d] in float32 from batch `first` on, shuffled within pools of rows."""
    import torch

    from .contexts import corpus_rows

    site, kept = Site.parse(config.site), config.length - 1
    needed = -(-(config.tokens + config.batch) // kept)
    pool_rows = min(-(-max(POOL, config.batch) // kept), needed)
    whole = pool_rows * kept // config.batch * config.batch
    pools = -(-(config.tokens + config.batch) // whole)
    rows = corpus_rows(subject, config.corpus, config.length, HELD_OUT + pools * pool_rows)
    skipped = first * config.batch // whole
    rows = itertools.islice(rows, HELD_OUT + skipped * pool_rows, None)
    for pool in itertools.count(skipped):
        chosen = list(itertools.islice(rows, pool_rows))
        if len(chosen) < pool_rows:
            return
        x = _activations(subject, chosen, site)
        generator = torch.Generator().manual_seed(1000 * config.seed + pool)
        order = torch.randperm(len(x), generator=generator)[:whole]
        parts = torch.split(order, config.batch)
        start = first - skipped * len(parts) if pool == skipped else 0
        for part in parts[start:]:
            yield {site: x[part]}


def _activations(subject: Subject, rows: list[list[int]], site: Site) -> Tensor:
    """[tokens, d] in float32, the first position of every row left out."""
    import torch

    parts = []
    for start in range(0, len(rows), 8):
        found = subject.capture(subject.pad(rows[start : start + 8]), [site])[site]
        parts.append(found[:, 1:].flatten(0, 1).float())
    return torch.cat(parts)


def _measured(
    config: LadderConfig, subject: Subject, plans: list[SaePlan], folder: Path
) -> Iterator[dict[str, Any]]:
    """L0, FVU and living latents of each stored SAE on held-out rows."""
    import torch

    from interp.probes.metrics import fvu
    from interp.probes.sae import load_sae

    from .contexts import corpus_rows

    rows = list(corpus_rows(subject, config.corpus, config.length, MEASURED))
    x = _activations(subject, rows, Site.parse(config.site))
    for plan in plans:
        sae = load_sae(folder / "saes" / plan.name)
        z = sae.encode(x)
        yield {
            "name": plan.name,
            "d_sae": plan.d_sae,
            "sparsity": plan.sparsity,
            "tokens": config.tokens // config.batch * config.batch,
            "l0": float((z > 0).sum(1, dtype=torch.float64).mean()),
            "fvu": fvu(x, sae.decode(z)),
            "alive": int((z > 0).any(0).sum()),
        }
