"""The app's server: Streamlit behind the gate."""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import streamlit as st
from starlette.middleware import Middleware
from uvicorn.config import LOGGING_CONFIG

from interp.apps.gate import Gate
from interp.apps.look import THEME
from interp.apps.uploads import LARGEST


def serve(
    address: str, port: int, hosts: Collection[str], token: str, listening: Callable[[], None]
) -> None:
    """Serve until it is stopped.

    Args:
        hosts, token: as `Gate` takes them.
        listening: called when it listens.
    """

    @asynccontextmanager
    async def announced(_: Any) -> AsyncIterator[None]:
        listening()
        Thread(target=_get_ready, daemon=True).start()
        yield

    page = Path(__file__).with_name("main.py")
    gate = Middleware(Gate, hosts=hosts, token=token, cookie=f"interp-{port}")
    # Streamlit puts the folder of what was started in front of the import path
    sys.argv[:] = [str(page)]
    LOGGING_CONFIG["loggers"]["uvicorn"]["level"] = "WARNING"
    app = st.App(page, middleware=[gate], lifespan=announced)
    try:
        app.run(config=_settings(address, port))
    finally:
        gc.unfreeze()  # or Triton complains of what the collector left alone, line after line


def _get_ready() -> None:
    """Import what most pages need while nobody has asked for one; none of it imports torch. The
    garbage collector, which Streamlit calls after every click, then leaves it alone."""
    for module in ("interp.apps.atlas", "plotly.graph_objects", "pyarrow.dataset"):
        import_module(module)
    gc.freeze()


def _settings(address: str, port: int) -> dict[str, Any]:
    """Streamlit's; those of safety are said, since it also reads .streamlit/ in the current
    folder."""
    return {
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",
        "global.developmentMode": False,
        "logger.hideWelcomeMessage": True,  # to name its address it asks a server outside
        "server.address": address,
        "server.enableAgentApi": False,
        "server.enableCORS": True,
        "server.enableStaticServing": False,
        "server.enableXsrfProtection": True,
        "server.fileWatcherType": "none",
        "server.headless": True,
        "server.maxUploadSize": LARGEST,
        "server.port": port,
        **THEME,
    }
