"""Tasks: their files, where examples are read, and what is held out."""

import pytest

from interp.cli import main
from interp.errors import UserError
from interp.model.prompting import Prompting
from interp.model.tokenizer_files import load_tokenizer
from interp.obsprop import code
from interp.obsprop.task_files import KEYS, read_task, schema, shipped
from interp.obsprop.tasks import draw_pairs, examples, pair_reads

from .planted import NEGATIVE, POSITIVE, planted, write_task  # noqa: F401 - a fixture


class TestTasks:
    @pytest.mark.parametrize("name", shipped())
    def test_shipped_ones_are_sound(self, name):
        task = read_task(name)
        assert task.about
        assert task.observable
        if task.sources is None:
            assert len(task.templates) >= 3
            positive, negative = task.words
            assert not set(positive) & set(negative)
            assert len(set(positive)) == len(positive) >= 60
            filled = {t.replace("[WORD]", w) for t in task.templates for w in positive}
            assert task.pair[0] in filled, "the pair is one of the task's own examples"

    def test_splits_share_no_word_and_read_it_at_its_last_token(self, planted):  # noqa: F811
        prompting = Prompting(load_tokenizer(planted))
        task = read_task(str(write_task(planted)))
        split = examples(task, prompting)
        words = [{e.group for e in part} for part in split]
        assert not words[0] & words[1]
        assert words[0] | words[1] == {*POSITIVE, *NEGATIVE}
        assert {"w100", "w120"} <= words[0]
        for example in [*split.train, *split.held_out]:
            (at,) = example.reads
            assert f"w{example.ids[at]}" == example.group
            assert example.positive == (example.group in POSITIVE)
        for one, other in draw_pairs(split.train, 5, 0):
            assert one.positive
            assert not other.positive
            assert one.reads == other.reads
            assert len(one.ids) == len(other.ids)

    def test_people_of_one_name_are_on_one_side(self, planted, tmp_path):  # noqa: F811
        own = [[f"w{i} w{i % 7 + first}" for i in range(20, 50)] for first in (100, 120)]
        task = read_task(str(write_task(tmp_path, words=own)))
        split = examples(task, Prompting(load_tokenizer(planted)))
        names = [{e.group for e in part} for part in split]
        assert not names[0] & names[1]
        assert names[0] | names[1] == {f"w{i + first}" for i in range(7) for first in (100, 120)}
        assert all(f"w{e.ids[e.reads[0]]}" == e.group for part in split for e in part)

    def test_code_of_both_languages_is_here_and_files_are_not_split(self):
        for language, ending in (("C", (".c", ".h")), ("Python", (".py",))):
            files = code.source_files(language)
            assert len(files) > 20
            assert all(path.suffix in ending for path in files)
            contents = {path.read_bytes() for path in files}
            assert len(contents) == len(files), "a copy could be held out from the other"
        assert not any("std::" in code.text(path) for path in code.source_files("C"))

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"templates": ["[WORD]", "no"]}, "'templates' entry 2 needs exactly one .WORD.: 'no'"),
            ({"templates": ["w1 [WORD] w2 [WORD]"]}, "'templates' entry 1 needs exactly one"),
            ({"pair": ["one"]}, "'pair' must be a list of two"),
            ({"pair": "ab"}, "'pair' must be a list of two"),
            ({"pair": ["w1", ["w2"]]}, "'pair' entry 2 is empty or not a text"),
            ({"words": ["nobody", "male names"]}, "'words' entry 1: no list 'nobody'; there are f"),
            ({"words": [["w1", "w2"], ["w2", "w3"]]}, "'words' the word 'w2' is on both sides"),
            ({"words": [["w1"], ["w2", " "]]}, "'words' entry 2: entry 2 is empty"),
            ({"words": ["male names"]}, "'words' must be a list of two"),
            ({"words": [["w1"], {"w2": 1}]}, "'words' entry 2: must be a list of texts"),
            ({"observable": {"w10": "much"}}, "'observable' entry 'w10': the weight 'much' is no"),
            ({"observable": {"w10": "nan"}}, "entry 'w10': the weight nan is not finite"),
            ({"observable": {}}, "'observable' must be a mapping .* at least one word"),
            ({"observable": [1]}, "'observable' must be a mapping"),
            (
                {"template": ["w1 [WORD]"]},
                "key 'template' that no task has: did you mean 'templates'",
            ),
            ({"zebra": 1}, "key 'zebra' that no task has: a task's are about, observable"),
            ({"about": ["x"]}, "'about' must be a text"),
            ({"sources": ["C", "Python"]}, "has 'sources' and 'templates': give one of them"),
        ],
    )
    def test_files_that_are_not_tasks(self, change, says, tmp_path):
        with pytest.raises(UserError, match=says):
            read_task(str(write_task(tmp_path, **change)))

    @pytest.mark.parametrize("key", [name for name, key in KEYS.items() if key.needed])
    def test_a_missing_key_is_named_with_what_it_holds(self, key, tmp_path):
        path = tmp_path / "own.yaml"
        left = {name: each.example for name, each in KEYS.items() if name not in (key, "sources")}
        path.write_text("".join(f"{name}: {example}\n" for name, example in left.items()))
        with pytest.raises(UserError, match=f"own.yaml lacks the key '{key}': ") as error:
            read_task(str(path))
        assert KEYS[key].about in str(error.value)
        path.write_text("- a\n- list\n")
        with pytest.raises(UserError, match="is no mapping of keys"):
            read_task(str(path))

    def test_languages_that_are_not_looked_for(self, tmp_path):
        path = tmp_path / "own.yaml"
        path.write_text("observable: {a: 1}\npair: [a, b]\nsources: [C, Rust]\n")
        with pytest.raises(UserError, match="'sources' must be C and Python"):
            read_task(str(path))

    def test_the_schema_is_a_task(self, tmp_path, capsys):
        assert main(["obsprop", "tasks", "--schema"]) == 0
        printed = capsys.readouterr().out
        assert printed == schema()
        (tmp_path / "own.yaml").write_text(printed)
        task = read_task(str(tmp_path / "own.yaml"))
        assert task.observable == {" she": 1, " he": -1}
        code_lines = [line.removeprefix("# ") for line in printed.splitlines()]
        kept = ("observable", "pair", "sources")
        other = [line for line in code_lines if line.partition(":")[0] in kept]
        (tmp_path / "code.yaml").write_text("\n".join(other))
        assert read_task(str(tmp_path / "code.yaml")).sources == ("C", "Python")

    def test_yaml_s_own_values_are_words(self, tmp_path):
        path = tmp_path / "own.yaml"
        path.write_text(
            "observable: {yes: 1, no: -1}\npair: [on a, off a]\ntemplates: ['[WORD] a']\n"
            "words: [[on, yes, 1.10], [off, no, null]]\n"
        )
        task = read_task(str(path))
        assert task.observable == {"yes": 1.0, "no": -1.0}
        assert task.words == (("on", "yes", "1.10"), ("off", "no", "null"))
        path.write_text(path.read_text().replace("{yes: 1, no: -1}", "{' she': 1, ' she': -1}"))
        with pytest.raises(UserError, match="has ' she' twice"):
            read_task(str(path))

    def test_a_name_of_both_classes_is_not_held_out(self, planted, tmp_path):  # noqa: F811
        own = [[f"w{i} w{i + first}" for i in range(20)] for first in (100, 120)]
        own[1][3] = "w9 w105"  # its last name is a positive one's
        task = read_task(str(write_task(tmp_path, words=own)))
        prompting = Prompting(load_tokenizer(planted))
        for seed in range(6):
            split = examples(task, prompting, seed)
            assert "w105" in {e.group for e in split.train if e.positive}
            assert "w105" not in {e.group for e in split.held_out}

    @pytest.mark.parametrize(
        ("pair", "reads"),
        [
            (["w1 w100 w2 w3", "w1 w120 w2 w3"], (1,)),
            (["w100 w4", "w120 w4"], (0,)),
            (["w1 w50 w2", "w1 w51 w2"], ()),
        ],
    )
    def test_the_pair_is_read_where_its_word_ends(self, pair, reads, planted, tmp_path):  # noqa: F811
        task = read_task(str(write_task(tmp_path, pair=pair)))
        assert pair_reads(task, Prompting(load_tokenizer(planted))) == reads

    def test_few_words_of_a_class_are_too_few(self, planted, tmp_path):  # noqa: F811
        task = read_task(str(write_task(tmp_path, words=[POSITIVE, ["w120"]])))
        with pytest.raises(UserError, match="fewer than 4 examples of a class"):
            examples(task, Prompting(load_tokenizer(planted)))

    def test_unknown_names_say_which_there_are(self):
        with pytest.raises(UserError, match="choose one of c-vs-python, object-pronoun"):
            read_task("nonsense")
