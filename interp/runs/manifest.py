"""The manifest of a finished run: what it may say, and what shows that nobody changed it.

    seal    sha256 over everything else in it
    key     sha256 over study, version, fingerprints and the settings that count
    files   name, bytes and sha256 of every part; nothing else in the folder is the run's

A run folder may come from someone else. So names are checked before any of them is opened:
relative, inside the folder, and no link on the way.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import UserError
from ..plain_json import read_json
from .command import again

JOURNAL = ".run.pieces/journal.json"
"""The hidden part of an unfinished run that says what is finished. `parts`: of every finished part,
hidden ones too, the sha256 of what it is, and before that of what it was: a process may be killed
before the new one has its name. `facts`: what the manifest will say of them. `seconds`: what they
took."""
KEY = re.compile("[0-9a-f]{12}")
"""What `key_of` gives."""
SCHEMA = 2
"""Version of the run folder's layout; the first had no seal."""
_REQUIRED: dict[str, Any] = {
    **dict.fromkeys(("study", "key", "finished"), str),
    **dict.fromkeys(("config", "metrics", "files", "fingerprints"), dict),
    "wall_s": (int, float),
    "peak_memory_bytes": int,
}
"""Entries that readers count on."""
_LARGEST = 2**53
"""No number of these is larger."""
_UNKEYED = 4
"""Settings of a run of the first layout that may not count for its key, at most."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished run.

    Raises:
        UserError: there is none, or one that is damaged, was changed, or names files outside.
    """
    path = check_inside(folder, "manifest.json")
    try:
        manifest: dict[str, Any] = read_json(path, "the run is damaged")
    except UserError as error:
        raise UserError(f"{error}; {again(folder, '--fresh')}") from error
    if manifest.get("schema") not in (1, SCHEMA):
        raise UserError(f"{path} is not of this version's layout ({SCHEMA})")
    for name, kind in _REQUIRED.items():
        if not isinstance(manifest.get(name), kind):
            raise UserError(
                f"{path} is damaged: it has no proper '{name}'; {again(folder, '--fresh')}"
            )
    for name in ("wall_s", "peak_memory_bytes"):
        if not 0 <= manifest[name] <= _LARGEST:  # NaN is not
            raise UserError(
                f"{path} is damaged: it has no proper '{name}'; {again(folder, '--fresh')}"
            )
    for name, part in manifest["files"].items():
        check_inside(folder, name)
        if not isinstance(part, dict) or not isinstance(part.get("sha256"), str):
            raise UserError(
                f"{path} is damaged: it does not say what {name} was; {again(folder, '--fresh')}"
            )
    whole = seal(manifest) == manifest.get("seal") if manifest["schema"] == SCHEMA else True
    if not whole or not _key_fits(json.dumps(manifest, sort_keys=True)):
        raise UserError(
            f"{path} was changed after the run was finished: {again(folder, '--fresh')}"
        )
    return manifest


def seal(manifest: Mapping[str, Any]) -> str:
    """sha256 over everything in a manifest but the seal itself."""
    rest = {name: value for name, value in manifest.items() if name != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def key_of(identity: Mapping[str, Any]) -> str:
    """The key of a run by what identifies it: study, version, config, fingerprints."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


@lru_cache(maxsize=4096)
def _key_fits(text: str) -> bool:
    """Whether a manifest's key is that of its settings. One of the first layout does not say which
    settings count (a device does not), so that any few may be left out."""
    manifest = json.loads(text)
    config = manifest["config"]
    identity = {name: manifest.get(name) for name in ("study", "version", "fingerprints")}
    named = manifest.get("unkeyed")
    choices: Any = (
        itertools.chain.from_iterable(
            itertools.combinations(config, n) for n in range(_UNKEYED + 1)
        )
        if named is None
        else [named]
    )
    return any(
        key_of({**identity, "config": {k: v for k, v in config.items() if k not in out}})
        == manifest["key"]
        for out in choices
    )


def check_inside(folder: Path, name: str) -> Path:
    """The path of a part of a run folder.

    Raises:
        UserError: a name that leads out of the folder, or over a link.
    """
    parts = PurePosixPath(name).parts
    if not name or "\0" in name or "\\" in name or PurePosixPath(name).is_absolute():
        raise UserError(f"{folder} names a file outside of itself ({name[:80]!r}): do not use it")
    if ".." in parts or any(len(part.encode()) > 255 for part in parts):
        raise UserError(f"{folder} names a file outside of itself ({name[:80]!r}): do not use it")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise UserError(f"{path} is a link: a run folder holds none, so do not use it")
    return path
