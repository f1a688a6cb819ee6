"""Reports: what is in the file, what is not, and that a page gives what it shows."""

import base64
import gzip
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from streamlit.testing.v1 import AppTest

from interp.apps.take import parquet
from interp.cli import main
from interp.plots import DARK, DEEP, GROUND, on_dark, said, sentences
from interp.report import Section, document, report
from interp.report.tables import KEPT, ROWS

from . import made

TAGS = (
    "html head meta title style body h1 h2 h3 p nav a section div dl dt dd table tr th td button "
    "details summary pre footer script noscript"
)


class Parsed(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags, self.links = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        assert not [name for name, _ in attrs if name.startswith("on")]


def data_of(page):
    packed = re.search(r'id="data">([A-Za-z0-9+/=]+)<', page)[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


@pytest.fixture(scope="module")
def page():
    return made.evil()


def test_every_text_is_escaped_and_nothing_is_fetched(page):
    parsed = Parsed()
    parsed.feed(page)
    assert set(parsed.tags) <= set(TAGS.split())
    assert parsed.links == ["#s0", "#s1"]
    assert parsed.tags.count("script") == 3, "data, plotly, and the one that runs"
    assert "\u202e" not in page
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert policy.startswith("default-src 'none'; ")
    for name in ("connect-src", "unsafe-eval", "http", "*", "script-src 'unsafe-inline'"):
        assert name not in policy


def test_plotly_is_in_it_once_and_the_file_is_small(page):
    assert page.count('id="plotly"') == 1
    assert len(page.encode()) < 2_200_000
    assert 'id="plotly"' not in report("no figure", [Section("a", rows=made.rows())])


def test_the_file_holds_the_figures_and_the_tables(page):
    data = data_of(page)
    assert [figure["data"][0]["type"] for figure in data["figures"]] == ["heatmap", "scatter"]
    assert list(data["csv"]) == ["0", "1"]
    pd.testing.assert_frame_equal(
        pd.read_csv(io.StringIO(data["csv"]["0"])), made.rows().astype({"words": str})
    )
    assert data["colours"] == DARK


def test_a_long_table_is_cut_and_says_so():
    page = report("long", [Section("a", rows=made.rows(ROWS + 1), total=1_234_567)])
    assert f"The first {ROWS} of 1,234,567 rows; this file holds {ROWS + 1}" in page
    noise = pd.DataFrame(np.random.default_rng(0).random((KEPT + 1, 5)))
    page = report("wide", [Section("a", rows=noise)])
    assert len(page) < 1_000_000
    kept = len(data_of(page)["csv"]["0"].splitlines()) - 1
    assert ROWS < kept < KEPT
    assert f"this file holds {kept:,}" in page


def test_a_large_file_says_so(monkeypatch):
    monkeypatch.setattr(document, "MOST", 100)
    assert "This file has 0.0 MB" in report("a", [Section("a")])


def test_sentences_go_with_their_figure():
    figure = said(go.Figure(), "above", "below")
    assert sentences(go.Figure(figure)) == ("above", "below")
    assert sentences(go.Figure()) == ("", "")
    page = report("a", [Section("a", figures=(figure,))])
    assert page.index("above") < page.index('class="figure"') < page.index("below")


def test_a_dark_page_has_dark_heat_maps_and_the_same_numbers():
    light = made.figures()[0]
    dark = on_dark(light)
    assert [colour for _, colour in dark.data[0].colorscale][::2] == [DARK[GROUND], DARK[DEEP]]
    assert light.data[0].colorscale[0][1] == GROUND
    assert (dark.data[0].z == light.data[0].z).all()


def test_a_run_becomes_a_report(tmp_path, capsys):
    run = made.run_of(tmp_path, model=made.EVIL, prompt="the keys")
    file = tmp_path / "out.html"
    assert main(["report", str(run), "--out", str(file), "--json"]) == 2  # no such study
    assert not file.exists()
    assert "no study" in capsys.readouterr().err


def test_mixed_values_are_written_as_text():
    rows = pd.DataFrame({0: [1, "a", None], "tokens": [["a"], [], ["b", "c"]]})
    read = pd.read_parquet(io.BytesIO(parquet(rows)))
    assert list(read["0"]) == ["1", "a", "None"]
    assert list(read["tokens"][2]) == ["b", "c"]


def two_views():
    import pandas as pd
    import plotly.graph_objects as go

    from interp.apps.common import errors_in_place
    from interp.apps.offering import offer
    from interp.apps.shown import charts

    with errors_in_place():
        for name in ("one", "two"):
            charts(name, go.Figure(layout_title=name), shows=f"shows {name}", found="found")
            offer(pd.DataFrame({"a": [1]}), name, ["interp", "models", "list"], "call()")


def test_a_view_gives_its_own_figures_and_sentences(monkeypatch):
    given = []
    monkeypatch.setattr("interp.apps.offering.html", lambda section, runs: given.append(section))
    monkeypatch.setattr(
        "interp.apps.offering._button",
        lambda words, made, file: made() if words == "HTML report" else None,
    )
    for _ in range(2):  # a page is shown again and again
        given.clear()
        assert not AppTest.from_function(two_views).run().exception
        assert [section.title for section in given] == ["one", "two"]
        for section in given:
            (figure,) = section.figures
            assert figure.layout.title.text == section.title
            assert sentences(figure) == (f"shows {section.title}", "found")
