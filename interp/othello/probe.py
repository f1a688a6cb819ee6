"""Linear probes of every layer, the embedding included, without any autoencoders.

The quick part of the comparison (compare.py): own/enemy and black/white read-outs of the residual
stream, fitted on games of the training split and scored on held-out ones, beside the majority
state of each tile and ply.

Written to the run: `scores/table.parquet`: site string, reader string, measure string, value, low,
    high double (95 % by game; NaN where there is none), and `directions/probe-<site>`: the class
    vectors as `Directions`, with their intercepts
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import UserError
from ..model.site import Site
from ..progress import progress
from ..runs.store import RunWriter
from .sae import open_othello


@dataclass(frozen=True)
class ProbeConfig:
    """Read the board out of every layer, linearly."""

    STUDY: ClassVar[str] = "othello.probe"
    VERSION: ClassVar[int] = 1

    model: str = "othello-gpt"
    """An OthelloGPT: the shipped one, or a folder."""
    fit_games: int = 1000
    """Games to fit on (59 boards each)."""
    score_games: int = 1000
    """Held-out games to score on."""
    ridge: float = 1e-4
    """Ridge of the probes (see interp/probes/linear.py)."""
    passes: int = 30
    """Most passes of the optimiser."""

    def fingerprints(self) -> dict[str, str]:
        return {"model": open_othello(self.model).fingerprint()}

    def check(self) -> None:
        if min(self.fit_games, self.score_games, self.passes) < 1:
            raise UserError("give at least one game of each kind and one pass")
        if not self.ridge > 0:
            raise UserError("--ridge must be above 0")

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd

        from ..model.subject import open_subject
        from .compare import CHOOSE_SEED, SCORE_SEED
        from .facts import facts, read
        from .games import random_games
        from .layer import class_directions
        from .match import asked
        from .readers import Boards, colour_rows, majority_rows, probe_rows

        subject = open_subject(self.model)
        fit = random_games(self.fit_games, CHOOSE_SEED, split="train")
        score = random_games(self.score_games, SCORE_SEED, split="held_out")
        choose, held_out = facts(fit), facts(score)
        boards = Boards(choose, held_out, asked(choose, held_out))
        sites = [Site("resid_pre", 0)]
        sites += [Site("resid_post", layer) for layer in range(subject.spec.n_layers)]
        table = [{"site": "", "reader": "majority", **row} for row in majority_rows(boards)]
        with progress("probe", 2 * len(sites), "probes") as advance:
            for site in sites:
                x = read(subject, fit, [site], choose.kept)[site]
                y = read(subject, score, [site], held_out.kept)[site]
                found = probe_rows(x, y, boards, self.ridge, self.passes)
                advance(1, f"{site}, own and enemy")
                rows = [*found.rows, *colour_rows(x, y, boards, self.ridge, self.passes)]
                advance(1, f"{site}, black and white")
                table += [{"site": str(site), "reader": "probe", **row} for row in rows]
                about = {"model": self.model, "from": self.STUDY}
                directions = class_directions(site, found.coef, found.intercept, about)
                directions.save(out.path / "directions" / f"probe-{site}")
        frame = pd.DataFrame(table)
        with out.part("scores/table.parquet") as path:
            frame.to_parquet(path)
        out.facts = {"parity": subject.parity}
        kept = frame[frame["measure"].isin(["accuracy", "accuracy_colour"])]
        return {
            "_".join(filter(None, [row["measure"], row["reader"], row["site"]])): round(
                row["value"], 4
            )
            for row in kept.to_dict("records")
        }
