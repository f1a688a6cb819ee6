"""Tables whose rows several workers make: some rows of each are a part of the work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..progress import progress
from .parts import file_of, write_table
from .workers import map_parts
from .writer import passing_part

if TYPE_CHECKING:
    import pandas as pd

    from .workers_task import P, Task, Workers
    from .writer import RunWriter


class Made(NamedTuple):
    """What a worker makes of a part."""

    facts: dict[str, Any]
    """Entries of the manifest, such as what a model is opened as; the first part's are taken."""
    tables: tuple[bytes, ...]
    """The part's rows of every table, as Parquet files."""

    @classmethod
    def of(cls, facts: dict[str, Any], *rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> Made:
        """Of rows of every table; a table may have none."""
        import pandas as pd

        frames = [
            each if isinstance(each, pd.DataFrame) else pd.DataFrame(list(each)) for each in rows
        ]
        return cls(facts, tuple(file_of(partial(write_table, frame)) for frame in frames))


def parted_tables(
    out: RunWriter,
    names: Sequence[str],
    task: Task[P],
    parts: Sequence[P],
    workers: Workers,
    label: str,
    unit: str,
) -> list[pd.DataFrame]:
    """Tables of this run: the rows of all parts, in the order of the parts.

    Args:
        names: the tables, as `task` makes `Made` of each part; at least one row of each table.
        unit: what a part is, such as pairs.
    """
    if not all(out.has(f"{name}.parquet") for name in names):
        pieces = kept_parts(out, names, task, parts, workers, label, unit)
        for name, own in zip(names, zip(*pieces.values(), strict=True), strict=True):
            out.table(name, _joined([out.read_table(piece) for piece in own]))
    return [out.read_table(name) for name in names]


def kept_parts(
    out: RunWriter,
    names: Sequence[str],
    task: Task[P],
    parts: Sequence[P],
    workers: Workers,
    label: str,
    unit: str,
) -> dict[P, list[str]]:
    """Of each part, what its tables are called in this run. The rest is as in `parted_tables`.

    Each part is kept as it is finished, so a run that is stopped loses those under way; they are
    removed when the run is finished.
    """
    pieces = {part: [passing_part(name, str(part)) for name in names] for part in parts}
    left = [
        part
        for part, own in pieces.items()
        if not all(out.has(f"{piece}.parquet") for piece in own)
    ]
    with progress(label, len(parts), unit, len(parts) - len(left)) as advance:
        for part, made in map_parts(task, left, workers, advance):
            out.facts = {**made.facts, **out.facts}
            for piece, content in zip(pieces[part], made.tables, strict=True):
                with out.part(f"{piece}.parquet") as path:
                    path.write_bytes(content)
            advance(1, str(part))
    return pieces


def _joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Those without rows say nothing of the columns' types."""
    import pandas as pd

    full = [frame for frame in frames if len(frame)]
    return pd.concat(full, ignore_index=True) if full else frames[0]
