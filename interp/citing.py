"""What to cite for a run, as BibTeX: its method, its model, the workbench, and the run itself."""

from __future__ import annotations

import re
from typing import Any

from . import __version__
from .analyses import analyses
from .model import catalog
from .papers import Paper
from .plain_text import printable
from .runs.store import Run

_SPECIAL = {sign: f"\\{sign}" for sign in "&%$#_"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "{": r"\textbraceleft{}",  # BibTeX counts braces, those behind a backslash too
    "}": r"\textbraceright{}",
}
"""What TeX reads as its own, and how it is written."""


def citation(run: Run) -> str:
    """BibTeX entries, from the registry and the run's manifest."""
    entries = [_paper(paper) for paper in papers(run.study)]
    config, manifest = run.config, run.manifest
    if model := str(config.get("model", "")):
        entries.append(_model(model, manifest.get("fingerprints", {}).get("model", "")))
    made_by = manifest.get("packages", {}).get("interp-workbench", "")
    entries.append(
        _entry(
            "software",
            "interp-workbench",
            title="interp: a mechanistic interpretability workbench",
            author="{The interp workbench authors}",
            version=made_by or __version__,
        )
    )
    version = "" if made_by else ", of a workbench whose version it does not record"
    entries.append(
        _entry(
            "misc",
            f"run-{manifest['key']}",
            title=f"{run.study}{f' of {model}' if model else ''}",
            howpublished="A run of the interp workbench",
            year=str(manifest["finished"])[:4],
            note=f"key {manifest['key']}, study version {manifest.get('version', '?')}{version}",
        )
    )
    return "\n\n".join(entries) + "\n"


def papers(study: str) -> list[Paper]:
    """The papers of a study's method."""
    entry = analyses().get(study.partition(".")[0])
    every = entry.papers if entry else ()
    return [paper for paper in every if not paper.studies or study in paper.studies]


def _paper(paper: Paper) -> str:
    kind = "inproceedings" if paper.booktitle else "misc"
    archive = {"eprint": paper.eprint, "archiveprefix": "arXiv"} if paper.eprint else {}
    fields = {"author": paper.author, "year": paper.year, "booktitle": paper.booktitle}
    return _entry(kind, paper.key, title=paper.title, **fields, **archive)


def _model(name: str, fingerprint: str) -> str:
    known = catalog.WHEELS.get(name)
    source = known.about if known else catalog.added().get(name, "")
    key = re.sub(r"[^\w.-]+", "-", name).strip("-")
    note = f"sha256 of the weights: {fingerprint}" if fingerprint else ""
    return _entry("misc", f"model-{key}", title=name, howpublished=source, note=note)


def _entry(kind: str, key: str, **fields: Any) -> str:
    """An entry; empty fields are left out, and what TeX reads as its own is escaped."""
    said = {name: str(value) for name, value in fields.items() if value}
    lines = [f"  {name} = {{{_text(name, value)}}}" for name, value in said.items()]
    return f"@{kind}{{{key},\n" + ",\n".join(lines) + "\n}"


def _text(name: str, value: str) -> str:
    """Braces keep a title's capitals, and an institution's name in one piece."""
    if name == "author":
        return value
    escaped = "".join(_SPECIAL.get(sign, sign) for sign in printable(value))
    return f"{{{escaped}}}" if name == "title" else escaped
