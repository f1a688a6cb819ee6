"""The command that makes a run, from its config: for what is damaged, unfinished or to be repeated.

A config may come from someone else. What is made of it is a command of a registered study with its
options, quoted for a shell.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..plain_json import read_json
from .fit import class_of


def program() -> str:
    """How `interp` is called here: by its name where that finds the one of this Python."""
    own = Path(sys.executable).with_name("interp")
    found = shutil.which("interp")
    if not own.exists() or (found and Path(found).samefile(own)):
        return "interp"
    return os.path.relpath(own) if own.is_relative_to(Path.cwd()) else str(own)


def shell_line(words: Sequence[str]) -> str:
    """The words of an `interp` command, as they are typed here."""
    return shlex.join([program(), *words[1:]])


def config_class(study: str) -> Any:
    """The config class of a registered study.

    Raises:
        UserError: there is no such study.
    """
    if kind := class_of(study):
        return kind
    raise UserError(
        f"no study '{study}' is installed here: install the package that it is of, or the version "
        "of the workbench that made the run"
    )


def settings(kind: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """A config's values without the defaults, in the order of its fields; lists become tuples."""
    given = {}
    for field in fields(kind):
        usual = None if field.default is MISSING else field.default
        value = config.get(field.name, usual)  # an earlier version's run may lack it
        value = tuple(value) if isinstance(value, list) else value
        if value != usual:
            given[field.name] = value
    return given


def command(study: str, config: Mapping[str, Any], *more: str) -> list[str]:
    """The words of the command that makes a study's run; defaults are left out.

    Raises:
        UserError: there is no such study.
    """
    kind = config_class(study)
    about = {field.name: field for field in fields(kind)}
    named, positional = [], []
    for name, value in settings(kind, config).items():
        words = list(map(str, value)) if isinstance(value, tuple) else [str(value)]
        option = name.replace("_", "-")
        if about[name].metadata.get("positional"):
            positional += words
        elif isinstance(value, bool):
            named.append(f"--{option}" if value else f"--no-{option}")
        else:
            # a value that looks like an option is joined to its own by "="
            joined = len(words) == 1 and words[0].startswith("-")
            named += [f"--{option}={words[0]}"] if joined else [f"--{option}", *words]
    return ["interp", *study.split("."), *positional, *named, *more]


def store_words(root: Path) -> list[str]:
    """The option that names a store, where a command that is not told looks elsewhere."""
    # the app sets $INTERP_RUNS, which whoever copies a command from it has not
    usual = {Path("runs").resolve(), Path(os.environ.get("INTERP_RUNS", "runs")).resolve()}
    return [] if usual == {root.resolve()} else ["--runs", str(root.resolve())]


def again(folder: Path, *more: str) -> str:
    """What to do where a run is damaged; `run.json` may say which command it is of."""
    own = command_of(folder, *more)
    made = f"`{own}`" if own else " with ".join(["its own command", *more])
    return f"{made} makes it again, or ask its sender for it"


def command_of(folder: Path, *more: str) -> str:
    """The command that makes the run in a folder, finished or not, as a line for a shell; "" where
    `run.json` does not say which."""
    try:
        plan = read_json(folder / "run.json", "")
        study, config = plan["study"], plan["config"]
        if (folder.parent.name, folder.name) == (study, plan["key"]):
            where = store_words(folder.parent.parent)
        else:
            where = ["--out", str(folder)]
        return shell_line(command(study, config, *where, *more))
    except (UserError, KeyError, TypeError, AttributeError):
        return ""
