"""`interp app`."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
from functools import partial
from pathlib import Path

from ..analyses import load
from ..errors import UserError
from ..model.allowed import FOLDERS, MEMORY
from ..plain_path import plain_path
from ..progress import log
from ..runs.queue import SLOTS, slots
from ..runs.store import Store
from .common import Flag, Runs, bound, say

OWN = "localhost"


def _explorer(
    runs: Runs = None,
    address: str = "127.0.0.1",
    port: int = 8501,
    host: tuple[str, ...] = (),
    models: tuple[Path, ...] = (),
    token: Flag = False,
    memory: float | None = None,
    jobs: int = 0,
) -> None:
    """Explore stored runs in the browser.

    Served to others (on another address than 127.0.0.1, with --host or with --token) the app asks
    for the token in the link that it prints, and opens only models of the catalog, the store and
    --models.

    Args:
        address: Where to listen.
        port: Port to listen on.
        host: More names under which it is reached, such as a proxy's.
        models: Folders of models that others may open.
        token: Ask for a token on 127.0.0.1 too: where this machine has other users.
        memory: How many GiB of models the app keeps at most (what a pass needs comes on top); by
            default half of the machine's memory.
        jobs: Studies that run at once where they are started here; by default one for every four
            cores, or $INTERP_JOBS.
    """
    if memory is not None:
        if not 0 < memory < 2**20:
            raise UserError(f"--memory {memory:g}: give the GiB that the app may keep, such as 8")
        os.environ[MEMORY] = str(memory)
    number = _listening(address, port)
    if runs and not plain_path(runs).is_dir():
        log.warning(
            "there is no folder %s yet: the app shows no runs until one is made in it", runs
        )
    for folder in models:
        if not plain_path(folder).is_dir():
            raise UserError(f"there is no folder {folder}: give --models one that there is")
    own = ipaddress.ip_address(number).is_loopback
    os.environ["INTERP_RUNS"] = root = str(Store(runs).root.resolve())
    if jobs:
        os.environ[SLOTS] = str(jobs)
    slots()  # a number that is none is said now
    names, word = [OWN, *host], ""
    if host or token or not own:
        word = secrets.token_hex(24)
        os.environ[FOLDERS] = os.pathsep.join([root, *(str(path.resolve()) for path in models)])
        log.warning(
            "the app is served to others: whoever has its link can read the store, run models and "
            "upload pictures, and nothing is encrypted (see SECURITY.md)"
        )
    if not own:
        names.append(socket.gethostname())
    links = _links(number, port, names, word)
    listening = partial(say, "The app is at", *(f"  {link}" for link in links))
    serve = load("interp.apps.serve:serve")
    serve(number, port, {name.lower() for name in names}, word, listening)


def _links(number: str, port: int, names: list[str], token: str) -> list[str]:
    """Under every name; an address of this machine is one, if not that of all its interfaces."""
    if not ipaddress.ip_address(number).is_unspecified:
        names = [f"[{number}]" if ":" in number else number, *names[1:]]
    return [f"http://{name}:{port}/{'?token=' if token else ''}{token}" for name in names]


def _listening(address: str, port: int) -> str:
    """The number of an address, on which it is possible to listen."""
    if not 1 <= port <= 65535:
        raise UserError(f"--port must be between 1 and 65535, not {port}")
    try:
        if not address:  # for the system: every interface
            raise OSError("it is empty")
        family, *_, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with socket.create_server(place[:2], family=family):
            return str(place[0])
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen on {address}:{port} ({reason}): choose another") from error


app = bound(_explorer)
