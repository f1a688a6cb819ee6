"""Flip one disc in the board that the model represents: do the predicted moves follow?

At the last position of a held-out game one disc is flipped: at the chosen layers scale * u is added
to the residual stream, where u is the unit vector from the disc's present state to the other state:

    probe, means      w[other] - w[present] of the probe's class vectors, or of the class means
    topk, l1, ...     d[other] - d[present], d the decoder rows (made unit vectors) of the latents
                      that have the best AUROC for the two states in the comparison
    random            a random direction

The model's N most probable moves are then compared with the N legal moves of the edited board:
errors = false positives + false negatives. Only discs whose flip changes the legal moves are used.
Two numbers bound the effect: the errors of the unedited model against the edited board, and its
errors against the board as it is, which are above 0 because the model is not perfect. Scales are
chosen on every second game and scored on the others. Naive code for one position:

    with subject.edited(*[add(Site("resid_post", l), u[l], scale, "last") for l in layers]):
        top = subject.logits(ids)[0, -1].topk(N).indices

Written to the run:
`errors/table.parquet`: reader string, seed int64, layers string, scale double, half string (choose,
    score), errors double (against the edited board), low, high double (95 % interval), saved double
    (errors of the unedited model less these, position by position), saved_low, saved_high double,
    unit string (what is resampled: "game", one position each), errors_own double (against the board
    as it is), positions int64
`errors/cases.parquet`: game, ply, tile, present int64 (1 own, 2 enemy), legal, legal_edited uint64
    (masks): the positions used
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..runs.store import Run, Store, open_run
from ..runs.writer import RunWriter
from .compare import CompareConfig, compared_kinds, compared_model
from .study import open_othello

if TYPE_CHECKING:
    import pandas as pd

    from .interventions import Errors

GAMES_SEED = 9_000_000
"""Stream of the held-out games."""


@dataclass(frozen=True)
class EditConfig:
    """Flip discs in the board that the model represents, and count the errors of its moves."""

    STUDY: ClassVar[str] = "othello.edit"
    VERSION: ClassVar[int] = 2
    FACTS: ClassVar[dict[str, Any]] = {"layers": str}

    compare: str = field(default="", metadata={"key": False})
    """A run folder of `interp othello compare`; by default the newest stored run."""
    positions: int = 800
    """Positions, one per game."""
    scale: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
    """Lengths of the added vector."""
    layers: tuple[int, ...] = ()
    """Layers after which the vector is added; by default all but the last."""
    seed: int = 0
    """Seed of the choice of discs and of the random directions."""

    def source(self) -> Run:
        """The run of the comparison whose directions are used."""
        if self.compare:
            return open_run(Path(self.compare), CompareConfig.STUDY)
        none = "there is no comparison yet: make one with `interp othello compare`"
        return Store().newest(CompareConfig.STUDY, none)

    def fingerprints(self) -> dict[str, str]:
        source = self.source()
        model = open_othello(source.config["model"]).fingerprint()
        return {"compare": str(source.manifest["key"]), "model": model}

    def check(self) -> None:
        if self.positions < 4:
            raise UserError("--positions must be at least 4")
        if 0 not in self.scale or max(self.scale) <= 0:
            raise UserError("--scale must include 0 and at least one number above 0")
        for name, values in (("--scale", self.scale), ("--layers", self.layers)):
            if len(set(values)) < len(values):
                raise UserError(f"{name} has the same number twice")
        if self.seed < 0:
            raise UserError("--seed must be at least 0")
        compared_model(self.source())

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd

        from ..model.subject import open_subject
        from .games import random_games
        from .interventions import count_errors, find_cases, flip_vectors

        source = self.source()
        subject = open_subject(source.config["model"])
        n_layers = subject.spec.n_layers
        layers = self.layers or tuple(range(n_layers - 1))
        if not set(layers) <= set(range(n_layers)):
            raise UserError(f"--layers must be between 0 and {n_layers - 1}")
        games = random_games(6 * self.positions, GAMES_SEED, split="held_out")
        cases = find_cases(games, self.positions, self.seed)
        unedited = count_errors(subject, games, cases, {}, 0.0)
        width = subject.spec.d_model

        def swept(some: Sequence[tuple[str, int, tuple[int, ...]]]) -> Iterator[dict[str, Any]]:
            for reader, seed, at in some:
                flips = partial(flip_vectors, source.path, reader, seed)
                vectors = {layer: flips(layer, cases, width) for layer in at}
                for scale in self.scale:
                    about = {"reader": reader, "seed": seed, "layers": _joined(at), "scale": scale}
                    errors = count_errors(subject, games, cases, vectors, scale)
                    yield from (about | row for row in _halves(errors, unedited))

        name, sweeps = "errors/table", list(_sweeps(source, layers, n_layers, self.seed))
        table = out.table(name, out.in_pieces(name, sweeps, swept, 1, "edit", "sweeps"))
        masks = {"legal": "uint64", "legal_edited": "uint64"}
        out.table("errors/cases", pd.DataFrame(cases).astype(masks))
        out.facts |= {
            **subject.checks,
            "layers": _joined(layers),
            "positions": len(cases),
            "model": source.config["model"],
        }
        return edit_summary(chosen_scales(table, _joined(layers)))


def _sweeps(
    source: Run, layers: tuple[int, ...], n_layers: int, seed: int
) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """(reader, seed, layers): every reader at the chosen layers, and the probe at each layer."""
    yield from (("probe", 0, layers), ("means", 0, layers), ("random", seed, layers))
    for set_of_saes in source.manifest["seeds"]:
        yield from ((kind, int(set_of_saes), layers) for kind in compared_kinds(source))
    yield from (("probe", 0, (layer,)) for layer in range(n_layers) if (layer,) != layers)


def _joined(layers: tuple[int, ...]) -> str:
    return ", ".join(map(str, layers))


def _halves(errors: Errors, unedited: Errors) -> Iterator[dict[str, Any]]:
    """Mean errors of the choosing and of the scoring half, and the errors that the edit saves."""
    import numpy as np

    from ..runs.intervals import bootstrap

    for first, half in enumerate(("choose", "score")):
        part = slice(first, None, 2)
        counts, before = errors.edited[part], unedited.edited[part]
        mean, saved = (bootstrap(x, np.ones(len(x))) for x in (counts, before - counts))
        yield {
            "half": half,
            "errors": mean.value,
            "low": mean.low,
            "high": mean.high,
            **saved.columns("saved"),
            "unit": "game",
            "errors_own": float(errors.own[part].mean()),
            "positions": len(counts),
        }


def chosen_scales(table: pd.DataFrame, layers: str | None = None) -> pd.DataFrame:
    """Each sweep's scoring half at its best scale: the one above 0 best on the choosing half.

    Adds `unedited` (errors at scale 0), `floor` (errors of the unedited model against the board as
    it is) and `closed`, the share of the gap between the two that the edit closes.

    Args:
        table: the run's `errors/table`.
        layers: only the sweeps at these layers, "0, 1, 2".
    """
    import pandas as pd

    rows = table if layers is None else table[table["layers"] == layers]
    best_rows = []
    for _, sweep in rows.groupby(["reader", "seed", "layers"], sort=False):
        choose, score = (sweep[sweep["half"] == h].set_index("scale") for h in ("choose", "score"))
        best = choose["errors"][choose.index > 0].idxmin()
        best_rows.append(score.loc[[best]].reset_index())
    chosen = pd.concat(best_rows, ignore_index=True)
    unedited = rows[(rows["scale"] == 0) & (rows["half"] == "score")].iloc[0]
    chosen["unedited"], chosen["floor"] = unedited["errors"], unedited["errors_own"]
    gap = chosen["unedited"] - chosen["floor"]
    return chosen.assign(closed=(chosen["unedited"] - chosen["errors"]) / gap)


def edit_summary(chosen: pd.DataFrame) -> dict[str, float]:
    """Mean errors of each reader over its seeds, and the two numbers that bound them."""
    means = chosen.groupby("reader", sort=False)[["errors"]].mean()["errors"]
    marks = {"unedited": chosen["unedited"].iloc[0], "floor": chosen["floor"].iloc[0]}
    return {name: round(float(value), 4) for name, value in {**marks, **means}.items()}
