"""Edit the board in the model's mind: turn one disc's colour and see the predicted moves follow.

At the last position of a held-out game one disc changes sides: at the chosen layers the residual
stream is pushed by scale * u, u the unit vector from the disc's present state to the other one,

    probe, means      w[other] - w[present] of the probe's class vectors, or of the class means
    topk, l1          d[other] - d[present], d the decoder rows (made unit vectors) of the latents
                      that the comparison found best for the two states, by AUROC
    random            any direction

and the model's N best moves are compared with the N legal moves of the edited board: errors = false
positives + false negatives. Only discs whose change changes the legal moves are asked about. What
there is to win lies between two numbers: the errors of the unedited model against the edited board,
and its errors against the board it does see, for it is not perfect. Scales are chosen on every
second game and scored on the others. Naive equivalent for one position:

    with subject.edited(*[add(Site("resid_post", l), u[l], scale, "last") for l in layers]):
        top = subject.logits(ids)[0, -1].topk(N).indices

Written to the run:
`errors/table.parquet`: reader string, seed int64, layers string, scale double, half string (choose,
    score), errors double (against the edited board), low, high double (95 %), saved double (fewer
    errors than unedited, position by position), saved_low, saved_high, errors_own double (against
    the board as it is), positions int64
`errors/cases.parquet`: game, ply, tile, present int64 (1 own, 2 enemy), legal, legal_edited uint64
    (masks): the positions asked about
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..progress import progress
from ..runs.store import Run, RunWriter, Store, open_run
from .compare import CompareConfig, own_model
from .sae import open_othello

if TYPE_CHECKING:
    import pandas as pd

    from .pushes import Errors

GAMES_SEED = 9_000_000
"""Stream of the held-out games edited."""


@dataclass(frozen=True)
class EditConfig:
    """Turn discs in the model's mind, and count how far its moves follow."""

    STUDY: ClassVar[str] = "othello.edit"
    VERSION: ClassVar[int] = 2

    compare: str = field(default="", metadata={"key": False})
    """Run folder of `interp othello compare`; by default the newest stored one."""
    positions: int = 800
    """Positions, each of another game."""
    scale: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
    """Lengths of the push."""
    layers: tuple[int, ...] = ()
    """Layers pushed, after the block; by default all but the last."""
    seed: int = 0
    """Seed of the discs chosen and of the random directions."""

    def source(self) -> Run:
        """The comparison whose directions are used."""
        if self.compare:
            return open_run(Path(self.compare), CompareConfig.STUDY)
        found = Store().runs(CompareConfig.STUDY)
        if not found:
            raise UserError("no comparison yet: make one with `interp othello compare`")
        return found[0]

    def fingerprints(self) -> dict[str, str]:
        source = self.source()
        model = open_othello(source.config["model"]).fingerprint()
        return {"compare": str(source.manifest["key"]), "model": model}

    def check(self) -> None:
        if self.positions < 4 or 0 not in self.scale or max(self.scale) <= 0:
            raise UserError("give at least 4 positions, and among the scales 0 and one above it")
        if len(set(self.scale)) < len(self.scale) or len(set(self.layers)) < len(self.layers):
            raise UserError("give every scale and every layer once")
        if self.seed < 0:
            raise UserError("--seed is a number from 0 up")
        own_model(self.source())

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd

        from ..model.subject import open_subject
        from .games import random_games
        from .pushes import count_errors, find_cases, push_vectors

        source = self.source()
        subject = open_subject(source.config["model"])
        n_layers = subject.spec.n_layers
        layers = self.layers or tuple(range(n_layers - 1))
        if not set(layers) <= set(range(n_layers)):
            raise UserError(f"--layers must be between 0 and {n_layers - 1}")
        games = random_games(6 * self.positions, GAMES_SEED, split="held_out")
        cases = find_cases(games, self.positions, self.seed)
        still = count_errors(subject, games, cases, {}, 0.0)
        sweeps = list(_sweeps(source, layers, n_layers, self.seed))
        rows: list[dict[str, Any]] = []
        with progress("edit", len(sweeps) * len(self.scale), "runs") as advance:
            for reader, seed, at in sweeps:
                width = subject.spec.d_model
                vectors = {
                    layer: push_vectors(source.path, reader, seed, layer, cases, width)
                    for layer in at
                }
                for scale in self.scale:
                    about = {"reader": reader, "seed": seed, "layers": _written(at), "scale": scale}
                    errors = count_errors(subject, games, cases, vectors, scale)
                    rows += [about | row for row in _halves(errors, still)]
                    advance(1, f"{reader}, layers {_written(at)}")
        table = pd.DataFrame(rows)
        with out.part("errors/table.parquet") as path:
            table.to_parquet(path)
        with out.part("errors/cases.parquet") as path:
            pd.DataFrame(cases).astype({"legal": "uint64", "legal_edited": "uint64"}).to_parquet(
                path
            )
        out.facts = {
            "parity": subject.parity,
            "layers": _written(layers),
            "positions": len(cases),
            "model": source.config["model"],
        }
        return edit_summary(chosen_scales(table, _written(layers)))


def _sweeps(
    source: Run, layers: tuple[int, ...], n_layers: int, seed: int
) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """(reader, seed, layers): every reader at the layers asked for, the probe at each one too."""
    for reader in ("probe", "means"):
        yield reader, 0, layers
    yield "random", seed, layers
    for set_of_saes in source.manifest["seeds"]:
        yield "topk", int(set_of_saes), layers
        yield "l1", int(set_of_saes), layers
    for layer in range(n_layers):
        if (layer,) != layers:
            yield "probe", 0, (layer,)


def _written(layers: tuple[int, ...]) -> str:
    return ", ".join(map(str, layers))


def _halves(errors: Errors, still: Errors) -> Iterator[dict[str, Any]]:
    """Mean errors of the choosing and of the scoring half, and what the edit saves, pairwise."""
    import numpy as np

    from ..runs.intervals import bootstrap

    for half, part in (("choose", slice(0, None, 2)), ("score", slice(1, None, 2))):
        counts = errors.edited[part]
        found = bootstrap(counts, np.ones(len(counts)))
        saved = bootstrap(still.edited[part] - counts, np.ones(len(counts)))
        yield {
            "half": half,
            "errors": found.value,
            "low": found.low,
            "high": found.high,
            "saved": saved.value,
            "saved_low": saved.low,
            "saved_high": saved.high,
            "errors_own": float(errors.own[part].mean()),
            "positions": len(counts),
        }


def chosen_scales(table: pd.DataFrame, layers: str | None = None) -> pd.DataFrame:
    """The scoring half of each sweep at the scale, of those over 0, best on the choosing half.

    Adds `unedited` (errors at scale 0), `floor` (the unedited model against the board it sees) and
    `closed`, the share of the gap between the two that the edit closes. `layers` keeps one set.
    """
    import pandas as pd

    rows = table if layers is None else table[table["layers"] == layers]
    found = []
    for _, sweep in rows.groupby(["reader", "seed", "layers"], sort=False):
        choose, score = (sweep[sweep["half"] == h].set_index("scale") for h in ("choose", "score"))
        best = choose["errors"][choose.index > 0].idxmin()
        found.append(score.loc[[best]].reset_index())
    made = pd.concat(found, ignore_index=True)
    still = rows[(rows["scale"] == 0) & (rows["half"] == "score")].iloc[0]
    made["unedited"], made["floor"] = still["errors"], still["errors_own"]
    made["closed"] = (made["unedited"] - made["errors"]) / (made["unedited"] - made["floor"])
    return made


def edit_summary(chosen: pd.DataFrame) -> dict[str, float]:
    """Errors of each reader, mean over seeds, and the two marks they lie between."""
    means = chosen.groupby("reader", sort=False)[["errors"]].mean()["errors"]
    marks = {"unedited": chosen["unedited"].iloc[0], "floor": chosen["floor"].iloc[0]}
    return {name: round(float(value), 4) for name, value in {**marks, **means}.items()}
