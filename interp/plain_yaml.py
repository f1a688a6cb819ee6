"""YAML files of words: every scalar is the text that was written, and no key comes twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError

LARGEST = 256 << 10
"""Bytes of a file: two seconds of reading at most."""
DEEPEST = 50
"""Lists and mappings in each other."""
MOST = 100_000
"""Values, those that aliases stand for among them."""


def read_yaml(path: Path) -> Any:
    """A file's lists, mappings and texts. To YAML itself `no` is false and 1.10 a number; and of
    two equal keys its loader keeps the last.

    Raises:
        UserError: it cannot be read, is too large or too deep, has aliases (`*name`) of itself or
            of too much, or a mapping has a key twice.
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
        said = ", ".join(filter(None, (error.context, error.problem)))
        return f"line {error.problem_mark.line + 1}: {said}"
    return " ".join(str(error).split()).replace(' in "<unicode string>"', "")


class _Words(yaml.BaseLoader):  # type: ignore[misc]
    """Refuses what is small to write and large to hold: nine lines of aliases can stand for a
    billion values, and a node for itself."""

    depth = 0

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._sizes: dict[int, tuple[int, int]] = {}
        """By the id of a whole node: values in it, and lists and mappings in each other."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._sizes:
                raise _refused(f"*{event.anchor} is in what it stands for", event)
        else:
            self.depth += 1
            if self.depth <= DEEPEST:
                node = super().compose_node(parent, index)
                inner = [self._sizes[id(each)] for each in _inside(node)]
                heights = max((height for _, height in inner), default=0)
                self._sizes[id(node)] = 1 + sum(size for size, _ in inner), 1 + heights
            self.depth -= 1
        values, height = (0, 1) if self.depth >= DEEPEST else self._sizes[id(node)]
        if self.depth + height > DEEPEST:
            raise _refused(f"nested more than {DEEPEST} deep", event)
        if values > MOST:
            raise _refused(f"stands for more than {MOST:,} values", event)
        return node

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        value = super().construct_scalar(node)
        if any("\ud800" <= sign <= "\udfff" for sign in value):
            raise _refused("half of a character (a lone surrogate)", node)
        return value


def _refused(problem: str, where: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)


def _inside(node: yaml.Node | None) -> list[yaml.Node]:
    """The entries of a list; the keys and values of a mapping."""
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _repeated(node: yaml.Node | None) -> Iterator[str]:
    """Keys that some mapping of a document has twice."""
    if isinstance(node, yaml.MappingNode):
        counts = Counter(str(key.value) for key, _ in node.value)
        yield from (key for key, count in counts.items() if count > 1)
    for each in _inside(node):
        yield from _repeated(each)
