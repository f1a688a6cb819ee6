"""Work that goes on in a thread while what it made before is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def one_ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items in their order: while one is used, a thread makes the next, and no further
    one. It pays where making or using them leaves the interpreter free, as reading a file does."""
    made = iter(items)
    with ThreadPoolExecutor(1) as beside:
        following = beside.submit(lambda: list(islice(made, 1)))
        while item := following.result():
            following = beside.submit(lambda: list(islice(made, 1)))
            yield item[0]
