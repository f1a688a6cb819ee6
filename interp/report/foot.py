"""The foot of a report: what made it, of which model and runs, and what to cite."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from .. import __version__
from ..citing import citation
from ..runs.store import Run
from ..webpage import text


def foot(runs: Sequence[Run]) -> str:
    """The markup."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    made = _list({"Written": f"{now} by interp {__version__}"})
    each = "".join(_list(about(run)) for run in runs)
    cited = dict.fromkeys(part for run in runs for part in citation(run).strip().split("\n\n"))
    bibtex = f"<h3>To cite</h3><pre>{text_lines(chr(10).join(cited))}</pre>" if cited else ""
    return f"<footer><h2>About this file</h2>{made}{each}{bibtex}</footer>"


def about(run: Run) -> dict[str, str]:
    """A run's facts by name."""
    manifest = run.manifest
    model = str(run.config.get("model", ""))
    prints = manifest.get("fingerprints", {})
    packages = manifest.get("packages", {})
    facts = {
        "Run": f"{run.study} {manifest['key']}, finished {manifest['finished']}",
        "Model": model,
        "Fingerprint of the weights": str(prints.get("model", "")),
        "Device": str(manifest.get("device", "")),
        "Packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
    }
    return {name: value for name, value in facts.items() if value}


def _list(facts: dict[str, str]) -> str:
    pairs = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in facts.items())
    return f"<dl>{pairs}</dl>"


def text_lines(lines: str) -> str:
    """Lines of a text, as markup that keeps their ends."""
    return "\n".join(map(text, lines.replace("\r\n", "\n").split("\n")))
