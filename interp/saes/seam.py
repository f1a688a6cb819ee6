"""sae-lens' loaders of published SAEs, reading files on the disk where they would ask the hub."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

_LOADERS = "sae_lens.loading.pretrained_sae_loaders"


def loaders_of(files: Sequence[Path]) -> Any:
    """A copy of sae-lens' module of loaders for which the hub has these files only, each by its
    name, in whatever repository and folder. The module that all others see stays as it is.

    What the copy raises for another file is `EntryNotFoundError`, as the hub does.
    """
    from huggingface_hub.errors import EntryNotFoundError
    from safetensors import safe_open

    by_name = {file.name: file for file in files}

    def download(repo_id: str, filename: str, **_: Any) -> str:
        name = Path(filename).name
        if name not in by_name:
            raise EntryNotFoundError(f"no file {name}")
        return str(by_name[name])

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        with safe_open(download(repo_id, filename), "pt") as file:
            return {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118

    spec = find_spec(_LOADERS)
    assert spec is not None
    assert spec.loader is not None
    module: Any = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.hf_hub_download = download
    module.get_safetensors_tensor_shapes = shapes
    return module
