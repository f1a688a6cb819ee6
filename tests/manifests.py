"""Finished runs made by hand: a manifest with the seal and the key that belong to it."""

import json
from pathlib import Path

from interp.runs.disk import sha256
from interp.runs.manifest import SCHEMA, key_of, seal

TIMES = {"finished": "2026-01-01T00:00:00Z", "wall_s": 1.0, "peak_memory_bytes": 1}


def finish_by_hand(store: Path, study: str, config: dict | None = None, version: int = 1, **more):
    """The folder of a run in a store, its parts those that lie in it or that `more` has as `made`.

    Args:
        made: name -> function that writes the part to a path.
        more: further entries of the manifest.
    """
    identity = {"study": study, "version": version, "config": config or {}, "fingerprints": {}}
    folder = Path(store) / study / key_of(identity)
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in more.pop("made", {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        make(folder / name)
    files = {
        p.relative_to(folder).as_posix(): {"sha256": sha256(p), "bytes": p.stat().st_size}
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in ("run.json", "manifest.json")
    }
    plan = {"schema": SCHEMA, **identity, "key": folder.name, "unkeyed": []}
    (folder / "run.json").write_text(json.dumps(plan))
    seal_again(folder, {**plan, "metrics": {}, "files": files, **TIMES, **more})
    return folder


def seal_again(folder: Path, manifest: dict) -> None:
    """Write a manifest with the key and the seal that fit it."""
    identity = {name: manifest[name] for name in ("study", "version", "config", "fingerprints")}
    counts = {k: v for k, v in manifest["config"].items() if k not in manifest["unkeyed"]}
    manifest = {**manifest, "key": key_of({**identity, "config": counts})}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "seal": seal(manifest)}))
