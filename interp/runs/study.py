"""A study: a frozen config, what it depends on, and one function that writes its run.

The command line, the notebooks and the app all go through `run_or_load`, so there is one code path
from a config to a result.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from .store import (
    SCHEMA,
    Run,
    RunWriter,
    Store,
    check_same,
    open_run,
    replace_run,
    usual_store,
    verified,
    writing,
)


class Study(Protocol):
    """What a config dataclass offers to be a study.

    A field with `metadata={"key": False}` (a device, say) does not change the result and stays
    out of the run's key.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    STUDY: ClassVar[str]
    """Name, `<analysis>.<study>`: the folder its runs are kept in."""
    VERSION: ClassVar[int]
    """Raised whenever the same config would give other results."""

    def fingerprints(self) -> dict[str, str]:
        """Hashes of the model and the data that the result depends on."""
        ...

    def check(self) -> None:
        """Raise UserError for settings that cannot work, before anything is written."""
        ...

    def run(self, out: RunWriter) -> dict[str, Any]:
        """Write every part that `out` does not have yet; return the metrics."""
        ...


def plan(study: Study) -> dict[str, Any]:
    """What identifies a run; its `key` hashes the rest."""
    config = {f.name: getattr(study, f.name) for f in fields(study)}
    keyed = {f.name for f in fields(study) if f.metadata.get("key", True)}
    prints = study.fingerprints()
    identity = {
        "study": study.STUDY,
        "version": study.VERSION,
        "config": {name: value for name, value in config.items() if name in keyed},
        "fingerprints": prints,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    return {"schema": SCHEMA, **identity, "config": config, "key": key}


def run_or_load(
    study: Study, store: Store | None = None, out: Path | None = None, fresh: bool = False
) -> Run:
    """The finished run of a study: loaded if it is there, resumed or made if it is not.

    The parts of a stored run are checked against their hashes; damaged ones are made again.

    Args:
        study: a config.
        store: where this run, and those it needs, are looked up and kept; by default `Store()`.
        out: this run's own folder, instead of a place in the store.
        fresh: run again even if there is a finished run, which the new one replaces at its end.

    Raises:
        UserError: the model or the output is not usable, or `out` holds another run.
    """
    study = replace(study)  # what a config used before remembers of files may have changed
    with usual_store(store.root if store else None) as usual:
        planned = plan(study)
        path = out or usual.folder(study.STUDY, planned["key"])
        if fresh and (path / "run.json").exists():
            check_same(path, planned)
            beside = path.with_name(f".{path.name}.fresh")
            return replace_run(path, _make(study, beside, planned))
        if (path / "manifest.json").exists():
            check_same(path, planned)
            if verified(path):
                return open_run(path, study.STUDY)
        return _make(study, path, planned)


def _make(study: Study, path: Path, planned: dict[str, Any]) -> Run:
    study.check()
    with writing(path, planned) as writer:
        return writer.finish(study.run(writer))
