"""Stages the docs for mkdocs: pages with their generated parts filled in, and what they link to.

usage: python docs/generate.py [BUILD]      (`make docs`; BUILD is build/)

A page says where a generated part goes, on a line of its own, `<!-- generated: WHAT -->`; a line
before it may tell the readers of the repository (EMPTY), which the site lacks:

    commands            the --help of every command
    tables              what every study writes, from the docstrings of the modules that write it
    docstring FILE      the docstring of one module
    task                what a task's file holds, as it is checked

Pages and files keep their places in the repository, but docs/ itself is the root of the site.
"""

from __future__ import annotations

import ast
import io
import os
import posixpath
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from pathlib import Path

from interp.cli import parse
from interp.obsprop.task_files import schema

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("docs/*.md", "docs/*.css", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)[^)\s#]+")
"""The path in a link to a file of the repository."""
EMPTY = "*Empty in the repository: `make docs` fills it in from the code.*"
PLACE = re.compile(
    rf"^(?:{re.escape(EMPTY)}\n\n)?<!-- generated: (commands|tables|docstring|task) ?(\S*) -->$",
    re.MULTILINE,
)
WRITTEN = re.compile(r"(Written (to|by) |Tables?\b|Parts of the run).*[:;`]|`\S+\.parquet`")
"""How the part of a module's docstring begins that says what the module writes."""


def commands() -> str:
    """A section for every command, with its --help."""
    return "\n".join(
        f"{'#' * min(len(words) + 1, 3)} interp {' '.join(words)}\n\n```text\n{text}\n```\n"
        for words, text in helps()
        if words
    )


def helps(*words: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """The command of these words and every one below it, with their helps."""
    shown = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # tyro draws what its output can show
    os.environ.update(COLUMNS="100", NO_COLOR="1", TERM="dumb")
    with redirect_stdout(shown), suppress(SystemExit):
        parse([*words, "--help"])
    shown.seek(0)
    text = shown.read()
    yield words, without_frames(text)
    for name in re.findall(r"^│ +• (\S+)", text, re.MULTILINE):
        yield from helps(*words, name)


def without_frames(text: str) -> str:
    """tyro's help without the frames; their titles stay as headings."""
    lines = []
    for line in text.strip().splitlines():
        if line.startswith("╭"):
            lines.append(line.strip("╭─╮ ") + ":")
        elif set(line) <= set("│─╰╯ "):
            lines.append("")
        else:
            lines.append(re.sub(r"^│ (.*)│$", r"    \1", line).rstrip())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def tables() -> str:
    """A section for every module that writes tables, by folder."""
    folders: dict[str, list[str]] = {}
    for file in sorted((ROOT / "interp").glob("*/*.py")):
        if text := written(file):
            studies = re.findall(r'^    STUDY: ClassVar\[str\] = "(.+)"', file.read_text(), re.M)
            name = ", ".join(studies) or f"{file.parent.name}: {file.stem}"
            place = file.relative_to(ROOT)
            section = f"#### {name}\n\n[{place}](../{place})\n\n```text\n{text}\n```\n"
            folders.setdefault(file.parent.name, []).append(section)
    return "\n".join(f"### {name}\n\n" + "\n".join(parts) for name, parts in folders.items())


def written(file: Path) -> str:
    """What a module says that it writes, with what it refers to in its neighbours' docstrings;
    empty if it writes nothing."""
    paragraphs = docstring(file).split("\n\n")
    first = next((i for i, text in enumerate(paragraphs) if WRITTEN.match(text)), None)
    if first is None:
        return ""
    text = "\n\n".join(paragraphs[first:])
    mentioned = re.findall(r"\b([a-z_]+)\.([a-z_]+)\b|\bas `([a-z_]+)`", text)
    for module, function, whole in dict.fromkeys(mentioned):
        other = file.with_name(f"{module or whole}.py")
        if other.exists() and not (function == "py" and written(other)):
            text += said(other, function)
    return text


def task() -> str:
    return f"```yaml\n{schema()}```"


def docstring(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text())) or ""


def said(file: Path, name: str) -> str:
    """What a module ("py"), one of its functions, or ("") those that give a table say of it."""
    functions = [
        node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    docs = {node.name: ast.get_docstring(node) or "" for node in functions} | {
        "py": docstring(file)
    }
    tables = [f.name for f in functions if f.returns and ast.unparse(f.returns) == "pd.DataFrame"]
    chosen = [name] if name else tables
    texts = {key: docs[key].partition("\n\nRaises:")[0] for key in chosen if key in docs}
    return "".join(f"\n\n{file.stem}.{key}:\n{text}" for key, text in texts.items())


def filled(page: Path) -> str:
    """A page with its generated parts."""

    def part(match: re.Match[str]) -> str:
        if match[1] == "docstring":
            return f"```text\n{docstring(ROOT / match[2])}\n```"
        return {"commands": commands, "tables": tables, "task": task}[match[1]]()

    return PLACE.sub(part, page.read_text())


def pages() -> list[Path]:
    return sorted(page for pattern in PAGES for page in ROOT.glob(pattern))


def staged(file: Path) -> str:
    """Where a file of the repository is in the site."""
    return file.relative_to(ROOT).as_posix().removeprefix("docs/")


def stage(site: Path) -> None:
    """Write all pages below a folder, and every file that they link to."""
    waiting, done = pages(), set()
    while waiting:
        file = waiting.pop()
        if file in done:
            continue
        done.add(file)
        out = site / staged(file)
        out.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix != ".md":
            shutil.copyfile(file, out)
            continue

        def moved(link: re.Match[str], page: Path = file) -> str:
            target = (page.parent / link[0]).resolve()
            waiting.append(target)
            return posixpath.relpath(staged(target), posixpath.dirname(staged(page)) or ".")

        out.write_text(LINK.sub(moved, filled(file)))


def lay_out(folder: Path) -> None:
    """The package as it installs, for the Python reference."""
    for name in ("interp", "kernels", "probes"):
        inside = folder / "interp" / ("" if name == "interp" else name)
        shutil.copytree(ROOT / name, inside, ignore=shutil.ignore_patterns("__pycache__"))


if __name__ == "__main__":
    build = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build"
    for name, make in (("docs", stage), ("api", lay_out)):
        shutil.rmtree(build / name, ignore_errors=True)
        make(build / name)
