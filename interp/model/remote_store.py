"""Object stores that a checkpoint can stay in (`s3://`, `gs://`, `hf://`), through fsspec: what a
folder there holds, and ranges of its files.

Nothing is written there, and nothing that comes from there is run or unpickled.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from ..errors import UserError, reason

WAITS = (0.5, 2.0, 8.0)
"""Seconds before a range that was not given is asked for again."""


class Scheme(NamedTuple):
    """How the addresses of one kind are read."""

    driver: str
    """fsspec's, as pip names it."""
    failures: Callable[[], tuple[type[Exception], ...]]
    """What its libraries raise that is no OSError."""
    access: str
    """What to do where access is refused."""
    options: Mapping[str, Any] = {}
    """Of the file system."""
    ranges: Mapping[str, Any] = {}
    """Of each range that is read."""


class RemoteFile(NamedTuple):
    """A file in a store, as it was when its folder was opened."""

    address: str
    path: str
    """As fsspec's driver takes it; on the hub it names the commit."""
    size: int
    content: str
    """What is another where the content is (`identity`)."""

    def __str__(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        return PurePosixPath(self.address).name


def _of_s3() -> tuple[type[Exception], ...]:
    from aiohttp import ClientError
    from botocore.exceptions import BotoCoreError
    from botocore.exceptions import ClientError as Answer

    return ClientError, BotoCoreError, Answer


def _of_gs() -> tuple[type[Exception], ...]:
    from aiohttp import ClientError
    from gcsfs.retry import HttpError
    from google.auth.exceptions import GoogleAuthError

    return ClientError, HttpError, GoogleAuthError


def http_error() -> type[Exception]:
    """What the HTTP client that the hub's library uses, whichever it is, raises when cut off."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0]


def _of_hf() -> tuple[type[Exception], ...]:
    return (http_error(),)


_FRESH = {"use_listings_cache": False}
"""So that a file that has changed is seen."""
SCHEMES = {
    "s3": Scheme(
        "s3fs",
        _of_s3,
        "log in (AWS_PROFILE, AWS_ACCESS_KEY_ID), or FSSPEC_S3_ANON=1 where public",
        _FRESH,
    ),
    "gs": Scheme(
        "gcsfs",
        _of_gs,
        "log in (gcloud auth application-default login), or FSSPEC_GS_TOKEN=anon where public",
        _FRESH,
    ),
    "hf": Scheme(
        "huggingface-hub",
        _of_hf,
        "log in with `hf auth login`",
        ranges={"cache_type": "none"},  # its files read ahead by 5 MB
    ),
}
"""Where a checkpoint can stay. The names of other schemes are no models."""


def scheme_of(name: str) -> str:
    """Of an address; "" of any other name."""
    scheme, mark, _ = name.partition("://")
    return scheme if mark and scheme in SCHEMES else ""


def is_remote(name: str) -> bool:
    """Whether a model's name is an address in a store."""
    return bool(scheme_of(name))


def listed(address: str, path: str) -> dict[str, RemoteFile]:
    """The files of a folder by name, without those of folders in it.

    Args:
        path: the folder's, as the driver takes it.

    Raises:
        UserError: it is not there or cannot be read, or the store does not say what tells one
            version of a file from another.
    """
    scheme = scheme_of(address)
    files, refused = _files(scheme), _failures(scheme)
    try:
        entries = files.ls(path, detail=True)
    except refused as error:
        raise _unread(address, scheme, error) from error
    found = {}
    for entry in (each for each in entries if each["type"] == "file"):
        name = PurePosixPath(entry["name"]).name
        where = f"{address}/{name}"
        found[name] = RemoteFile(
            where, str(entry["name"]), int(entry["size"]), identity(where, entry)
        )
    return found


def identity(address: str, info: Mapping[str, Any]) -> str:
    """What is another where a file's content is, as its store says: the sha256 where it is known,
    else a checksum or the ETag, with the size.

    An ETag depends on how a file was uploaded, so that equal files may have two.
    """
    if lfs := info.get("lfs"):
        return str(lfs["sha256"])
    for kind in ("blob_id", "md5Hash", "crc32c", "ETag"):
        if said := str(info.get(kind) or "").strip('"'):
            return f"{kind} {said} of {info['size']} bytes"
    raise UserError(
        f"{address}: its store gives neither a checksum nor an ETag, by which a changed file is "
        "seen: fetch the model, and name its folder"
    )


def check_same(file: RemoteFile) -> None:
    """Raise UserError for a file that is another by now. On the hub a commit cannot be."""
    scheme = scheme_of(file.address)
    if scheme == "hf":
        return
    files, refused = _files(scheme), _failures(scheme)
    try:
        info = files.info(file.path)
    except refused as error:
        raise _unread(file.address, scheme, error) from error
    if identity(file.address, info) != file.content:
        raise UserError(
            f"{file} has changed since it was opened: start again, which opens what is there now"
        )


def read_range(file: RemoteFile, start: int, end: int) -> bytes:
    """The bytes from `start` up to `end`; asked for again a few times where the network fails.

    Raises:
        UserError: they are not given, or the file has changed.
    """
    scheme = scheme_of(file.address)
    files, refused = _files(scheme), _failures(scheme)
    for wait in (*WAITS, None):
        try:
            read: bytes = files.cat_file(file.path, start=start, end=end, **SCHEMES[scheme].ranges)
            if len(read) != end - start:
                raise OSError(f"{len(read)} bytes came of {end - start}")
            return read
        except refused as error:
            if wait is None or _is_final(error):
                check_same(file)
                raise _unread(file.address, scheme, error) from error
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _files(scheme: str) -> Any:
    """fsspec's file system, which it keeps for the next call."""
    import fsspec

    logger = logging.getLogger(SCHEMES[scheme].driver)
    if not logger.handlers:  # what it logs is raised as well, and then said in one line
        logger.addHandler(logging.NullHandler())
    try:
        return fsspec.filesystem(scheme, **SCHEMES[scheme].options)
    except ImportError as error:
        raise UserError(
            f"{scheme}:// is read through {SCHEMES[scheme].driver}: "
            "pip install 'interp-workbench[remote]'"
        ) from error


def _failures(scheme: str) -> tuple[type[Exception], ...]:
    return (OSError, ValueError, *SCHEMES[scheme].failures())


def _is_final(error: Exception) -> bool:
    """Whether the same would come of another try."""
    return isinstance(error, FileNotFoundError | PermissionError) or _lacks_access(error)


def _lacks_access(error: Exception) -> bool:
    """Libraries have no type in common for it."""
    said = f"{type(error).__name__} {error}"
    return bool(re.search(r"Credential|Forbidden|Unauthorized|Access ?Denied|, 40[13]$", said))


def _unread(address: str, scheme: str, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"{address} is not there: check the name")
    fix = "try again later, or fetch the model and name its folder"
    if isinstance(error, PermissionError) or _lacks_access(error):
        fix = SCHEMES[scheme].access
    return UserError(f"{address} cannot be read ({reason(error)}): {fix}")
