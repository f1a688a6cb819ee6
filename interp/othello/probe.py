"""Linear probes of every layer, the embedding included, without any autoencoders.

The quick part of the comparison (compare.py): probes of the residual stream for {empty, own, enemy}
and for {empty, black, white}, fitted on games of the training split and scored on held-out games,
beside the majority state of each tile and ply.

Written to the run: `scores/table.parquet`: site string, reader string, measure string, value, low,
    high double (95 % interval; NaN where there is none), unit string (what is resampled: "game", or
    ""), and `directions/probe-<site>`: the class vectors as `Directions`, with their intercepts
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import UserError
from ..model.site import Site
from ..runs.writer import RunWriter
from .study import ProbedStudy


@dataclass(frozen=True)
class ProbeConfig(ProbedStudy):
    """Read the board from every layer with linear probes."""

    STUDY: ClassVar[str] = "othello.probe"
    VERSION: ClassVar[int] = 1

    fit_games: int = 1000
    """Games to fit on (59 boards each)."""
    score_games: int = 1000
    """Held-out games to score on."""

    def check(self) -> None:
        super().check()
        if min(self.fit_games, self.score_games) < 1:
            raise UserError("--fit-games and --score-games must be at least 1")

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd

        from ..directions.provenance import Provenance
        from .board_labels import read_activations
        from .compare import labelled_games
        from .layer import class_directions
        from .readers import colour_rows, majority_rows, probe_rows

        subject = self.open(out)
        (fit, score), boards = labelled_games(self.fit_games, self.score_games)
        made = Provenance.of(self.STUDY, self.stored_weights)
        sites = [Site("resid_pre", 0)]
        sites += [Site("resid_post", layer) for layer in range(subject.spec.n_layers)]

        def probed(asked: Sequence[Site]) -> list[dict[str, Any]]:
            rows = []
            for site in asked:
                x = read_activations(subject, fit, [site], boards.choose.kept)[site]
                y = read_activations(subject, score, [site], boards.score.kept)[site]
                probes = probe_rows(x, y, boards, self.ridge, self.passes)
                colours = colour_rows(x, y, boards, self.ridge, self.passes)
                about = {"site": str(site), "reader": "probe"}
                rows += [about | row for row in (*probes.rows, *colours)]
                directions = class_directions(site, probes.coef, made, probes.intercept)
                directions.save_in(out, f"directions/probe-{site}")
            return rows

        rows = [{"site": "", "reader": "majority", **row} for row in majority_rows(boards)]
        read = out.in_pieces("scores/table", sites, probed, 1, "probe", "sites")
        table = out.table("scores/table", pd.concat([pd.DataFrame(rows), read], ignore_index=True))
        kept = table[table["measure"].isin(["accuracy", "accuracy_colour"])]
        return {
            f"{row['measure']}_{row['reader']}_{row['site']}".rstrip("_"): round(row["value"], 4)
            for row in kept.to_dict("records")
        }
