"""Tasks' files: those that ship, and mistakes in one's own."""

import pytest

from interp.circuits.tasks import Pair, read_task, shipped
from interp.circuits.truth import SHIPPED
from interp.errors import UserError

PAIR = '["The keys", "The key", " are", " is"]'


def test_tasks_that_ship_are_long_enough():
    assert set(shipped()) == set(SHIPPED)
    for name in shipped():
        task = read_task(name)
        assert len(task.pairs) - task.tried >= 20
        assert len(set(task.pairs)) == len(task.pairs)
        assert all(
            pair.target.startswith(" ") and pair.other.startswith(" ") for pair in task.pairs
        )
    agreement = read_task("number-agreement")
    assert agreement.tried == 10
    assert len(agreement.pairs) == 50
    assert agreement.pairs[0] == Pair(
        "The keys to the cabinet", "The key to the cabinet", " are", " is"
    )


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(f"pairs: [{PAIR}]\n")
    task = read_task(str(path))
    assert (task.name, task.about, task.tried) == ("own", "own", 0)
    assert task.pairs == (Pair("The keys", "The key", " are", " is"),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("about: x\n", "lacks the key 'pairs'"),
        ("[]\n", "lacks the key 'pairs'"),
        (f"pairs: [{PAIR}]\npears: 1\n", "has a key 'pears' that no task has"),
        ("pairs: []\n", "'pairs' must be a list with at least one pair"),
        ('pairs: [["a", "b", " c"]]\n', "entry 1 of 'pairs' must be four texts"),
        (f'pairs: [{PAIR}, ["a", "b", " c", ""]]\n', "entry 2 of 'pairs' must be four texts"),
        ('pairs: [["a", "a", " c", " d"]]\n', "entry 1 of 'pairs' has the same text twice"),
        (f"pairs: [{PAIR}]\ntried: 1\n", "'tried' must be a number from 0 to 0"),
        (f"pairs: [{PAIR}]\ntried: -1\n", "'tried' must be a number from 0 to 0"),
        (f"pairs: [{PAIR}]\nabout: [x]\n", "'about' must be a text"),
    ],
)
def test_mistakes_are_told_with_their_key_and_entry(tmp_path, text, said):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_task(str(path))


def test_no_such_task():
    with pytest.raises(UserError, match="there is no task 'agree': choose one of capital"):
        read_task("agree")
    with pytest.raises(UserError, match="there is no task"):
        read_task("nowhere/own.yaml")
