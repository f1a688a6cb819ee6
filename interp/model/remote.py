"""A checkpoint that stays in a store, by its address: `s3://bucket/folder`, `gs://bucket/folder`,
`hf://org/model[@revision]`.

A folder here holds its small files and the headers of its weight files. It is named by the address
and the content, so another version is another folder. Weights are read from it like from any
other, tensor by tensor, in ranges.
"""

from __future__ import annotations

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

from ..errors import UserError
from ..progress import progress
from .building import built
from .folder import ADAPTER
from .hub import HUB_ID, TOKENIZER, commit_of
from .remote_files import NOTE, PREFIX, THREADS, RemoteShard, read_header
from .remote_store import RemoteFile, listed, read_range, scheme_of
from .tensor_files import INDEX, SINGLE, indexed
from .tokenizer_files import FOREIGN

_SMALL = ["config.json", "generation_config.json", INDEX, ADAPTER, *TOKENIZER, *FOREIGN]
_LARGEST = 2**28
"""Bytes of a file that is fetched."""
_FORMS = {"hf": f"hf://{HUB_ID}"}
_FORM = r"[a-z0-9]+://[^/\s]+(/[^/\x00-\x1f]+)*"


def from_remote(name: str) -> Path:
    """The folder of a checkpoint elsewhere; its small files and headers are fetched if need be.

    Raises:
        UserError: no such address, it cannot be read, has no safetensors, or damaged ones.
    """
    address = name.rstrip("/")
    form = _FORMS.get(scheme_of(name), _FORM)
    if not re.fullmatch(form, address) or {".", ".."} & set(address.split("/")):
        raise UserError(
            f"'{name}' is no address of a model: give s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or "
            "hf://ORG/MODEL[@REVISION]"
        )
    path = address.partition("://")[2]
    if scheme_of(name) == "hf":  # what a commit holds cannot change
        path = f"{path.partition('@')[0]}@{commit_of(path)}"
    there = listed(address, path)
    kept = [file for n, file in sorted(there.items()) if _is_small(n) or n.endswith(".safetensors")]
    about = "\n".join([address, *(f"{file.path} {file.content}" for file in kept)])
    digest = hashlib.sha256(about.encode()).hexdigest()[:16]

    def build(out: Path) -> None:
        for file in (file for file in kept if _is_small(file.name)):
            (out / file.name).write_bytes(_whole(file))
        shards = _shards(address, out, there)
        if listed(address, path) != there:
            raise UserError(f"{address} has changed while it was looked at: try again")
        note = {"address": address, "shards": {shard.file.name: shard for shard in shards}}
        (out / NOTE).write_text(json.dumps(note))

    return built(f"{PREFIX}{digest}", build)


def _is_small(name: str) -> bool:
    return any(fnmatch(name, form) for form in _SMALL)


def _whole(file: RemoteFile) -> bytes:
    if file.size > _LARGEST:
        raise UserError(f"{file} is larger than {_LARGEST >> 20} MiB: it is no such file")
    return read_range(file, 0, file.size) if file.size else b""


def _shards(address: str, out: Path, there: dict[str, RemoteFile]) -> list[RemoteShard]:
    """The files of weights, each with its header; those that the index names and that lack are
    missed when the folder is opened."""
    names = [SINGLE] if SINGLE in there else []
    if not names and INDEX in there:
        names = sorted(set(indexed(out / INDEX, f"{address}/{INDEX}").values()))
    files = [there[name] for name in names if name in there]
    if not files:
        raise UserError(
            f"{address} has no {SINGLE}, nor shards of one with their index: only safetensors are "
            "read from a store"
        )
    found = []
    with (
        progress(f"headers of {address}", len(files), "files") as advance,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        for shard in pool.map(_shard, files):
            found.append(shard)
            advance(1)
    return found


def _shard(file: RemoteFile) -> RemoteShard:
    tensors = read_header(file)
    if file.content.startswith("blob_id"):  # a small file of the hub, which has no sha256 of it
        file = file._replace(content=hashlib.sha256(_whole(file)).hexdigest())
    return RemoteShard(file, tensors)
