"""`interp saes train`: SAEs and transcoders of several kinds, widths and sparsities on one stream.

All of them see the same tokens in the same order, so that they differ in kind, width and sparsity
alone. What they are and what becomes of dead latents: `kinds.py`; what they are fed: `feed.py`.

Written to the run: `saes/<kind>-w<width>-k<l0>/`, each a folder that `SAE.load_from_disk` opens in
float32, with `training.parquet` (`train.py`), and
`saes.parquet`: name, kind string, d_sae int64, sparsity double (the L0 asked for), tokens int64, l0
    double, fvu double, alive int64 (latents that fire): on MEASURED held-out rows, from the stored
    weights; of a transcoder, fvu is of what it gives
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from ..errors import UserError
from ..model.aliases import public_name
from ..model.site import Site
from ..runs.store import Run
from ..runs.study import TextStudy
from ..runs.writer import RunWriter
from .activations import StoredFeed, open_activations, stored_bos
from .hooks import hook_of_site
from .kinds import TABLE, Kind, check_kinds
from .plan import SaePlan, Schedule
from .train import train_saes, trained

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from .sae import Sae
    from .train import Batches


class Feed(Protocol):
    """Where activations come from: `feed.TextFeed` or `StoredFeed`."""

    @property
    def held_out(self) -> dict[Site, Tensor]: ...

    def batches(self, size: int, tokens: int, seed: int, first: int = 0) -> Batches: ...


def plans_of(
    kinds: Sequence[Kind],
    widths: Sequence[int],
    l0s: Sequence[int],
    site: Site,
    seed: int,
    gives: Site | None = None,
) -> list[SaePlan]:
    """One plan for each kind, width and L0; penalties are steered to theirs."""
    return [
        SaePlan(
            f"{kind}-w{width}-k{l0}",
            *(site, kind, width, l0, seed),
            steered=TABLE[kind].penalised,
            gives=gives,
        )
        for kind in kinds
        for width in widths
        for l0 in l0s
    ]


def measured(plan: SaePlan, tokens: int, feed: Feed, folder: Path) -> dict[str, Any]:
    """A row of a table of SAEs: of the stored weights on held-out activations."""
    from .open import open_sae

    x, sae = feed.held_out[plan.site], open_sae(folder / "saes" / plan.name)
    return {
        "name": plan.name,
        "kind": plan.kind,
        "d_sae": plan.d_sae,
        "sparsity": float(plan.sparsity),
        "tokens": tokens,
        **(transcoded(sae, x, feed.held_out[plan.gives]) if plan.gives else sae.quality(x)),
    }


def transcoded(
    sae: Sae, x: Float[Tensor, "n d_in"], y: Float[Tensor, "n d_out"]
) -> dict[str, float]:
    """As `Sae.quality`, of a transcoder: `fvu` is of `y`, what it should give for `x`."""
    from interp.probes.metrics import fvu

    fires = sae.encode(x) != 0
    return {
        "l0": float(fires.sum(1).double().mean()),
        "fvu": fvu(y, sae.outputs(x)),
        "alive": int(fires.any(0).sum()),
    }


def metrics_of(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    columns = ("l0", "fvu", "alive")
    return {f"{c}_{row['name']}": round(float(row[c]), 4) for row in rows for c in columns}


def check_sizes(widths: Sequence[int], l0s: Sequence[int], option: str) -> None:
    """Raise UserError unless each L0 fits each width, and each number is given once."""
    if not widths or not l0s or not 1 <= min(l0s) <= max(l0s) < min(widths):
        name = option.removeprefix("--")
        raise UserError(
            f"give at least one width and one {name}, every {name} from 1 to below the widths"
        )
    for each, numbers in (("--widths", widths), (option, l0s)):
        if len(set(numbers)) < len(numbers):
            raise UserError(f"{each} has a number twice: give each once")


def check_schedule(tokens: int, batch: int, length: int, lr: float, precision: str) -> None:
    """Raise UserError unless there is a step to take."""
    if precision not in ("bfloat16", "float32"):
        raise UserError(f"--precision must be bfloat16 or float32, not {precision}")
    if min(batch, length - 1) < 1 or tokens < batch:
        raise UserError("give at least one step, and rows and batches of two tokens or more")
    if not 0 < lr < math.inf:
        raise UserError(f"--lr must be above 0, not {lr:g}")


@dataclass(frozen=True)
class SaeTrainConfig(TextStudy):
    """Train SAEs or transcoders of several kinds on one site of a model."""

    STUDY: ClassVar[str] = "saes.train"
    VERSION: ClassVar[int] = 1

    site: str = "14.resid_post"
    """What they read; by default the residual stream in the middle of the default model."""
    gives: str = ""
    """For transcoders the site that they give, such as 14.mlp_out; by default that they read."""
    kinds: tuple[Kind, ...] = ("batchtopk",)
    """Of these kinds; one SAE for each kind, width and L0."""
    widths: tuple[int, ...] = (2048,)
    """Latents."""
    l0: tuple[int, ...] = (32,)
    """Active latents a token: exactly (topk), on average, or what a penalty is steered to."""
    tokens: int = 800_000
    """Tokens each sees, every one once."""
    activations: str = field(default="", metadata={"key": False})
    """A run folder of `interp saes activations`, read instead of running the model."""
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
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Arithmetic of the model and of the training's products."""

    @cached_property
    def stored(self) -> Run | None:
        """The stored activations, if they are to be read."""
        return open_activations(self.activations) if self.activations else None

    def fingerprints(self) -> dict[str, str]:
        if self.stored:
            return {"activations": str(self.stored.manifest["key"])}
        return super().fingerprints()

    def check(self) -> None:
        super().check()
        check_kinds(self.kinds)
        check_sizes(self.widths, self.l0, "--l0")
        check_schedule(self.tokens, self.batch, self.length, self.lr, self.precision)
        for site in filter(None, (self.site, self.gives)):
            hook_of_site(site)
        if self.gives == self.site:
            raise UserError("--gives is --site: leave it out for an SAE, or give another site")
        for kind in self.kinds if self.gives else ():
            if not TABLE[kind].transcoder:
                raise UserError(f"sae-lens reads no transcoder of the kind {kind}: give others")
        if self.stored:
            self._check_stored(self.stored)

    def _check_stored(self, stored: Run) -> None:
        """Raise UserError for options that stored activations have settled otherwise."""
        if self.model != stored.config["model"]:
            raise UserError(
                f"{self.activations} holds activations of {stored.config['model']}, not of "
                f"{self.model}: give --model {stored.config['model']}"
            )
        if (self.corpus, self.length, self.bos) != ("", SaeTrainConfig.length, "auto"):
            raise UserError(
                "--activations has its own --corpus, --length and --bos: leave them out"
            )
        held = stored.metrics["tokens"]
        if self.tokens > held:
            raise UserError(f"{self.activations} holds {held} tokens: give --tokens {held} or less")

    def run(self, out: RunWriter) -> dict[str, Any]:
        gives = Site.parse(self.gives) if self.gives else None
        site, steps = Site.parse(self.site), self.tokens // self.batch
        plans = plans_of(self.kinds, self.widths, self.l0, site, self.seed, gives)
        feed, started, length = self._feed(out, [*plans[0].sites])
        if not all(trained(out, plan.name) for plan in plans):
            schedule = Schedule(
                *(steps, self.batch, self.lr, public_name(self.model), started, self.own_device),
                autocast=self.precision == "bfloat16",
                context=length,
                half=False,
            )

            def batches(first: int) -> Batches:
                return feed.batches(self.batch, self.tokens, self.seed, first)

            train_saes(plans, batches, schedule, out, f"train on {self.site}")
        rows = [measured(plan, steps * self.batch, feed, out.path) for plan in plans]
        out.table("saes", rows)
        return metrics_of(rows)

    def _feed(self, out: RunWriter, sites: list[Site]) -> tuple[Feed, bool, int]:
        """Activations, whether a BOS token stood before each text, and the tokens in a row."""
        import torch

        from .feed import TextFeed

        if self.stored:
            out.facts |= {"device": self.device, "text": self.stored.manifest["text"]}
            feed = StoredFeed(self.stored, sites)
            return feed, stored_bos(self.stored), int(self.stored.config["length"])
        subject = self.open(out, dtype=getattr(torch, self.precision))
        streamed = TextFeed(subject, sites, self.corpus, self.length)
        return streamed, bool(subject.prompting.start), self.length
