"""Prints import-linter's contracts for the packages there are: `python tests/house/layers.py`.

A new analysis needs no line here: whatever package of interp/ is no part of the house is one.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
HOUSE = (
    "launch",
    "apps | cli",
    "report",
    "analyses",
    "microscope",
    "circuits",
    "{analyses}",
    "directions",
    "lens | saes",
    "plots | runs",
    "text",
    "columns",
    "model",
    "columns_known | plain_json | plain_path | plain_tables | plain_tensors | plain_yaml",
    "probes",
    "kernels",
    "compiled | plugins",
    "errors | lazy | progress",
    "webpage",
    "plain_text | plain_numbers",
)
"""Higher lines may import lower ones, never the other way round."""
ELSEWHERE = ("apps", "data", "kernels", "probes")
"""Packages whose folders stand at the top level."""


def analyses() -> list[str]:
    """The packages that the house does not name."""
    named = {name for line in HOUSE for name in line.split(" | ")}
    found = {file.parent.name for file in (ROOT / "interp").glob("*/__init__.py")}
    return sorted(found - named)


def contracts() -> str:
    layers = [line.format(analyses=" | ".join(analyses())) for line in HOUSE]
    every = sorted({name for line in layers for name in line.split(" | ")} - {"model"})
    return "\n".join(
        [
            "[importlinter]",
            "root_package = interp",
            "include_external_packages = True",
            "[importlinter:contract:layers]",
            "name = Imports point one way",
            "type = layers",
            "layers =",
            *("    " + " | ".join(f"interp.{n}" for n in line.split(" | ")) for line in layers),
            "[importlinter:contract:backends]",
            "name = TransformerLens and nnsight stay behind the backends",
            "type = forbidden",
            "allow_indirect_imports = True",
            "source_modules =",
            *(f"    interp.{name}" for name in every),
            "forbidden_modules =",
            "    nnsight",
            "    transformer_lens",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(contracts() + "\n")
