"""The facts, the made sets, the split, and the paper's prompts."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest

from interp.errors import UserError
from interp.knob.items import HELD_RELATIONS, Item, read_items, split
from interp.knob.prompts import Prompter, Row, question, rows_of
from interp.model.prompting import Prompting


def test_the_shipped_facts_are_many_and_neither_answer_begins_the_other():
    items = read_items("facts", draws=5)
    relations = {item.relation for item in items}
    assert len(relations) >= 8
    assert set(HELD_RELATIONS) < relations
    assert len({item.key for item in items}) >= 600
    for item in items:
        assert not item.context_answer.startswith(item.prior_answer)
        assert not item.prior_answer.startswith(item.context_answer)
        assert item.context == f"{item.query} {item.context_answer}."
    assert len({(*item.key, item.context_answer) for item in items}) == len(items)


def test_a_seed_draws_the_same_contexts_and_another_seed_others():
    first, again, other = (read_items("facts", draws=2, seed=s) for s in (0, 0, 1))
    assert first == again
    assert sum(a != b for a, b in zip(first, other, strict=True)) > len(first) / 2


def test_parts_share_no_subject_of_a_relation_and_no_held_relation():
    parts = split(read_items("facts", draws=3))
    names = [{item.subject for item in part} for part in parts[:3]]
    assert names[0].isdisjoint(names[1])
    assert names[0].isdisjoint(names[2])
    assert names[1].isdisjoint(names[2])
    assert {item.relation for item in parts.relations} == set(HELD_RELATIONS)
    assert all(item.relation not in HELD_RELATIONS for part in parts[:3] for item in part)
    assert all(len(part) > 100 for part in parts)


def test_two_hops_go_through_the_context():
    items = read_items("two-hop", draws=2)
    one = next(x for x in items if x.subject == "Munich" and x.relation == "capital of a city")
    assert one.prior_answer == "Berlin"
    assert one.query == "The capital of the country in which the city of Munich lies is"
    moved = one.context.removeprefix("The country in which the city of Munich lies is ").split(".")
    assert moved[1].strip() == f"The capital of {moved[0]} is {one.context_answer}"
    assert len(items) > 200


def test_arithmetic_answers_are_right_digits():
    items = read_items("arithmetic", draws=1)
    assert len(items) >= 1050
    for item in items:
        assert item.context_answer != item.prior_answer
        assert {len(item.context_answer), len(item.prior_answer)} == {1}  # digits
    for item in items[::8]:
        whole = item.query.removesuffix(" =")
        assert eval(whole) == int(item.prior_answer)
        inner, value = item.context.removesuffix(".").split(" = ")
        inner = inner if inner == whole else f"({inner})"
        assert eval(whole.replace(inner, value)) == int(item.context_answer)
    assert read_items("arithmetic", draws=1) == items


def test_no_inner_fact_of_arithmetic_is_in_two_parts():
    parts = split(read_items("arithmetic", draws=10))
    for of in (lambda x: x.context.split(" = ")[0], lambda x: x.context):
        counts = Counter(name for part in parts for name in {of(item) for item in part})
        assert set(counts.values()) == {1}
    assert all(len(part) > 500 for part in parts[:3])
    assert {x.relation for x in parts.subjects} == {"one operator", "two operators"}


def test_fakepedia_records_become_items(tmp_path):
    parent = {"rel_p_id": "P159", "subject": "Newport County", "object": "Newport"}
    record = {"query": "Newport County is headquartered in", "object": "Dubai"}
    path = tmp_path / "base_fakepedia.json"
    path.write_text(json.dumps([{**record, "fact_parent": parent, "fact_paragraph": "…"}]))
    context = "Newport County is headquartered in Dubai."
    wanted = Item("P159", "Newport County", context, record["query"], "Newport", "Dubai")
    assert read_items("facts", path) == [wanted]
    path.write_text(json.dumps([record]))
    with pytest.raises(UserError, match="'fact_parent' of record 1 of .* is missing or null"):
        read_items("facts", path)


def fakepedia(answer, prior, query="The seat of A is in"):
    parent = {"rel_p_id": "P159", "subject": "A", "object": prior}
    return {"query": query, "object": answer, "fact_parent": parent}


def test_fakepedia_records_that_contradict_nothing_are_left_out(tmp_path):
    path = tmp_path / "base_fakepedia.json"
    none = [fakepedia("New York City", "New York"), fakepedia("Rome", "Rome")]
    twice = [fakepedia("Dubai", "Rome"), fakepedia("Dubai", "Rome")]
    path.write_text(json.dumps([*none, *twice, fakepedia("Dubai", "Rome", "A is seated in")]))
    contexts = ["The seat of A is in Dubai.", "A is seated in Dubai."]
    assert [item.context for item in read_items("facts", path)] == contexts
    for empty in (none, []):
        path.write_text(json.dumps(empty))
        with pytest.raises(UserError, match="no record with an object that contradicts"):
            read_items("facts", path)


@pytest.mark.parametrize(
    ("query", "facts", "said"),
    [
        ("no hole", {"x": "1", "y": "2"}, "query of 'a' needs one {}"),
        ("{} and {}", {"x": "1", "y": "2"}, "query of 'a' needs one {}"),
        ("{} of {0}", {"x": "1", "y": "2"}, "query of 'a' needs one {}"),
        ("{} of {name}", {"x": "1", "y": "2"}, "query of 'a' needs one {}"),
        ("{{}}", {"x": "1", "y": "2"}, "query of 'a' needs one {}"),
        ("{} is", {"x": 1, "y": "2"}, "answer for 'x' in 'a' is 1"),
        ("{} is", {"x": "1", "y": ""}, "answer for 'y' in 'a' is ''"),
        ("{} is", {"x": "1", "y": "1"}, "'a' needs two answers"),
        ("{} is", {"x": "Rome", "y": "Rome II"}, "'a' needs two answers"),
        ("{} is", {}, "'a' needs two answers"),
    ],
)
def test_a_table_that_makes_no_items_is_refused_by_its_entry(tmp_path, query, facts, said):
    path = tmp_path / "own.json"
    good = {"query": "{} is", "facts": {"x": "1", "y": "2"}}
    path.write_text(json.dumps({"relations": {"b": good, "a": {"query": query, "facts": facts}}}))
    with pytest.raises(UserError) as raised:
        read_items("facts", path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ['{"facts": 1}', '{"relations": {"a": {"query": "no hole"}}}'])
def test_a_file_of_another_shape_is_refused(tmp_path, text):
    (tmp_path / "own.json").write_text(text)
    with pytest.raises(UserError, match="is not a fact table"):
        read_items("facts", tmp_path / "own.json")
    with pytest.raises(UserError, match="cannot read"):
        read_items("facts", tmp_path / "absent.json")


ITEM = Item("capital", "France", "The capital of France is Rome.", "The capital of France is",
            "Paris", "Rome")  # fmt: skip


def test_the_papers_messages():
    follow = Row(ITEM, "context")
    assert question(follow, "instruction") == (
        "Context: The capital of France is Rome.\n"
        "Instruction: Only consider the context in answering the query.\n"
        "Query: The capital of France is"
    )
    assert question(Row(ITEM, "prior"), "float").splitlines()[1] == "Context weight: 0.00"
    assert question(follow, "none") == question(Row(ITEM, "prior"), "none")
    assert [row.answer for row in rows_of([ITEM])] == ["Paris", "Rome"]


class Letters:
    """A tokenizer of letters, whose chat template shows the turns."""

    chat_template = "yes"

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        return "|".join(f"{m['role']}: {m['content']}" for m in messages)

    def encode(self, text, add_special_tokens):
        return [ord(letter) for letter in text]


def test_demonstrations_are_earlier_turns_or_earlier_blocks():
    shots, row = [Row(ITEM, "context")], Row(ITEM, "prior")
    turns = Prompter(Prompting(Letters(), "never"), "instruction", shots).prompt(row).split("|")
    assert [turn.partition(":")[0] for turn in turns] == ["system", "user", "assistant", "user"]
    assert turns[2] == "assistant: Rome"
    plain = Prompter(Prompting(Letters(), "never"), "instruction", shots, "plain")
    text = plain.prompt(row)
    assert text.count("Answer: Rome\n\n") == 1
    assert text.endswith("Query: The capital of France is\nAnswer:")
    assert plain.answer_ids("Paris") == [ord(x) for x in " Paris"]
    with pytest.raises(UserError, match="no chat template"):
        Prompter(Prompting(SimpleNamespace(chat_template=None), "never")).prompt(row)
