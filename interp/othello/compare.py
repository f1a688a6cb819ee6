"""Linear probes against sparse autoencoders, layer by layer: the table that the paper lacks.

Source: 'How GPT learns layer by layer'. For every layer's residual stream after the block, on
boards of held-out games: linear probes, SAEs of two architectures and several seeds, and what they
have to beat: the layer's own neurons, random directions as sparse as the TopK latents, the same
read-outs of a random-weight model, and the majority state of each tile and ply. Features, rules
and thresholds are chosen, and probes fitted, on other games (`match.py`, `readers.py`).

Written to the run, one part a layer:
`scores/L<layer>.parquet`: layer int64, reader string, seed int64, measure string, value double,
    low, high double (95 % by game, or NaN); measures as in readers.py
`latents/L<layer>.parquet`: layer, reader, seed, kind, tile int64, name, latent_auroc int64, auroc,
    latent_f1 int64, threshold, f1: the best feature for each fact
`rules/L<layer>.parquet`: layer, reader, seed, latent int64, kind (own, enemy), tile, threshold:
    activations from which a latent speaks for a tile's state
`maps/L<layer>.safetensors`: `auroc.<arch>-S<seed>`, `f1.<arch>-S<seed>` [d_sae, 320] float16: every
    latent against every fact, columns as `facts.labels` orders them
`directions/probe-L<layer>`, `means-L<layer>`, `<arch>-L<layer>-S<seed>`: `Directions` at
    `<layer>.resid_post`: class vectors of the probe (with their intercepts), class means, and the
    decoder rows of the best latents
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..progress import progress
from ..runs.store import Run, RunWriter, open_run
from .sae import ARCHITECTURES, SAES, directions_name, open_othello, sae_name

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 5
"""Games in which most facts of the board are true somewhere and false elsewhere."""
CHOOSE_SEED, SCORE_SEED = 8_000_000, 8_000_001
"""Streams of the games: of the training split to fit and choose, held out to score."""


@dataclass(frozen=True)
class CompareConfig:
    """Compare linear probes with sparse autoencoders on every layer."""

    STUDY: ClassVar[str] = "othello.compare"
    VERSION: ClassVar[int] = 2

    model: str = "othello-gpt"
    """An OthelloGPT: the shipped one, or a folder."""
    saes: str = field(default="", metadata={"key": False})
    """Run folder of `interp othello sae`; by default the shipped autoencoders."""
    choose_games: int = 1800
    """Games to fit the probes and choose latents on (59 boards each)."""
    score_games: int = 1800
    """Held-out games everything is scored on."""
    ridge: float = 1e-4
    """Ridge of the probes (see interp/probes/linear.py)."""
    passes: int = 30
    """Most passes of a probe's optimiser."""
    seed: int = 0
    """Seed of the random-weight model and the random directions."""

    def fingerprints(self) -> dict[str, str]:
        files = json.dumps(self.sae_run().manifest["files"], sort_keys=True)
        print_ = hashlib.sha256(files.encode()).hexdigest()
        return {"model": open_othello(self.model).fingerprint(), "saes": print_}

    def sae_run(self) -> Run:
        """The autoencoders compared."""
        return open_run(Path(self.saes) if self.saes else SAES, "othello.sae")

    def check(self) -> None:
        made = self.sae_run().manifest["fingerprints"]["model"]
        if made != open_othello(self.model).fingerprint():
            raise UserError("these SAEs are of another model: give --saes a run on this one")
        if min(self.choose_games, self.score_games) < FEWEST or self.passes < 1:
            raise UserError(f"give at least {FEWEST} games of each kind and one pass")
        if not self.ridge > 0 or self.seed < 0:
            raise UserError("--ridge must be above 0, --seed a number from 0 up")

    def run(self, out: RunWriter) -> dict[str, Any]:
        from ..model.subject import open_subject
        from .facts import facts
        from .games import random_games
        from .layer import LayerJob
        from .match import asked
        from .readers import Boards

        subject, twin = open_subject(self.model), open_subject(random_twin(self.model, self.seed))
        games = (
            random_games(self.choose_games, CHOOSE_SEED, split="train"),
            random_games(self.score_games, SCORE_SEED, split="held_out"),
        )
        choose, score = facts(games[0]), facts(games[1])
        boards = Boards(choose, score, asked(choose, score))
        made, layers = self.sae_run(), range(subject.spec.n_layers)
        sets = [(arch, seed) for arch in ARCHITECTURES for seed in made.config["seeds"]]
        with progress("compare", len(layers) * (len(sets) + 7), "readers") as advance:
            for layer in layers:
                saes = [(a, s, made.path / "saes" / sae_name(a, layer, s)) for a, s in sets]
                settings = (self.ridge, self.passes, self.seed, made.config["k"], self.model)
                if not all(map(out.has, layer_parts(layer, sets))):
                    job = LayerJob(layer, boards, *settings, out, advance)
                    job.run(subject, twin, games, saes)
        out.facts = {
            "parity": subject.parity,
            "boards": {"choose": len(choose.game), "score": len(score.game)},
            "seeds": made.config["seeds"],
        }
        return stable_shares(games[1]) | headline(scores(out.path))


def layer_parts(layer: int, saes: list[tuple[str, int]]) -> list[str]:
    """Everything that is written of a layer."""
    names = [directions_name("probe", 0, layer), directions_name("means", 0, layer)]
    names += [directions_name(arch, seed, layer) for arch, seed in saes]
    files = ("vectors.safetensors", "index.parquet", "directions.json")
    tables = [f"{table}/L{layer}.parquet" for table in ("scores", "latents", "rules")]
    directions = [f"directions/{name}/{file}" for name in names for file in files]
    return [*tables, f"maps/L{layer}.safetensors", *directions]


def own_model(run: Run) -> str:
    """The model of a comparison.

    Raises:
        UserError: it has changed since.
    """
    model = str(run.config["model"])
    if open_othello(model).fingerprint() != run.manifest["fingerprints"]["model"]:
        raise UserError(f"{model} has changed since the comparison in {run.path}: make it anew")
    return model


def random_twin(model: str, seed: int) -> Any:
    """The same architecture with fresh random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from ..model.catalog import resolve

    torch.manual_seed(seed)
    config = AutoConfig.from_pretrained(resolve(model))
    return AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]


def scores(folder: Path) -> pd.DataFrame:
    """The scores of all layers."""
    import pandas as pd

    parts = sorted((folder / "scores").glob("L*.parquet"))
    return pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)


def stable_shares(games: Any) -> dict[str, float]:
    """How often labels of stable discs, on all boards of games [n, 60] with a move to come, are
    refuted later on."""
    import numpy as np

    from .board import NOBODY
    from .games import replay
    from .stability import stable_discs, turned_later

    played = replay(games)
    going_on = played.mover[:, 1:] != NOBODY
    later = turned_later(played)[:, :-1][going_on]
    found = {}
    boards = played.black[:, :-1][going_on], played.white[:, :-1][going_on]
    for name, stable in zip(("paper", "sound"), stable_discs(*boards), strict=True):
        turned = int(np.bitwise_count(stable & later).sum())
        found[f"{name}_stable_turned"] = round(turned / int(np.bitwise_count(stable).sum()), 6)
    return found


def headline(table: pd.DataFrame) -> dict[str, float]:
    """The best layer's accuracy, coverage and reconstruction of the main readers (seeds' mean)."""
    means = table.groupby(["reader", "measure", "layer"])["value"].mean()
    wanted = [
        ("probe", "accuracy"), ("probe", "accuracy_colour"), ("probe", "reconstruction"),
        ("topk", "coverage"), ("topk", "reconstruction"), ("l1", "coverage"),
        ("l1", "reconstruction"), ("neurons", "coverage"), ("occupied", "coverage"),
        ("majority", "accuracy"),
    ]  # fmt: skip
    return {
        f"{measure}_{reader}": round(float(means[reader, measure].max()), 4)
        for reader, measure in wanted
    }
