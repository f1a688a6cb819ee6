"""Kept directions against each other, whatever they are called: titles are anybody's words."""

import csv
import html
import io
import json
import re
import shlex
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch

from interp.apps.take import parquet
from interp.cli import main, parse
from interp.columns import column
from interp.columns_known import KNOWN
from interp.directions import Directions
from interp.directions.collections import open_collection, told_apart
from interp.directions.keeping import annotate, keep_directions, keep_prompt
from interp.directions.kept_pairs import MOST, compare_kept, words
from interp.directions.provenance import Provenance
from interp.errors import UserError
from interp.model.site import Site
from interp.report.of_collection import report_of_collection

TITLES = ["direction", "bytes", "share", "p", "a_b", "name", "other", "cosine", "a_b", "index"]


def one(seed, site="0.resid_post", model="some-model"):
    vectors = torch.randn(1, 8, generator=torch.Generator().manual_seed(seed))
    made = Provenance("test", model)
    return Directions(Site.parse(site), vectors, pd.DataFrame({"name": [f"v{seed}"]}), made)


@pytest.fixture
def kept(own_home):
    for seed, title in enumerate(TITLES):
        keep_directions("u 1", one(seed), title=title)
    return open_collection("u 1")


def own_cosines():
    """In numpy and float64, by the titles in the order in which they were kept."""
    every = [one(seed).vectors[0].double().numpy() for seed in range(len(TITLES))]
    return {
        frozenset((i, j)): a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for (i, a), (j, b) in combinations(enumerate(every), 2)
    }


def test_titles_stand_in_cells_and_pairs_have_their_cosines(kept):
    made = compare_kept("u 1")
    assert set(made.rows) == {"name", "other", "cosine", "source", "other_source"}
    numbers = {f"kept:u 1:{entry.id}": n for n, entry in enumerate(kept.entries)}
    want, found = own_cosines(), {}
    for row in made.rows.itertuples():
        pair = numbers[row.source], numbers[row.other_source]
        found[frozenset(pair)] = row.cosine
        for number, name in zip(pair, (row.name, row.other), strict=True):
            title = TITLES[number]
            same = TITLES.count(title) > 1
            assert name == (f"{title} ({kept.entries[number].id})" if same else title)
    assert found == pytest.approx(want, abs=1e-6)
    assert made.rows["cosine"].abs().is_monotonic_decreasing
    back = pd.read_parquet(io.BytesIO(parquet(made.rows)))
    pd.testing.assert_frame_equal(back, made.rows)
    assert len(set(made.names)) == len(TITLES)


def test_a_report_shows_every_title_and_number_as_it_is(kept):
    told = report_of_collection("u 1")
    section = told.partition("<h2>Compared</h2>")[2].partition("</section>")[0]
    heads = re.findall(r"<th[^>]*>(.*?)</th>", section)
    assert heads == ["direction", "other direction", "cosine", "opened by", "other, opened by"]
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in section.split("<tr>")[2:]]
    rows = compare_kept("u 1").rows
    for shown, row in zip(cells, rows.itertuples(), strict=True):
        assert shown[0] == row.name
        assert float(shown[2]) == pytest.approx(row.cosine, rel=6e-3)
    command = html.unescape(re.search(r"<pre>(\S*interp keep compare.*?)</pre>", section)[1])
    assert shlex.split(command)[1:] == ["keep", "compare", "u 1"]
    for entry, title in told_apart(kept.entries).items():
        assert told.count(f">{title}</") >= 2, entry  # in the contents and above its section


def test_the_command_gives_what_the_page_and_the_report_show(kept, capsys):
    made = compare_kept("u 1")
    assert main([*words(kept, made.ids)[1:], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    assert found == made.rows.to_dict("records")
    some = made.ids[2:5]
    command = words(kept, some)
    assert command[3:] == ["u 1", *some]
    parse(command[1:])
    assert main(command[1:]) == 0
    assert len(compare_kept("u 1", some).rows) == 3
    assert "share" in capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(made.rows.to_csv(index=False))))
    assert {row["name"] for row in rows} <= set(made.names)


def test_a_pair_without_a_cosine_says_why(own_home):
    keep_directions("a", one(0))
    keep_directions("a", one(1))
    keep_directions("a", one(2, model="another"))
    rows = compare_kept("a").rows
    assert rows["blank"].tolist()[0] == ""
    assert rows["cosine"].isna().tolist() == [False, True, True]
    assert set(rows["blank"][1:]) == {"they are of two models, some-model and another"}


def test_what_cannot_be_compared_is_said(own_home, monkeypatch):
    keep_directions("a", one(0))
    with pytest.raises(UserError, match="two directions are needed"):
        compare_kept("a")
    keep_prompt("a", "hello")
    with pytest.raises(UserError, match="is a prompt, no direction"):
        compare_kept("a", ["v0", "hello"])
    with pytest.raises(UserError, match="no entry 'x'"):
        compare_kept("a", ["v0", "x"])
    with pytest.raises(UserError, match=f"at most {MOST}"):
        compare_kept("a", [str(n) for n in range(MOST + 1)])


def test_a_title_that_looks_like_another_one_with_its_id_is_told_apart(own_home):
    for seed, title in enumerate(["dog", "dog", "dog (dog-2)"]):
        keep_directions("a", one(seed), title=title)
    names = told_apart(open_collection("a").entries)
    assert len(set(names.values())) == 3


def test_columns_of_a_comparison_are_known():
    for name in ("name", "other", "cosine", "source", "other_source", "blank"):
        assert f"directions.{name}" in KNOWN or name in KNOWN
        assert column(name, "directions").kind != "token"


def test_a_report_keeps_the_line_breaks_of_notes(own_home):
    keep_directions("u", one(0), note="first\nsecond <b>")
    keep_prompt("u", "say\nit", note="third\r\nfourth")
    annotate("u", "of all\nof it")
    told = report_of_collection("u")
    assert told.count("first\nsecond &lt;b&gt;") == 2  # in the table and in its section
    for lines in ("of all\nof it", "say\nit", "third\nfourth"):
        assert lines in told
    assert "\\n" not in told.partition('<script type="application/gzip"')[0].partition("<body")[2]
    assert "dd,.wide .lines{white-space:pre-line}" in told
