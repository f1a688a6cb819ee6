"""The index of an atlas that has none of its own: one that was made before there were any.

It is a run, written and checked as any; it is kept beside the models and not in the store, since
all that is in it follows from the atlas. The atlas stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from ..runs.store import Run, open_run
from ..runs.study import run_or_load
from ..runs.writer import RunWriter
from .index import contents, kept_at
from .indexing import tables_of, write_index


@dataclass(frozen=True)
class IndexConfig:
    """Make the search index of an atlas that has none."""

    STUDY: ClassVar[str] = "neurons.index"
    VERSION: ClassVar[int] = 1

    atlas: str = field(metadata={"key": False})
    """The atlas's folder. What is in it is part of the key."""

    @cached_property
    def _atlas(self) -> Run:
        return open_run(self.atlas, "neurons.atlas")

    def fingerprints(self) -> dict[str, str]:
        return {"atlas": contents(self._atlas)}

    def check(self) -> None:
        """Any atlas will do."""

    def run(self, out: RunWriter) -> dict[str, Any]:
        tables = tables_of(self._atlas)
        write_index(out, tables)
        return {"rows": sum(tables.sizes)}


def make_index(atlas: Run, fresh: bool = False) -> Run:
    """The run that has an atlas's index: the atlas itself, or one that is made now.

    Raises:
        UserError: the atlas is damaged, or the index cannot be written.
    """
    if atlas.has("index/rows"):
        return atlas
    return run_or_load(IndexConfig(str(atlas.path.resolve())), out=kept_at(atlas), fresh=fresh)
