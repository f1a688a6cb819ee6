"""Labelled examples of a task (see task_files.py for its file), to test on.

Examples are split by word (or file; names by surname, where the feature is read), so that nothing
is trained on any part of a held-out example. A template's example, and the pair's prompt if it
contains one of the words, is read at its word's last token and has the model's own observable as a
value; a window of code is read at every token but the first (a BOS where the model has one), which
draws attention whatever it is.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import UserError
from ..model.prompting import Prompting
from . import code
from .task_files import Task

WINDOW = 128
"""Tokens of a window of code."""


class Example(NamedTuple):
    """One labelled text."""

    ids: list[int]
    reads: list[int]
    """Positions at which features and probes read it; their scores are averaged."""
    positive: bool
    group: str
    """The word (of a name the surname) or file; a group is never split."""
    template: int = -1
    """Which of the task's templates; -1 for code."""


class Split(NamedTuple):
    """Labelled examples: to train the baselines on, and held out from every method."""

    train: list[Example]
    held_out: list[Example]


def examples(task: Task, prompting: Prompting, seed: int = 0, per_class: int = 150) -> Split:
    """The examples of a task, split by group.

    Two fifths of the words are held out; of code, files hold out `per_class` windows and give as
    many to train on. The words of the task's own pair, and groups that both classes have, stay in
    the training part.

    Raises:
        UserError: no tokenizer; too few words or too little code.
    """
    sides = [
        _windows(source, positive, prompting, seed, per_class)
        if task.sources
        else _filled(task, positive, prompting, seed)
        for positive, source in zip((True, False), task.sources or ("", ""), strict=True)
    ]
    split = Split(*(one + other for one, other in zip(*sides, strict=True)))
    for part in split:
        of_class = Counter(example.positive for example in part)
        if min(of_class[True], of_class[False]) < 4:
            raise UserError(
                f"the task '{task.name}' has fewer than 4 examples of a class: give it more words"
            )
    return split


def _filled(task: Task, positive: bool, prompting: Prompting, seed: int) -> list[list[Example]]:
    words = task.words[0 if positive else 1]
    last = {word: word.split()[-1] for side in task.words for word in side}
    order = sorted({last[word] for word in words})
    random.Random(seed).shuffle(order)
    own = {last[word] for word in words if any(word in prompt for prompt in task.pair)}
    own |= set.intersection(*({last[word] for word in side} for side in task.words))
    order.sort(key=lambda name: name not in own)
    cut = len(order) - 2 * len(order) // 5
    parts = (set(order[:cut]), set(order[cut:]))
    return [
        [
            _fill(template, word, prompting)._replace(template=number, positive=positive)
            for word in sorted(set(words))
            if last[word] in part
            for number, template in enumerate(task.templates)
        ]
        for part in parts
    ]


def _fill(template: str, word: str, prompting: Prompting) -> Example:
    text = template.replace("[WORD]", word)
    end = template.index("[WORD]") + len(word)
    coded = prompting.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    at = max(i for i, (start, _) in enumerate(coded["offset_mapping"]) if start < end)
    ids = prompting.started(coded["input_ids"])
    return Example(ids, [at + len(ids) - len(coded["input_ids"])], True, word.split()[-1])


def pair_reads(task: Task, prompting: Prompting) -> tuple[int, ...]:
    """Where the pair's first prompt is read, as an example with its word would be; () if the two
    prompts do not differ in one of the task's words."""
    prompt = task.pair[0]
    apart = (i for i, (a, b) in enumerate(zip(*task.pair, strict=False)) if a != b)
    differ = next(apart, len(prompt))
    for word in sorted((word for side in task.words for word in side), key=len, reverse=True):
        for match in re.finditer(re.escape(word), prompt):
            if match.start() <= differ < match.end():
                template = f"{prompt[: match.start()]}[WORD]{prompt[match.end() :]}"
                return tuple(_fill(template, word, prompting).reads)
    return ()


def _windows(
    source: str, positive: bool, prompting: Prompting, seed: int, per_class: int
) -> list[list[Example]]:
    files = code.source_files(source)
    random.Random(seed).shuffle(files)
    parts: list[list[Example]] = [[], []]
    for path in files:
        into = min(parts, key=len)  # file by file, so that the parts share none
        if len(into) >= per_class:
            break
        ids, size = prompting.plain(code.text(path)), WINDOW - len(prompting.start)
        starts = list(range(0, len(ids) - size, size))
        random.Random(f"{seed} {path.name}").shuffle(starts)
        for start in starts[: min(3, per_class - len(into))]:
            window = prompting.started(ids[start : start + size])
            into.append(Example(window, list(range(1, WINDOW)), positive, str(path)))
    if min(map(len, parts)) < per_class:
        raise UserError(
            f"the {source} code that is installed fills {min(map(len, parts))} windows, not "
            f"{per_class}: lower --windows or install Python's headers"
        )
    return parts


def draw_pairs(chosen: Sequence[Example], count: int, seed: int) -> list[tuple[Example, Example]]:
    """Random pairs of a positive and a negative example that line up: the same template, filled
    with as many tokens. Fewer than `count` if there are no more."""
    order = list(chosen)
    random.Random(seed).shuffle(order)
    positive, negative = ([e for e in order if e.positive is side] for side in (True, False))
    pairs: list[tuple[Example, Example]] = []
    for one in positive:
        end = one.reads[-1] + 1
        match = next(
            (e for e in negative if e.reads == one.reads and e.ids[end:] == one.ids[end:]), None
        )
        if match is not None and len(pairs) < count:
            negative.remove(match)
            pairs.append((one, match))
    return pairs
