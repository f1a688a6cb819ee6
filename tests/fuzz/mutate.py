"""Damage to the bytes of any file, and to the values of JSON and YAML."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

Damage = tuple[bytes, str]


def damaged(content: bytes, suffix: str, rng: random.Random) -> Damage:
    """The content with one to three damages, and what they are.

    Args:
        suffix: of the file's name. JSON and YAML are damaged in their values three times of four,
            safetensors in their header every second time, .argv by the word, one a line.
    """
    ways: list[Callable[[bytes, random.Random], Damage]] = [_bytes]
    if suffix == ".json":
        ways = [_values, _values, _values, _bytes]
    elif suffix in (".yaml", ".yml"):
        ways = [_lines, _lines, _lines, _bytes]
    elif suffix == ".safetensors":
        ways = [_header, _bytes]
    elif suffix == ".argv":
        ways = [_words]
    said = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        content, how = rng.choice(ways)(content, rng)
        said.append(how)
    return content, "; ".join(said)


def _bytes(content: bytes, rng: random.Random) -> Damage:
    """Flip, cut, double, insert, or overwrite some bytes."""
    at = rng.randrange(len(content) + 1)
    # what a format says of itself is at its ends
    at = rng.choice((at, min(at, rng.randrange(256)), max(0, len(content) - rng.randrange(256))))
    size = rng.choice((1, 2, 4, 8, 64, 4096))
    some = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size), content[at : at + size]))
    kind = rng.randrange(5)
    if kind == 0 and content:
        place = min(at, len(content) - 1)
        flipped = bytes([content[place] ^ 1 << rng.randrange(8)])
        return content[:place] + flipped + content[place + 1 :], f"a bit of byte {place} flipped"
    if kind == 1:
        return content[:at], f"cut at {at} of {len(content)}"
    if kind == 2:
        return content[:at] + some + content[at:], f"{size} bytes put in at {at}"
    if kind == 3:
        return content[:at] + some + content[at + size :], f"{size} bytes at {at} replaced"
    return content[:at] + content[at + size :], f"{size} bytes taken out at {at}"


def _nasty(rng: random.Random) -> Any:
    """A value that nobody expects, and that may cost memory or time."""
    return rng.choice(
        (
            *(None, True, False, 0, -1, 1, 2, 3, 1 << 31, 1_000_000_000, 1 << 63, 10**40, -(10**9)),
            *(0.5, -0.0, 1e308, float("nan"), float("inf")),
            *("", "x", "0", "../../x", "/etc/passwd", "a/b", "\0", "é" * 300, "x" * 100_000),
            *("\ud800", "{}", "float32", "True", "${HOME}", "~nobody/x"),
            *([], {}, [[]], [None], {"": None}, [1, "a"], list(range(1000)), ["x"] * 3),
        )
    )


def _values(content: bytes, rng: random.Random) -> Damage:
    """Replace, take out, double or nest a value of a JSON file."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return _bytes(content, rng)
    places = list(_places(tree))
    if not places or not rng.randrange(12):
        return _whole(rng)
    holder, key = rng.choice(places)
    kind = rng.randrange(8)
    if kind == 0:
        del holder[key]
        how = "taken out"
    elif kind == 1 and isinstance(holder, list):
        holder.extend([holder[key]] * rng.choice((1, 1000)))
        how = "repeated"
    elif kind == 2 and isinstance(holder, dict):
        holder[rng.choice(("x" * 300, "../x", "", f"{key} "))] = holder.pop(key)
        how = "renamed"
    elif kind == 3 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = rng.choice(
            (holder[key] * 1000, holder[key] + 1, -holder[key], f"{holder[key]}")
        )
        how = f"is {holder[key]}"
    elif kind == 4:
        other, name = rng.choice(places)
        holder[key] = json.loads(json.dumps(other[name])) if name in _keys(other) else None
        how = f"has the value of {name}"
    else:
        holder[key] = _nasty(rng)
        how = f"is {repr(holder[key])[:40]}"
    return json.dumps(tree).encode("utf-8", "surrogatepass"), f"{key} {how}"


def _words(content: bytes, rng: random.Random) -> Damage:
    """Replace, take out, double or swap words of a command line."""
    words = content.decode(errors="replace").split("\n")
    at, other = rng.randrange(len(words)), rng.randrange(len(words))
    kind = rng.randrange(8)
    if kind == 0:
        how = f"without '{words[at][:40]}'"
        del words[at]
    elif kind == 1:
        words[at:at] = [words[other]] * rng.choice((1, 1, 1000))
        how = f"'{words[at][:40]}' again"
    elif kind == 2:
        words[at], words[other] = words[other], words[at]
        how = f"'{words[at][:40]}' and '{words[other][:40]}' swapped"
    else:
        words[at] = str(_nasty(rng)).replace("\0", "\\0")
        how = f"word {at} is {words[at][:40]!r}"
    return "\n".join(words or [""]).encode("utf-8", "replace"), how


def _whole(rng: random.Random) -> Damage:
    """A file that has nothing to do with what is expected."""
    deep = rng.choice((1_000, 100_000))
    return rng.choice(
        (
            (b"[" * deep + b"]" * deep, f"{deep} lists in each other"),
            (b'{"a":' * deep + b"1" + b"}" * deep, f"{deep} mappings in each other"),
            (b"null", "null"),
            (b"[]", "an empty list"),
            (b"{}", "an empty mapping"),
            (b"", "empty"),
            (b'"x"', "a string"),
            (b"\xff\xfe\x00", "no UTF-8"),
            (b"\xef\xbb\xbf{}", "a byte order mark"),
            (b'{"a": 1, "a": 2}', "a key twice"),
            (b"9" * 10_000, "a number of 10,000 digits"),
        )
    )


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key) of a tree."""
    found: list[tuple[Any, Any]] = []
    todo = [tree]
    while todo:
        holder = todo.pop()
        for key in _keys(holder):
            found.append((holder, key))
            todo.append(holder[key])
    return found


def _keys(holder: Any) -> list[Any]:
    if isinstance(holder, dict):
        return list(holder)
    return list(range(len(holder))) if isinstance(holder, list) else []


def _header(content: bytes, rng: random.Random) -> Damage:
    """Damage the JSON header of a safetensors file, its length made to fit."""
    size = int.from_bytes(content[:8], "little")
    if not 0 < size <= len(content) - 8:
        return _bytes(content, rng)
    header, how = _values(content[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + content[8 + size :], f"header: {how}"


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Nine to the ninth values in nine lines."""


def _lines(content: bytes, rng: random.Random) -> Damage:
    """Damage a line of a YAML file, or replace it all."""
    lines = content.decode(errors="replace").splitlines()
    kind = rng.randrange(9)
    if kind == 0 or not lines:
        text, how = rng.choice(
            (
                (ALIASES, "aliases of aliases"),
                ("a: &a [*a]\n", "an alias of itself"),
                ("[" * 50_000, "50,000 lists in each other"),
                ("a: " * 2_000, "mappings in a line"),
                ("!!python/object/apply:os.system [true]", "an object of Python"),
                ("<<: 1\n", "a merge of a number"),
                ("? [a, b]\n: 1\n", "a key that is a list"),
                ("a: 1\na: 2\n", "a key twice"),
                ("", "empty"),
                ("%YAML 9.9\n---\n- x", "of another version"),
                ("2001-99-99\n", "no date"),
            )
        )
        return text.encode(), how
    at = rng.randrange(len(lines))
    line = lines[at]
    if kind == 1:
        lines.insert(at, line)
        how = "doubled"
    elif kind == 2:
        del lines[at]
        how = "taken out"
    elif kind == 3:
        lines[at] = rng.choice(("  ", "\t", "- ", "    - ")) + line
        how = "moved in"
    elif kind == 4:
        lines[at] = line.lstrip()
        how = "moved out"
    elif ":" in line:
        value = json.dumps(_nasty(rng))
        lines[at] = f"{line.split(':', 1)[0]}: {value}"
        how = f"is {value[:40]}"
    else:
        lines[at] = f"- {json.dumps(_nasty(rng))[:200]}"
        how = "replaced"
    return "\n".join(lines).encode("utf-8", "surrogatepass"), f"line {at} {how}"
