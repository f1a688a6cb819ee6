"""YAML files of words: every scalar is the text that was written, and no key comes twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError


def read_yaml(path: Path) -> Any:
    """A file's lists, mappings and texts. To YAML itself `no` is false and 1.10 a number; and of
    two equal keys its loader keeps the last.

    Raises:
        UserError: it cannot be read, or a mapping has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        loader = yaml.BaseLoader(text)
        node = loader.get_single_node()
        twice = next(_repeated(node), None)
        content = None if node is None else loader.construct_document(node)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot read {path}: {reason}") from error
    if twice is not None:
        raise UserError(f"{path} has '{twice}' twice: mend it")
    return content


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
