"""Folders of models that are made once, each whole or not at all.

A folder under `home()/models` is complete: it is made under a temporary name and renamed when it
is whole, so an interrupted download or conversion leaves nothing half-made (its remains are swept
by the next attempt).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from ..errors import UserError
from ..progress import waiting
from .files import home


def built(name: str, build: Callable[[Path], None]) -> Path:
    """`home()/models/<name>`, made by `build(folder)` if it is not there yet.

    Raises:
        UserError: the folder of models cannot be written.
    """
    models = home() / "models"
    final = models / name
    if final.is_dir():
        return final
    try:
        models.mkdir(parents=True, exist_ok=True)
        with FileLock(models / f".{name}.lock"):
            if final.is_dir():  # another process made it while this one waited
                return final
            for remains in models.glob(f".{name}.making-*"):
                shutil.rmtree(remains)
            with tempfile.TemporaryDirectory(prefix=f".{name}.making-", dir=models) as making:
                out = Path(making) / "model"
                out.mkdir()
                build(out)
                out.rename(final)
    except OSError as error:
        raise UserError(f"cannot make {final}: {error.strerror}; set INTERP_HOME") from error
    return final


def in_a_process(module: list[str]) -> list[str]:
    """The command that runs a Python module with its arguments in a process of its own.

    The current folder is not on its import path: a torch.py or pip.py that lies there is not run.
    """
    return [sys.executable, "-P", "-m", "interp.launch", *module]


def run_module(module: list[str], doing: str, failure: str) -> None:
    """Run a Python module behind a spinner; where it fails, its last error line says why."""
    with waiting(doing):
        done = subprocess.run(in_a_process(module), capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        reason = errors[-1] if errors else f"{module[0]} ended with code {done.returncode}"
        raise UserError(f"{failure}: {reason}")
