"""Search, cards, HTML and Neuronpedia's JSON of a stored survey."""

import gzip
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from interp.cli import main
from interp.errors import UserError
from interp.latents import card, html, neuronpedia, search
from interp.latents.card import Card, Example, Pair


def test_words_are_found_in_every_way(surveyed):
    table = surveyed.table("latents")
    rows = search.by_word(surveyed, "#19", exact=True, limit=500)
    place = {
        row.latent: row.top_ids.tolist().index(19) + 1
        for row in table.itertuples()
        if 19 in row.top_ids
    }
    assert dict(zip(rows["latent"], rows["rank"], strict=True)) == place
    order = [(r, -z, i) for r, z, i in zip(rows["rank"], rows["z"], rows["latent"], strict=True)]
    assert order == sorted(order)
    assert (rows["top"].map(lambda tokens: "#19" in tokens)).all()
    lowered = search.by_word(surveyed, "#19", "lowers", exact=True, limit=500)
    assert set(lowered["latent"]) == {r.latent for r in table.itertuples() if 19 in r.bottom_ids}
    fires = search.by_word(surveyed, "#19", "fires", exact=True, limit=5000)
    times = {
        row.latent: dict(zip(row.fires_on, row.fires_times, strict=True)).get(19, 0)
        for row in table.itertuples()
    }
    assert dict(zip(fires["latent"], fires["times"], strict=True)) == {
        latent: n for latent, n in times.items() if n
    }
    counts = table.set_index("latent")["count"][fires["latent"]].to_numpy()
    np.testing.assert_allclose(fires["share"], fires["times"] / counts)
    assert (fires["times"] / (counts + search.SHRINK)).is_monotonic_decreasing


def test_densities(surveyed):
    table = surveyed.table("latents")
    rows = search.by_density(surveyed, 0.01, 0.1, "rare", 5000)
    assert set(rows["latent"]) == set(table["latent"][table["density"].between(0.01, 0.1)])
    assert rows["density"].is_monotonic_increasing
    dead = search.by_density(surveyed, 0, 0, limit=5000)
    assert len(dead) == surveyed.metrics["dead"]
    assert not set(search.by_density(surveyed, 0, 1, "rare", 5000)["latent"]) & set(dead["latent"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    {
        "nothing": ([], "give one of: a word, --text, --density"),
        "two": (["dog", "--density", "0", "1"], "give one of"),
        "no word": (["no-such-word", "--exact"], "this model has no tokenizer"),
        "density": (["--density", "0.5", "0.1"], "the lower first"),
        "limit": (["#1", "--limit", "0"], "--limit must be at least 1"),
    }.values(),
)
def test_a_mistake_is_one_line(surveyed, arguments, told, capsys):
    code = main(["saes", "search", *arguments, "--survey", str(surveyed.path)])
    error = capsys.readouterr().err
    assert code == 2
    assert told in error
    assert error.count("\n") == 1


def test_a_card_says_what_the_tables_say(surveyed):
    table = surveyed.table("latents")
    row = table.loc[table["count"].idxmax()]
    made = card.of_survey(surveyed, int(row["latent"]))
    assert (made.density, made.largest) == (row["density"], row["max"])
    assert [pair.name for pair in made.top] == [f"#{i}" for i in row["top_ids"]]
    assert [pair.value for pair in made.neighbours] == row["neighbour_cosines"].tolist()
    assert len(made.largest_examples) == 6
    assert made.largest_examples[0].value == pytest.approx(made.largest)
    assert sum(e.share for e in made.binned_examples) == pytest.approx(1)
    drawn = card.bars(made)
    assert sum(count for *_, count in drawn) == row["count"]
    assert all(math.isfinite(x) for bar in drawn for x in bar)
    with pytest.raises(UserError, match="no latent 1024 in this survey: it has 0..1023"):
        card.of_survey(surveyed, 1024)


NASTY = Card(
    *("<b>model</b>", "sae & co", 7, 0.25, 1.0, 4.0),
    edges=(0.0, 1.0, 2.0, math.inf),
    counts=(1.0, 0.0, 3.0),
    top=(Pair("<script>alert(1)</script>", 1.5),),
    bottom=(Pair('" onload="x', -1.5),),
    neighbours=(Pair("3", 0.5),),
    examples=(
        Example(("<img src=x>", "\n", "d&g"), (math.nan, 0.0, 4.0), 2, place="document 1"),
        Example(("a", "</div>"), (0.5, -0.25), 0, 0.0, 1.0, 0.25, "document 2"),
    ),
    site="3.resid_post",
)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.texts = [], []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)


@pytest.mark.parametrize("number", [1, 2])
def test_the_html_stands_alone_and_escapes_every_text(number):
    parsed = Tags()
    parsed.feed(page := html.page([NASTY] * number))
    known = "html head meta title style body nav a div h2 h3 p table tr td span svg rect text"
    assert {tag for tag, _ in parsed.found} <= set(known.split())
    attributes = {name for _, own in parsed.found for name in own}
    assert not [n for n in attributes if n.startswith("on") or n in ("src", "srcset")]
    assert all(own["href"].startswith("#l") for tag, own in parsed.found if tag == "a")
    assert not re.search(r"https?:|url\(|@import", page)
    for text in ("<script>alert(1)</script>", '"␣onload="x', "<img src=x>", "d&g", "</div>"):
        assert text in parsed.texts
    marked = [own for _, own in parsed.found if own.get("class") == "t at"]
    assert len(marked) == 2 * number


def test_colours_follow_the_activations():
    shown = html.example(NASTY.examples[0], 4.0)
    assert f"rgba({html.BLUE},0.70)" in shown
    assert 'title="does not count"' in shown
    assert html.ORANGE in html.example(NASTY.examples[1], 4.0)


def same(one, other):
    assert (one.model, one.latent, one.density, one.largest) == (
        *(other.model, other.latent, other.density, other.largest),
    )
    assert (one.top, one.bottom, one.neighbours) == (other.top, other.bottom, other.neighbours)
    assert len(one.examples) == len(other.examples)
    for a, b in zip(one.examples, other.examples, strict=True):
        assert (a.tokens, a.at, a.low, a.share) == (b.tokens, b.at, b.low, b.share)
        np.testing.assert_array_equal(np.nan_to_num(a.values), b.values)


def test_neuronpedias_json_comes_back(surveyed, tmp_path):
    table = surveyed.table("latents")
    alive = table["latent"][table["count"] > 50].head(3)
    cards = [NASTY, *(card.of_survey(surveyed, int(i)) for i in alive)]
    neuronpedia.write(cards, tmp_path / "export")
    for one, other in zip(cards, neuronpedia.read(tmp_path / "export"), strict=True):
        same(one, other)
    (tmp_path / "one.json").write_text(neuronpedia.as_json(cards[:1]))
    same(NASTY, neuronpedia.read(tmp_path / "one.json")[0])
    (tmp_path / "all.json").write_text(neuronpedia.as_json(cards))
    for one, other in zip(cards, neuronpedia.read(tmp_path / "all.json"), strict=True):
        same(one, other)


FEATURE = (
    "id modelId layer index sourceSetName creatorId createdAt maxActApprox hasVector vector "
    "vectorLabel vectorDefaultSteerStrength hookName topkCosSimIndices topkCosSimValues "
    "pos_str pos_values neg_str neg_values frac_nonzero freq_hist_data_bar_heights "
    "freq_hist_data_bar_values"
)
ACTIVATION = (
    "id tokens dataIndex index layer modelId dataSource maxValue maxValueTokenIndex minValue "
    "values creatorId createdAt binMin binMax binContains qualifyingTokenIndex"
)


def test_the_fields_are_those_of_neuronpedias_tables(tmp_path):
    neuronpedia.write([NASTY], tmp_path)
    feature, *_ = lines(tmp_path / "features" / "batch-0.jsonl.gz")
    activations = lines(tmp_path / "activations" / "batch-0.jsonl.gz")
    assert set(feature) <= set(FEATURE.split())
    assert feature["layer"] == "3-sae & co"
    assert feature["index"] == "7"
    assert feature["hookName"] == "blocks.3.hook_resid_post"
    assert set(activations[0]) <= set(ACTIVATION.split())
    assert activations[0]["values"] == [0, 0, 4]
    assert [a["binContains"] for a in activations] == [-1, 0.25]
    assert activations[0]["binMax"] == 4
    assert len({a["id"] for a in activations}) == 2


def lines(path):
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def test_the_apis_feature_is_read(tmp_path):
    """As GET /api/feature gives it: nulls, and fields that are not used here."""
    made = {
        **{"modelId": "gpt2-small", "layer": "6-res-jb", "index": "650", "maxActApprox": 9.5},
        **{"frac_nonzero": 0.001, "pos_str": [" dog"], "pos_values": [1.5], "neg_str": []},
        **{"neg_values": [], "freq_hist_data_bar_values": [1, 3], "explanations": []},
        "freq_hist_data_bar_heights": [10, 2],
        "topkCosSimIndices": None,
        "activations": [
            {
                **{"tokens": ["a", " dog"], "values": [0, 9.5], "maxValueTokenIndex": 1},
                **{"binMin": None, "binMax": None, "binContains": None},
            }
        ],
    }
    (tmp_path / "650.json").write_text(json.dumps(made))
    read = neuronpedia.read(tmp_path / "650.json")[0]
    assert read.title == "latent 650 of 6-res-jb"
    assert read.examples == (Example(("a", " dog"), (0.0, 9.5), 1),)
    assert read.edges == (0.0, 2.0, 4.0)
    assert "gpt2-small" in html.page([read])


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.jsonl.gz"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\x00", b"[1]", b"{}", b'{"modelId": 1',
     b'[{"modelId":"m","layer":"l","index":"x"}]',
     b'{"modelId":"m","layer":"l","index":"1","activations":[{"tokens":["a"],"values":[]}]}'],
)  # fmt: skip
def test_what_is_not_neuronpedias_is_one_line(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(UserError) as error:
        neuronpedia.read(path)
    assert "\n" not in str(error.value)


def test_the_commands(surveyed, tmp_path, capsys):
    on = ["--survey", str(surveyed.path)]
    assert main(["saes", "search", "--density", "0.01", "1", "--limit", "3", "--json", *on]) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    numbers = [str(row["latent"]) for row in found]
    out = ["--html", str(tmp_path / "a.html"), "--neuronpedia", str(tmp_path / "np")]
    assert main(["saes", "latent", *numbers, *on, *out]) == 0
    assert (tmp_path / "a.html").read_text().count('class="card"') == 3
    capsys.readouterr()
    assert main(["saes", "card", str(tmp_path / "np")]) == 0
    assert f"latent {numbers[0]} of 2-topk-L2-S0" in capsys.readouterr().out
    assert main(["saes", "latent", numbers[0], *on]) == 0
    assert "together with latent" in capsys.readouterr().out


def test_latents_on_a_prompt(surveyed, monkeypatch):
    """Against the plain encoder; OthelloGPT has no tokenizer, so its ids are given."""
    import torch

    from interp.latents import prompt
    from interp.model.site import Site

    subject, sae = prompt.surveyed_subject(surveyed), prompt.surveyed_sae(surveyed)
    batch = subject.pad([[20, 12, 43, 5, 33]])
    monkeypatch.setattr(type(subject), "tokens", lambda self, text: batch)
    site = Site.parse("2.resid_post")
    z = sae.encode(subject.capture(batch, [site])[site][0].float())
    each = prompt.strongest(surveyed, subject, sae, "any", 3)
    z[0] = 0  # skipped, as in the survey
    best = z[1:].topk(3)
    assert each["latent"].tolist() == best.indices.flatten().tolist()
    np.testing.assert_allclose(each["value"], best.values.flatten(), rtol=1e-5)
    assert each["position"].tolist() == [i for i in range(1, 5) for _ in range(3)]
    whole = prompt.firing(surveyed, subject, sae, "any", 10)
    assert whole["latent"].tolist() == z.amax(0).topk(10).indices.tolist()
    assert whole["tokens"].tolist() == (z != 0).sum(0)[torch.tensor(whole["latent"])].tolist()
    assert isinstance(whole, pd.DataFrame)
