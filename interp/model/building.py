"""Folders of models that are made once, each whole or not at all.

A folder under `home()/models` is complete: it is made under a temporary name and renamed when it
is whole, so an interrupted download or conversion leaves nothing half-made (its remains are swept
by the next attempt).
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
            making = models / f".{name}.making-{secrets.token_hex(4)}"
            making.mkdir()
            try:
                build(making)
                making.rename(
                    final
                )  # at once: what a kill leaves is swept only as long as it lacks
            finally:
                shutil.rmtree(making, ignore_errors=True)
    except OSError as error:
        raise UserError(f"cannot make {final}: {error.strerror}; set INTERP_HOME") from error
    return final


def run_helper(module: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a Python module with its arguments in a process of its own, which ends with this one,
    killed or not: it must not write on in a folder that the next attempt has swept.

    The current folder is not on its import path: a torch.py or pip.py that lies there is not run.

    Args:
        options: `subprocess.run`'s.
    """
    theirs, ours = os.pipe()  # its end of the pipe tells it when this process has closed the other
    try:
        command = [sys.executable, "-P", "-m", "interp.launch", str(theirs), *module]
        return subprocess.run(command, text=True, pass_fds=(theirs,), check=False, **options)
    finally:
        os.close(theirs)
        os.close(ours)


def run_module(module: list[str], doing: str, failure: str) -> None:
    """Run a Python module behind a spinner; where it fails, its last error line says why."""
    with waiting(doing):
        done = run_helper(module, capture_output=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        reason = errors[-1] if errors else f"{module[0]} ended with code {done.returncode}"
        raise UserError(f"{failure}: {reason}")
