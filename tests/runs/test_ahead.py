"""What is made a step ahead: the same items, one at most, and whatever goes wrong with them."""

from threading import Barrier, current_thread, main_thread

import pytest

from interp.runs.ahead import one_ahead


def test_the_next_is_made_while_one_is_used_and_no_further_one():
    both, made = Barrier(2), []

    def items():
        for number in range(5):
            assert current_thread() is not main_thread()
            if number:
                both.wait(120)
            made.append(number)
            yield number

    used = []
    for number in one_ahead(items()):
        used.append(number)
        if number < 4:
            both.wait(120)  # the next one is under way
        assert len(made) - len(used) <= 1
    assert used == list(range(5))
    assert list(one_ahead([])) == []


def test_a_mistake_comes_after_what_was_made_before_it():
    def items():
        yield from "ab"
        raise OSError("the disk")

    used = []
    with pytest.raises(OSError, match="the disk"):
        used.extend(one_ahead(items()))
    assert used == ["a", "b"]


def test_whoever_stops_early_waits_for_one_item_at_most():
    made = []
    for number in one_ahead(made.append(n) or n for n in range(100)):
        if number == 3:
            break
    assert len(made) <= 5
