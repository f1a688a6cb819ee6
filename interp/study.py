"""A study: a frozen config, what it depends on, and one function that writes its run.

The command line, the notebooks and the app all go through `run_or_load`, so there is one code path
from a config to a result.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Protocol

from .errors import UserError
from .store import SCHEMA, Run, RunWriter, Store, open_run, writing


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

    Args:
        study: a config.
        store: where runs are looked up and kept; by default `Store()`.
        out: this run's own folder, instead of a place in the store.
        fresh: run again even if there is a finished run, which is then lost.

    Raises:
        UserError: the model or the output is not usable, or `out` holds another run.
    """
    planned = plan(study)
    path = out or (store or Store()).folder(study.STUDY, planned["key"])
    if (path / "manifest.json").exists():
        run = open_run(path, study.STUDY)
        if run.manifest["key"] != planned["key"]:
            raise UserError(f"{path} holds another run (other settings or model): choose another")
        if not fresh:
            return run
        shutil.rmtree(path)
    with writing(path, planned) as writer:
        return writer.finish(study.run(writer))
