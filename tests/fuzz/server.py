"""Runs calls in children of a process that has imported what is heavy, one child a call.

Started by `harness.Server`. A request is a line of JSON on standard input, an answer one on
standard output. A child that is killed, hangs or takes memory harms nobody.
"""

import gc
import importlib
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

from interp.errors import UserError, readable

from ..conftest import look_through_packages_once

HEAVY = (
    *("torch", "transformers", "pandas", "pyarrow.parquet", "pyarrow.pandas_compat", "duckdb"),
    *("interp.cli", "rich.console", "rich.table", "tyro._backends._tyro_backend", "jaxtyping"),
    *("numba", "scipy.stats", "PIL.Image", "safetensors.torch", "platformdirs", "typeguard"),
    *("interp.apps.home", "interp.cli.directions_model", "interp.cli.models", "interp.cli.neurons"),
    *("interp.directions.compare", "interp.kernels", "interp.lens.files", "interp.saes.open"),
    *("interp.directions.decoding", "interp.linearscope.networks", "interp.neurons.making"),
    *("interp.cli.obsprop", "interp.cli.runs", "interp.model.backends.native"),
    "streamlit.testing.v1",
    *("tests.fuzz.calls", "tests.fuzz.openers"),
)
MOST_ADDRESSES = 16 << 30
"""Of a child, in bytes, so that it cannot take the machine's memory before it is seen."""


def serve() -> None:
    for name in (*HEAVY, *sys.argv[1:]):
        importlib.import_module(name)
    importlib.import_module("numba").njit(lambda: 0)()  # it imports half of itself as it compiles
    look_through_packages_once()
    importlib.import_module("streamlit.components.v2.manifest_scanner").scan_component_manifests()
    gc.freeze()  # a child that looks through what it has from here would copy all of it
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_run(**json.loads(line))), file=answers, flush=True)


def _run(
    needs: list, call: str, arguments: list, folder: str, seconds: float, environment: dict
) -> dict:
    """Call `module:function` in a child; how it ended, what it printed, seconds and bytes."""
    for name in needs:
        importlib.import_module(name)
    out, err = Path(folder, ".stdout"), Path(folder, ".stderr")
    for path in (out, err):  # there even if the child is killed before it has begun
        path.write_bytes(b"")
    before = _resident()
    began = time.monotonic()
    child = os.fork()
    if not child:
        _child(call, arguments, folder, out, err, environment)
    late = list[int]()
    killing = threading.Timer(seconds, lambda: late.append(child) or _kill(child))
    killing.start()
    _, status, usage = os.wait4(child, 0)
    killing.cancel()
    killing.join()
    return {
        "code": os.waitstatus_to_exitcode(status),
        "hung": bool(late),
        "bytes": max(0, usage.ru_maxrss * 1024 - before),
        "seconds": time.monotonic() - began,
        "busy": usage.ru_utime + usage.ru_stime,
        "out": out.read_text(errors="replace"),
        "err": err.read_text(errors="replace"),
    }


def _kill(child: int) -> None:
    """With all that it has started; it may not have a group of its own yet."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        with suppress(ProcessLookupError):  # it has ended just now
            os.kill(child, signal.SIGKILL)


def _child(
    call: str, arguments: list, folder: str, out: Path, err: Path, environment: dict
) -> None:
    """Never returns."""
    code = 1
    try:
        os.setsid()
        for number, path in ((0, Path(os.devnull)), (1, out), (2, err)):
            flags = os.O_RDONLY if not number else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(path, flags), number)
        resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.environ.update(environment)
        os.chdir(folder)
        module, name = call.split(":")
        code = getattr(importlib.import_module(module), name)(*arguments) or 0
    except UserError as error:
        sys.stderr.write(f"interp: {readable(str(error))}\n")
        code = 2
    except BaseException:  # noqa: BLE001 - whatever comes is what is asked for
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _resident() -> int:
    """Bytes of memory that this process holds now, of which a child begins with a copy."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    serve()
