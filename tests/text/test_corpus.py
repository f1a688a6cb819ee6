"""The corpus reader: every kind of source, the default, fingerprints, packing, mistakes."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from interp.errors import UserError
from interp.model.prompting import Prompting
from interp.runs.disk import peak_memory
from interp.text import corpus, documents
from interp.text.corpus import fingerprint, id_rows, read_corpus, token_rows

from ..letters import letter_tokenizer

FORGET = Path("/proc/self/clear_refs")
"""Writing 5 to it sets the process' peak of memory to what it holds now."""


def dump_stream(folder, *texts, names=("text",)):
    """A saved dataset of one file."""
    table = pa.table([pa.array(texts)] * len(names), names=list(names))
    with pa.ipc.new_stream(folder / "x.arrow", table.schema) as writer:
        writer.write_table(table)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "state.json").write_text('{"_data_files": [{"filename": "x.arrow"}]}')


def dump(path, records):
    path.write_text("\n".join(map(json.dumps, records)) + "\n\n")
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    import datasets

    path = tmp_path_factory.mktemp("datasets")
    made = datasets.Dataset.from_dict({"text": ["one", "two", None, "three"], "n": [1, 2, 3, 4]})
    made.select([3, 0, 1, 2]).save_to_disk(path / "plain", num_shards=2)
    datasets.DatasetDict(train=made, test=made).save_to_disk(path / "splits")
    return path


class TestSources:
    def test_text_file(self, tmp_path):
        path = tmp_path / "a.log"
        path.write_text("one\ntwo")
        assert list(read_corpus(path)) == ["one\ntwo"]

    def test_big_text_file_comes_in_pieces(self, tmp_path, monkeypatch):
        monkeypatch.setattr(documents, "PIECE", 20)
        path = tmp_path / "a.txt"
        path.write_text("".join(f"line {i}\n" for i in range(30)))
        pieces = list(read_corpus(path))
        assert len(pieces) > 5
        assert "".join(pieces) == path.read_text()
        assert all(piece.endswith("\n") for piece in pieces)

    def test_jsonl(self, tmp_path):
        path = dump(tmp_path / "a.jsonl", [{"text": "one"}, {"text": None}, {"text": "two"}])
        assert list(read_corpus(str(path))) == ["one", "two"]
        path = dump(tmp_path / "b.jsonl", [{"body": "three"}])
        assert list(read_corpus(path, "body")) == ["three"]

    def test_parquet(self, tmp_path):
        path, texts = tmp_path / "a.parquet", [f"text {i}" for i in range(1000)]
        pq.write_table(pa.table({"text": texts, "n": range(1000)}), path, row_group_size=300)
        assert list(read_corpus(path)) == texts

    def test_dataset_on_disk(self, dataset):
        assert list(read_corpus(dataset / "plain")) == ["three", "one", "two"]
        with pytest.raises(UserError, match="several splits: give one of test, train in it"):
            read_corpus(dataset / "splits")
        assert list(read_corpus(dataset / "splits" / "test")) == ["one", "two", "three"]

    def test_folder_in_order_of_names(self, tmp_path):
        files = {"b/x.py": "b/x", "b.md": "b", "a.TXT": "a", "b/no.bin": "-", ".git/x.txt": "-"}
        for name, text in {**files, "b/__pycache__/x.py": "-", "empty.txt": " \n"}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        dump(tmp_path / "c.jsonl", [{"text": "c1"}, {"text": "c2"}])
        assert list(read_corpus(tmp_path)) == ["a", "b/x", "b", "c1", "c2"]

    def test_it_streams(self, tmp_path):
        path = dump(tmp_path / "a.jsonl", [{"text": "fine"}] * 5000)
        with path.open("a") as file:
            file.write("{broken")
        assert list(itertools.islice(read_corpus(path), 5)) == ["fine"] * 5


class TestDefault:
    def test_prose_and_code_in_a_fixed_order(self):
        first, again = (list(itertools.islice(read_corpus(None), n)) for n in (40, 10))
        assert first[:10] == again
        code = sum("\nimport " in text or "\n    def " in text for text in first)
        assert 5 < code < 35

    def test_docstrings_are_taken_out_of_the_code(self, tmp_path):
        path = tmp_path / "m.py"
        path.write_text(
            '"""About m."""\n\x0c\nx = 1\n\nclass A:\n    """About\n    A."""\n    y = "kept"\n'
        )
        assert documents._prose_and_code(path) == (
            "About m.\n\nAbout\nA.",
            '\x0c\nx = 1\n\nclass A:\n    y = "kept"\n',
        )

    def test_no_tests_nor_installed_packages(self):
        root, files = documents.library()
        inside = [path.relative_to(root).parts for path in files]
        assert len(files) > 300
        assert ("json", "decoder.py") in inside
        assert not any({"site-packages", "test", "tests"} & set(parts) for parts in inside)

    def test_what_is_left_out_is_not_walked(self, tmp_path, monkeypatch):
        """In the order of the paths' parts; nothing below what is left out is looked at."""
        other = ("_sysconfigdata_x.py", "n.txt")
        for name in ("b.py", "a/z.py", "a.py", "a-b/c.py", "test.py", *other):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        for name in ("site-packages/torch", "a/tests"):
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "x.py").touch()
        walked = []
        scandir = os.scandir
        monkeypatch.setattr(os, "scandir", lambda path: walked.append(Path(path)) or scandir(path))
        monkeypatch.setattr(documents.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
        root, files = documents.library()
        inside = [str(path.relative_to(root)) for path in files]
        assert inside == ["a/z.py", "a-b/c.py", "a.py", "b.py", "test.py"]
        assert {path.name for path in walked} == {tmp_path.name, "a", "a-b"}

    def test_reading_needs_no_torch(self):
        code = "import sys, interp.text.corpus; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_fingerprints_follow_the_content(tmp_path, dataset):
    one, two = tmp_path / "a.txt", tmp_path / "folder" / "a.txt"
    two.parent.mkdir()
    for path in (one, two):
        path.write_text("text")
    sources = [None, one, two.parent, dataset / "plain", dataset / "splits" / "train"]
    prints = [fingerprint(source) for source in sources]
    assert prints == [fingerprint(source) for source in sources]
    assert len({*prints}) == 5
    assert all(len(digest) == 64 for digest in prints)
    two.write_text("other")
    assert fingerprint(two.parent) != prints[2]
    (two.parent / "ignored.bin").write_text("-")
    (two.parent / "b.txt").write_text("text")
    after = fingerprint(two.parent)
    (two.parent / "ignored.bin").write_text("--")
    assert fingerprint(two.parent) == after


class TestMistakes:
    def test_nothing_there(self, tmp_path):
        for call in (read_corpus, fingerprint):
            with pytest.raises(UserError, match="no corpus at .*nowhere"):
                call(tmp_path / "nowhere")
            with pytest.raises(UserError, match="holds no text, .jsonl or .parquet files"):
                call(tmp_path)
        (tmp_path / "a.txt").write_text("\n")
        with pytest.raises(UserError, match="holds no text: give another corpus"):
            read_corpus(tmp_path)

    def test_python_without_sources(self, tmp_path, monkeypatch):
        monkeypatch.setattr(documents, "of_python", lambda: iter(()))
        with pytest.raises(UserError, match="installed without sources"):
            read_corpus(None)

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("{broken", "line 2 is broken JSON"),
            ('"text"', "line 2 holds a text, not an object: mend or remove it"),
            ('{"body": "x", "n": 1}', "line 2 has no field 'text': it has body, n"),
            ('{"text": 3}', "line 2 is no text but a whole number"),
            ('{"text": "x", "text": "y"}', "line 2 has the key 'text' twice: mend or remove it"),
            ('{"text": "\\ud83d"}', "line 2 has half of a character"),
            (f'{{"text": {"[" * 101}{"]" * 101}}}', "line 2 is nested more than 100 deep"),
        ],
    )
    def test_broken_lines(self, line, says, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_text(f'{{"text": "fine"}}\n{line}\n')
        with pytest.raises(UserError, match=says):
            list(read_corpus(path))

    def test_fields_of_tables(self, tmp_path, dataset):
        path = tmp_path / "a.parquet"
        pq.write_table(pa.table({"body": ["x"], "n": [1]}), path)
        for source in (path, dataset / "plain"):
            with pytest.raises(UserError, match=r"has no field 'words': it has (body|text), n"):
                read_corpus(source, "words")
            with pytest.raises(UserError, match="field 'n' in .* is no text but int64"):
                read_corpus(source, "n")

    def test_damaged_files(self, tmp_path):
        latin = tmp_path / "latin.txt"
        latin.write_bytes("né".encode("latin-1"))
        with pytest.raises(UserError, match="latin.txt is not UTF-8"):
            read_corpus(latin)
        table = tmp_path / "a.parquet"
        table.write_bytes(b"PAR1 nonsense")
        with pytest.raises(UserError, match="a.parquet cannot be read"):
            read_corpus(table)

    @pytest.mark.parametrize(
        ("state", "says"),
        [
            ("{", "state.json is broken JSON"),
            ("[" * 100_000, "state.json is nested more than 100 deep: save the dataset again"),
            ("{}", "'_data_files' of .*state.json is missing or null, not a list"),
            (
                '{"_data_files": [3]}',
                "entry 1 of '_data_files' of .* is a whole number, not an obj",
            ),
            ('{"_data_files": [{"filename": "../x"}]}', "names '../x', which is no file of its"),
            ('{"_data_files": [{"filename": "x"}]}', "x cannot be read .*: replace it or leave"),
        ],
    )
    def test_a_damaged_dataset(self, state, says, tmp_path):
        (tmp_path / "dataset_info.json").write_text("{}")
        (tmp_path / "state.json").write_text(state)
        with pytest.raises(UserError, match=says):
            read_corpus(tmp_path)

    def test_an_arrow_file_that_would_end_the_process(self, tmp_path):
        """The first text's end lies before its beginning: whoever reads it aborts in C++."""
        dump_stream(tmp_path, "alpha", "beta")
        path = tmp_path / "x.arrow"
        assert list(read_corpus(tmp_path)) == ["alpha", "beta"]
        ends, wrong = (np.array(each, np.int32).tobytes() for each in ([0, 5, 9], [0, -5, 9]))
        path.write_bytes(path.read_bytes().replace(ends, wrong))
        with pytest.raises(UserError, match=r"x.arrow cannot be read \(.*offset.*\): replace it"):
            read_corpus(tmp_path)

    def test_two_columns_of_a_name(self, tmp_path):
        dump_stream(tmp_path, "alpha", names=["text", "text"])
        with pytest.raises(UserError, match=r"x.arrow cannot be read .it has two columns 'text'"):
            read_corpus(tmp_path)

    def test_rows_of_no_use(self):
        with pytest.raises(UserError, match="no room for text"):
            token_rows(["x"], letters(7), 1, 100)
        with pytest.raises(UserError, match="99 tokens do not fill one row of 100"):
            token_rows(["x"], letters(), 100, 99)
        with pytest.raises(UserError, match="has 3 tokens, too few for one row of 5"):
            list(token_rows(["abc"], letters(0), 5, 100))


def letters(bos=None):
    return Prompting(letter_tokenizer(bos))


def test_rows_by_hand():
    texts = ["abcd", "", "efg", "hi"]
    rows = token_rows(texts, letters(), 3, 100)
    assert ["".join(map(chr, row)) for row in rows] == ["abc", "def", "ghi"]
    rows = token_rows(texts, letters(ord("^")), 3, 100, separator=ord("|"))
    assert ["".join(map(chr, row)) for row in rows] == ["^ab", "^cd", "^||", "^ef", "^g|", "^hi"]


def test_a_row_knows_the_document_of_its_middle():
    texts = ["abcd", "e", "fghijk", "lmn"]
    rows = token_rows(texts, letters(), 3, 100)
    found = [(number, "".join(map(chr, row))) for number, row in rows.numbered]
    assert found == [(0, "abc"), (1, "def"), (2, "ghi"), (2, "jkl")]
    rows = token_rows(texts, letters(ord("^")), 4, 100, separator=ord("|"))
    found = [(number, "".join(map(chr, row))) for number, row in rows.numbered]
    assert found == [(0, "^abc"), (1, "^d|e"), (2, "^|fg"), (2, "^hij"), (3, "^k|l")]


def test_documents_past_the_limit_are_not_read():
    def texts():
        yield "abcdef"
        raise AssertionError("read too far")

    rows = token_rows(texts(), letters(), 3, 8)
    assert rows.tokens == 6
    assert len(list(rows)) == 2


@given(
    texts=st.lists(st.text("abc", max_size=20), min_size=1),
    length=st.integers(2, 9),
    bos=st.sampled_from([None, 0]),
    limit=st.integers(9, 80),
)
def test_rows_hold_the_text_in_order(texts, length, bos, limit):
    joined, head = [ord(x) for x in "".join(texts)], [] if bos is None else [bos]
    fresh = length - len(head)
    rows = token_rows(texts, letters(bos), length, limit)
    if len(joined) < fresh:
        with pytest.raises(UserError, match="too few"):
            list(rows)
        return
    made = list(rows)
    assert all(len(row) == length and row[: len(head)] == head for row in made)
    kept = [i for row in made for i in row[len(head) :]]
    assert kept == joined[: len(kept)]
    assert len(made) == min(limit // length, len(joined) // fresh)
    assert sum(map(len, made)) <= rows.tokens <= limit


def test_stored_rows_of_ids(tmp_path):
    path = tmp_path / "ids.safetensors"
    save_file({"ids": torch.tensor([[5, 6, 0], [0, 0, 0], [1, 0, 2]])}, path)
    assert list(id_rows(path)) == [[5, 6], [1, 0, 2]]


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64]
)
@pytest.mark.parametrize("block", [1, 7, 10**6])
def test_rows_of_every_integer_in_blocks_of_any_size(dtype, block, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "_BLOCK", block)
    path = tmp_path / "ids.safetensors"
    rows = np.random.default_rng(0).integers(0, 3, (50, 4))
    save_file({"ids": torch.from_numpy(rows).to(dtype)}, path)
    expected = [np.trim_zeros(row, "b").tolist() for row in rows]
    assert list(id_rows(path)) == [row for row in expected if row]


@pytest.mark.skipif(not FORGET.exists(), reason="the peak of memory begins anew on Linux only")
def test_one_row_does_not_read_the_file(tmp_path):
    """The first row of a file of 26 MB."""
    path = tmp_path / "ids.safetensors"
    save_file({"ids": torch.ones(100_000, 256, dtype=torch.uint8)}, path)
    FORGET.write_text("5")
    before = peak_memory()
    assert next(id_rows(path)) == [1] * 256
    assert peak_memory() - before < 2**24


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"a": torch.zeros(2, 2)}, "must hold one integer tensor"),
        ({"a": torch.zeros(2, dtype=torch.long)}, "must hold one integer tensor"),
        ({"a": torch.ones(1, 1).long(), "b": torch.ones(1, 1).long()}, "must hold one integer"),
        (None, "cannot be read"),
    ],
)
def test_what_are_no_rows_of_ids(tensors, words, tmp_path):
    path = tmp_path / "ids.safetensors"
    if tensors:
        save_file(tensors, path)
    else:
        path.write_bytes(b"\x08\0\0\0\0\0\0\0truncate")
    with pytest.raises(UserError, match=words):
        list(id_rows(path))
