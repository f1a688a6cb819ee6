"""YAML files of words: every scalar is the text that was written, and no key comes twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError

LARGEST = 512 << 10
"""Bytes of a file: two seconds of reading at most."""
DEEPEST = 50
"""Lists and mappings in each other."""


def read_yaml(path: Path) -> Any:
    """A file's lists, mappings and texts. To YAML itself `no` is false and 1.10 a number; and of
    two equal keys its loader keeps the last.

    Raises:
        UserError: it cannot be read, is too large or too deep, refers to itself (`*name`), or a
            mapping has a key twice.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} is larger than {LARGEST >> 10} KiB: give a shorter file")
        loader = _Words(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        twice = next(_repeated(node), None)
        content = None if node is None else loader.construct_document(node)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text: convert it") from error
    except yaml.YAMLError as error:
        raise UserError(f"cannot read {path}: {_reason(error)}: mend it") from error
    if twice is not None:
        raise UserError(f"{path} has '{twice}' twice: mend it")
    return content


def _reason(error: yaml.YAMLError) -> str:
    """What is wrong and the line it stands in; the text around it can be thousands of signs."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split()).replace(' in "<unicode string>"', "")


class _Words(yaml.BaseLoader):  # type: ignore[misc]
    """Refuses what is small to write and large to hold: nine lines of aliases can stand for a
    billion values, and a node for itself."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem=f"write out what *{event.anchor} stands for", problem_mark=event.start_mark
            )
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.MarkedYAMLError(
                problem=f"nested more than {DEEPEST} deep", problem_mark=event.start_mark
            )
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        value = super().construct_scalar(node)
        if any("\ud800" <= sign <= "\udfff" for sign in value):
            raise yaml.MarkedYAMLError(
                problem="half of a character (a lone surrogate)", problem_mark=node.start_mark
            )
        return value


def _repeated(node: yaml.Node | None) -> Iterator[str]:
    """Keys that some mapping of a document has twice."""
    if isinstance(node, yaml.SequenceNode):
        for entry in node.value:
            yield from _repeated(entry)
    elif isinstance(node, yaml.MappingNode):
        counts = Counter(str(key.value) for key, _ in node.value)
        yield from (key for key, count in counts.items() if count > 1)
        for _, value in node.value:
            yield from _repeated(value)
