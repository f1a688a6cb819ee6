"""`interp models …` and `interp app`."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from typing import Annotated

import tyro
from tyro.extras import SubcommandApp

from ..errors import UserError
from ..runs.store import Store
from .common import Json, Runs, bound, command, print_json, print_table

models = SubcommandApp()


@command(models, "list")
def list_models(json: Json = False) -> None:
    """The models known by name."""
    from ..model import catalog

    rows = [
        {"name": name, "local": catalog.is_local(name), "source": wheel.about}
        for name, wheel in catalog.WHEELS.items()
    ] + [{"name": n, "local": True, "source": source} for n, source in catalog.added().items()]
    if json:
        print_json({"study": "models.list", "run": None, "metrics": {}, "models": rows})
        return
    print_table(["name", "local", "source"], [[str(v) for v in row.values()] for row in rows])


@command(models, "add")
def add_model(
    name: tyro.conf.Positional[str], source: tyro.conf.Positional[str], json: Json = False
) -> None:
    """Give a hub id, a folder or a .gguf file a name, and fetch it."""
    from ..model import catalog
    from ..model.weights import Weights

    Weights(catalog.resolve(source))  # refuse what cannot be opened before it has a name
    folder = catalog.add(name, source)
    found = {"name": name, "folder": str(folder)}
    print_json({"study": "models.add", "run": None, "metrics": {}, **found}) if json else print(
        f"{name}: {folder}"
    )


@command(models, "info")
def model_info(name: tyro.conf.Positional[str], json: Json = False) -> None:
    """Family, sizes and folder of a model (fetched if need be)."""
    from ..model.catalog import resolve
    from ..model.weights import Weights

    folder = resolve(name)
    spec = Weights(folder).spec
    facts = {**vars(spec), "kinds": list(spec.kinds), "folder": str(folder)}
    if json:
        print_json({"study": "models.info", "run": None, "metrics": facts})
    else:
        print_table(["", name], [[key, str(value)] for key, value in facts.items()])


def _explorer(
    runs: Runs = None,
    address: Annotated[str, tyro.conf.arg(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, tyro.conf.arg(help="Port to listen on.")] = 8501,
) -> None:
    """Explore stored runs in the browser."""
    _check_address(address, port)
    found = importlib.util.find_spec("interp.apps.main")
    assert found is not None
    assert found.origin is not None
    root = str(Store(runs).root.resolve())
    options = {"address": address, "port": port, "headless": "true", "fileWatcherType": "none"}
    command = [sys.executable, "-m", "streamlit", "run", found.origin]
    command += [f"--server.{name}={value}" for name, value in options.items()]
    command += ["--browser.gatherUsageStats=false", "--client.toolbarMode=minimal"]
    # in place of this process, so that whoever stops it stops the server
    os.execve(sys.executable, command, os.environ | {"INTERP_RUNS": root})


def _check_address(address: str, port: int) -> None:
    """Streamlit's own complaints are tracebacks."""
    if not 1 <= port <= 65535:
        raise UserError(f"--port must be between 1 and 65535, not {port}")
    try:
        with socket.create_server((address, port)):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot listen on {address}:{port} ({reason}): choose another") from error


explorer = bound(_explorer)
