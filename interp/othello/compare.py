"""Linear probes against sparse autoencoders, layer by layer: the table that the paper lacks.

Source: 'How GPT learns layer by layer'. Read is every layer's residual stream after the block, on
boards of held-out games, by linear probes and by SAEs of several kinds and seeds. The
baselines: the layer's own neurons, random directions as sparse as the TopK latents, the same
readers on a random-weight model, and the majority state of each tile and ply. Features, rules and
thresholds are chosen, and probes fitted, on other games (`match.py`, `readers.py`).

Written to the run, one part per layer:
`scores/L<layer>.parquet`: layer int64, reader string, seed int64, measure string, value double,
    low, high double (95 % interval, or NaN), unit string (what is resampled: "game", or "");
    measures as in readers.py
`latents/L<layer>.parquet`: layer, reader, seed, name, kind, tile int64, latent_auroc int64, auroc,
    latent_f1 int64, threshold, f1: the best feature for each label
`rules/L<layer>.parquet`: layer, reader, seed, latent int64, kind (own, enemy), tile, threshold:
    the activation from which a latent claims a state of a tile
`maps/L<layer>.safetensors`: `auroc.<arch>-S<seed>`, `f1.<arch>-S<seed>` [d_sae, 320] float16: every
    latent against every label, columns as in `board_labels.yes_no_labels`
`directions/probe-L<layer>`, `means-L<layer>`, `<arch>-L<layer>-S<seed>`: `Directions` at
    `<layer>.resid_post`: class vectors of the probe (with their intercepts), class means, and the
    decoder rows of the best latents
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..progress import progress
from ..runs.store import Run, open_run
from ..runs.writer import RunWriter
from .sae import KINDS, SAES, directions_name, kinds_of, sae_name
from .study import ProbedStudy, open_othello

if TYPE_CHECKING:
    import pandas as pd

    from .layer import Games
    from .readers import Boards

FEWEST = 5
"""Games in which most labels of the board are true somewhere and false elsewhere."""
CHOOSE_SEED, SCORE_SEED = 8_000_000, 8_000_001
"""Streams of games: of the training split to fit and choose, held out to score."""


@dataclass(frozen=True)
class CompareConfig(ProbedStudy):
    """Compare linear probes with sparse autoencoders on every layer."""

    STUDY: ClassVar[str] = "othello.compare"
    VERSION: ClassVar[int] = 2
    FACTS: ClassVar[dict[str, Any]] = {"seeds": list[int], "boards": dict[str, int]}

    saes: str = field(default="", metadata={"key": False})
    """A run folder of `interp othello sae`; by default that of the shipped SAEs."""
    choose_games: int = 1800
    """Games on which probes are fitted and latents chosen (59 boards each)."""
    score_games: int = 1800
    """Held-out games on which everything is scored."""
    seed: int = 0
    """Seed of the random-weight model and the random directions."""

    def fingerprints(self) -> dict[str, str]:
        files = json.dumps(self.sae_run().manifest["files"], sort_keys=True)
        return super().fingerprints() | {"saes": hashlib.sha256(files.encode()).hexdigest()}

    def sae_run(self) -> Run:
        """The run of the SAEs that are compared."""
        return open_run(Path(self.saes) if self.saes else SAES, "othello.sae")

    def check(self) -> None:
        super().check()
        trained_on = self.sae_run().manifest["fingerprints"]["model"]
        if trained_on != open_othello(self.model).fingerprint():
            raise UserError("these SAEs are of another model: give --saes a run on this model")
        if min(self.choose_games, self.score_games) < FEWEST:
            raise UserError(f"--choose-games and --score-games must be at least {FEWEST}")
        if self.seed < 0:
            raise UserError("--seed must be at least 0")

    def run(self, out: RunWriter) -> dict[str, Any]:
        from ..model.subject import open_subject
        from .layer import LayerJob

        subject = self.open(out)
        untrained = open_subject(random_model(self.model, self.seed), device=self.own_device)
        games, boards = labelled_games(self.choose_games, self.score_games)
        made, layers = self.sae_run(), range(subject.spec.n_layers)
        kinds = kinds_of(made)
        sets = [(kind, seed) for kind in kinds for seed in made.config["seeds"]]
        with progress("compare", len(layers) * (len(sets) + 7), "readers") as advance:
            for layer in layers:
                saes = [(a, s, made.path / "saes" / sae_name(a, layer, s)) for a, s in sets]
                if not all(map(out.has, layer_parts(layer, sets))):
                    k = made.config["k"]
                    job = LayerJob(layer, boards, self, self.seed, k, out, advance)
                    job.run(subject, untrained, games, saes)
        out.facts |= {
            "boards": {"choose": len(boards.choose.game), "score": len(boards.score.game)},
            "seeds": made.config["seeds"],
            "kinds": list(kinds),
        }
        return flipped_shares(games[1], boards) | headline(_scores(out, layers), kinds)


def _scores(out: RunWriter, layers: Iterable[int]) -> pd.DataFrame:
    """The scores of all layers of a run that is being written."""
    import pandas as pd

    return pd.concat([out.read_table(f"scores/L{i}") for i in layers], ignore_index=True)


def labelled_games(choose: int, score: int) -> tuple[Games, Boards]:
    """Games to fit and choose on, games to score on, and the labels of their boards."""
    from .board_labels import label_boards
    from .games import random_games
    from .match import targets
    from .readers import Boards

    games = (
        random_games(choose, CHOOSE_SEED, split="train"),
        random_games(score, SCORE_SEED, split="held_out"),
    )
    labels = label_boards(games[0]), label_boards(games[1])
    return games, Boards(*labels, targets(*labels))


def layer_parts(layer: int, saes: Sequence[tuple[str, int]]) -> list[str]:
    """Every part that is written for a layer."""
    parts = [f"{table}/L{layer}.parquet" for table in ("scores", "latents", "rules")]
    parts.append(f"maps/L{layer}.safetensors")
    for reader, seed in (("probe", 0), ("means", 0), *saes):
        name = directions_name(reader, seed, layer)
        files = ("vectors.safetensors", "index.parquet", "directions.json")
        parts += [f"directions/{name}/{file}" for file in files]
    return parts


def compared_model(run: Run) -> str:
    """The model of a comparison.

    Raises:
        UserError: the model has changed since.
    """
    model = str(run.config["model"])
    if open_othello(model).fingerprint() != run.manifest["fingerprints"]["model"]:
        raise UserError(f"{model} has changed since the comparison in {run.path}: compare again")
    return model


def random_model(model: str, seed: int) -> Any:
    """The architecture of a model with random weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from ..model.catalog import resolve

    torch.manual_seed(seed)
    config = AutoConfig.from_pretrained(resolve(model), trust_remote_code=False)
    return AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]


def flipped_shares(games: Any, boards: Boards) -> dict[str, float]:
    """The share of the stable discs, on all labelled boards, that the rest of the game flips."""
    from .games import replay, squares
    from .stability import flipped_later

    labels = boards.score
    later = squares(flipped_later(replay(games))[:, :-1][labels.kept])
    kinds = {"paper": labels.paper, "sound": labels.sound}
    return {f"{k}_stable_turned": round(float(later[x].mean()), 6) for k, x in kinds.items()}


def compared_kinds(run: Run) -> tuple[str, ...]:
    """The kinds of SAE that a comparison has; the first comparisons do not say them."""
    return tuple(run.manifest.get("kinds", KINDS))


def headline(table: pd.DataFrame, kinds: Sequence[str]) -> dict[str, float]:
    """Accuracy, coverage and reconstruction of the main readers in their best layer (mean over
    seeds)."""
    means = table.groupby(["reader", "measure", "layer"])["value"].mean()
    wanted = [
        ("probe", "accuracy"), ("probe", "accuracy_colour"), ("probe", "reconstruction"),
        *((kind, measure) for kind in kinds for measure in ("coverage", "reconstruction")),
        ("neurons", "coverage"), ("occupied", "coverage"), ("majority", "accuracy"),
    ]  # fmt: skip
    return {
        f"{measure}_{reader}": round(float(means[reader, measure].max()), 4)
        for reader, measure in wanted
    }
