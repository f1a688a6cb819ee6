"""The steering page: a list of edits, both sides of what a model says, and what reproduces them."""

import shlex
import threading
from urllib.parse import unquote

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from interp.apps import answers, edit_texts, pool
from interp.apps.lending import Pool, limit
from interp.cli import parse
from interp.directions import Directions
from interp.directions.acts import edits_of, parse_act
from interp.directions.provenance import Provenance
from interp.directions.steering import compared
from interp.latents.survey import SurveyConfig
from interp.model.site import Site
from interp.model.subject import open_subject
from interp.model.weights import open_weights
from interp.runs.store import Store
from interp.runs.study import run_or_load

from ..latents.planted import write_sae

PAGE = "from interp.apps.steer import page\npage()"


@pytest.fixture(scope="module")
def subject(talking_model):
    return open_subject(talking_model)


@pytest.fixture(scope="module")
def sae(talking_model, tmp_path_factory):
    return write_sae(tmp_path_factory.mktemp("sae") / "sae", talking_model)


@pytest.fixture(scope="module")
def store(talking_model, sae, tmp_path_factory):
    """A survey of the SAE whose latent 7 writes 'dog'."""
    root = tmp_path_factory.mktemp("acting")
    corpus = root / "text.txt"
    corpus.write_text(" ".join(f"w{i % 211}" for i in range(700)))
    sizes = {"tokens": 400, "length": 40, "neurons": 0, "corpus": str(corpus)}
    run_or_load(SurveyConfig(model=str(talking_model), saes=str(sae), **sizes), Store(root))
    return root


@pytest.fixture(autouse=True)
def empty(monkeypatch, store):
    """A pool and a memory of the test's own."""
    monkeypatch.setenv("INTERP_RUNS", str(store))
    monkeypatch.setattr(pool, "POOL", Pool(limit))
    monkeypatch.setattr(answers, "_kept", type(answers._kept)())


def at(model, live="yes", text="w1 w2", **params):
    """The page at an address, not run yet."""
    shown = AppTest.from_string(PAGE, default_timeout=120)
    shown.session_state["chosen model"] = str(model)
    given = {"text": text, "chat": "no", "tokens": "5", "live": live, **params}
    for name, value in given.items():
        shown.query_params[name] = value
    return shown


def arrived(model, live="yes", text="w1 w2", **params):
    return at(model, live, text, **params).run()


def texts(shown):
    return [block.value for block in shown.text]


def listed(shown):
    return edit_texts.split(shown.session_state["?edits"])


def fine(shown):
    assert not shown.exception
    assert not [error.value for error in shown.error]
    return shown


def test_a_link_restores_the_edits_and_both_texts(talking_model, subject):
    shown = fine(arrived(talking_model, edits="hold 1.down.17=50;off project-out 1.down.3"))
    edits = edits_of([parse_act("hold 1.down.17=50")], subject, str(talking_model))
    rows = compared(subject, edits, ["w1 w2"], chat=False, tokens=5)
    assert texts(shown) == rows["text"].tolist()
    assert texts(shown)[1] == "dog" * 5
    assert [toggle.value for toggle in shown.toggle if toggle.key.startswith("on ")] == [
        True,
        False,
    ]
    said = " ".join(block.value for block in shown.markdown).replace("\\", "")
    assert f"{rows['kl'][1]:.2g} nats" in said
    assert "“dog”" in said


@pytest.mark.parametrize(
    "edits",
    [
        ["hold 1.down.17=50", "project-out 1.down.3"],
        ["steer-latent sae:{sae}:7=30", "ablate-latent sae:{sae}:5"],
        ["clamp-latent sae:{sae}:7=40"],
        ["hold 1.down.17=50.123456789", "add 1.down.4=1234567.25"],
        ["splice sae:{sae}", "splice+error sae:{sae}", "add 1.down.4=2"],
    ],
)
def test_several_edits_are_reproduced_by_one_command_and_one_call(talking_model, sae, edits):
    edits = [each.format(sae=sae) for each in edits]
    sampling = {"temperature": "0.7654321987", "top_p": "0.8765432198", "seed": "3"}
    shown = fine(arrived(talking_model, edits=edit_texts.joined(edits), **sampling))
    code = {block.language: block.value for block in shown.code}
    words = shlex.split(code["bash"])[1:]
    parse(words)
    assert words[1 : 1 + len(edits)] == edits
    assert [words[words.index(f"--{name.replace('_', '-')}") + 1] for name in sampling] == [
        *sampling.values()
    ]
    assert f"Sampling({sampling['temperature']}, {sampling['top_p']}, 3)" in code["python"]
    scope = {}
    exec(code["python"], scope)
    assert scope["rows"]["text"].tolist() == texts(shown)


def test_the_command_says_what_the_page_says(talking_model, capsys):
    from interp.cli import main

    shown = fine(arrived(talking_model, edits="hold 1.down.17=50"))
    words = shlex.split({block.language: block.value for block in shown.code}["bash"])[1:]
    assert main([*words, "--json"]) == 0
    import json

    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["text"] for row in printed["results"]] == texts(shown)


def test_the_list_is_changed_by_hand(talking_model):
    shown = fine(arrived(talking_model, edits="hold 1.down.17=50"))
    before = texts(shown)
    slider = next(s for s in shown.slider if s.key == "value hold 1.down.17 0")
    assert slider.min < 0 < slider.max
    slider.set_value(slider.min).run()
    fine(shown)
    assert parse_act(listed(shown)[0]).value == slider.min
    assert texts(shown)[0] == before[0]
    assert texts(shown)[1] != before[1]
    next(t for t in shown.toggle if t.key == "on hold 1.down.17 0").set_value(False).run()
    assert listed(shown)[0].startswith("off hold 1.down.17=")
    assert texts(fine(shown)) == before[:1], "no edit is on"
    next(b for b in shown.button if b.label == "Remove").click().run()
    assert listed(fine(shown)) == []
    assert texts(shown) == before[:1]


def test_an_edit_is_added(talking_model, sae, monkeypatch):
    monkeypatch.setattr("interp.apps.sets.stored_saes", lambda _: [str(sae)])
    shown = fine(arrived(talking_model, edits="hold 1.down.17=50"))
    for way, fill in (
        ("As a text", {"new text": "add 1.down.4=2"}),
        ("Hold a neuron", {"new neuron": "1.up.3"}),
        ("Act by an SAE's latent", {"new latent": 7}),
    ):
        shown.selectbox(key="way").set_value(way).run()
        for key, value in fill.items():
            where = shown.number_input if isinstance(value, int) else shown.text_input
            where(key=key).set_value(value)
        shown.run()
        fine(shown.button(key="add").click().run())
    names = ["hold 1.down.17", "add 1.down.4", "hold 1.up.3", f"steer-latent sae:{sae}:7"]
    assert [edit_texts.parsed(text).name for text in listed(shown)] == names
    assert not any(edit_texts.parsed(text).unset for text in listed(shown))
    assert any("It raises dog" in caption.value for caption in shown.caption)
    shown.button(key="add").click().run()
    assert "is on the list already" in shown.error[0].value.replace("\\", "")


def test_edits_that_are_left_out_are_counted(talking_model):
    shown = arrived(talking_model, edits="hold 1.down.17=50;hold 1.down.99999;hold 9.up.1=2")
    said = [warning.value.replace("\\", "") for warning in shown.warning]
    assert said == ["2 of 3 edits are left out: see above."]
    assert texts(shown)[1] == "dog" * 5, "the sound one acts"


def test_what_the_model_has_not_is_not_added(talking_model):
    good = "hold 1.down.17=50"
    shown = fine(arrived(talking_model, live="no", edits=good))
    shown.selectbox(key="way").set_value("As a text").run()
    for text, why in (("hold 1.down.99999", "neurons 0..47"), ("add 9.down.1=2", "no layer 9")):
        shown.text_input(key="new text").set_value(text).run()
        shown.button(key="add").click().run()
        assert why in shown.error[0].value.replace("\\", ""), shown.error[0].value
        assert listed(shown) == [good]


def test_an_edit_a_parameter_is_the_same_list(talking_model):
    several = ["hold 1.down.17=50", "off add 1.down.4=2"]
    assert listed(fine(arrived(talking_model, live="no", edits=several))) == several


@pytest.mark.parametrize(
    ("source", "act", "edit"),
    [
        ("1.down.17", "", "hold 1.down.17"),
        ("1.down.17", "ablate", "hold 1.down.17=0"),
        ("sae:SAE:7", "", "steer-latent sae:SAE:7"),
        ("sae:SAE:7", "ablate", "ablate-latent sae:SAE:7"),
        ("kept:mine:first", "", "add kept:mine:first"),
        ("kept:mine:first", "ablate", "project-out kept:mine:first"),
        ("", "ablate", ""),
    ],
)
def test_a_link_to_a_direction_begins_the_list(source, act, edit):
    assert edit_texts.split(edit_texts.from_link(source, act)) == ([edit] if edit else [])


def test_two_edits_of_one_thing_are_two(talking_model, subject):
    """The list of a page is what the address says, and what the command would do with it."""
    edits = ["hold 1.down.17=0", "add 1.down.17=3", "add 1.down.17=40"]
    shown = fine(arrived(talking_model, edits=";".join(edits)))
    assert listed(shown) == edits
    acts = edits_of([parse_act(edit) for edit in edits], subject, str(talking_model))
    rows = compared(subject, acts, ["w1 w2"], chat=False, tokens=5)
    assert texts(shown) == rows["text"].tolist()
    [b for b in shown.button if b.label == "Remove"][1].click().run()
    assert listed(fine(shown)) == [edits[0], edits[2]]


def test_without_an_edit_nothing_is_said_of_edits(talking_model):
    shown = fine(arrived(talking_model))
    said = " ".join(block.value for block in shown.markdown).replace("\\", "")
    assert "The likeliest is “" in said
    assert "edits move" not in said


def test_a_slider_opens_where_it_does_something(talking_model, subject, sae):
    for source in ("1.down.17", "1.up.17", "1.gate.17", f"sae:{sae}:7"):
        shown = fine(arrived(talking_model, direction=source, tokens="3"))
        row = edit_texts.parsed(listed(shown)[0])
        assert not row.unset
        slider = next(s for s in shown.slider if s.key == f"value {row.name} 0")
        assert 0 < row.act.value < slider.max
        said = " ".join(block.value for block in shown.markdown).replace("\\", "")
        moved = float(said.partition("distribution by ")[2].partition(" nats")[0])
        assert moved > 0.01, source


def test_without_the_model_nothing_is_loaded(talking_model):
    shown = fine(arrived(talking_model, live="no", direction="1.down.17"))
    assert len(pool.POOL) == 0
    assert any("Nothing is loaded yet" in info.value for info in shown.info)
    assert listed(shown) == ["hold 1.down.17"]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"edits": "hold dog=3"}, "names no neuron"),
        ({"edits": "hold 9.down.1=3"}, "no layer 9"),
        ({"edits": "dance 1.down.1=3"}, "begins with one of"),
        ({"edits": "splice sae:/nowhere/at-all"}, "nowhere"),
        ({"edits": "add 1.down.1=1e30"}, "overflows float32"),
        ({"text": " "}, "the prompt is empty"),
        ({"edits": "add /no/such/folder:3=2"}, "no such|is no folder"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_the_page_on(talking_model, params, said):
    good = "hold 1.down.17=50"
    given = {"edits": good, **params}
    if given["edits"] != good:
        given["edits"] += f";{good}"
    shown = arrived(talking_model, **given)
    assert not shown.exception
    assert len(shown.error) == 1, [e.value for e in shown.error]
    import re

    assert re.search(said, shown.error[0].value.replace("\\", ""))
    assert shown.toggle(key="?live").value is True
    shown.text_input(key="?text").set_value("w1 w2")
    bad = [text for text in listed(shown) if text != good]
    for button in shown.button:
        if bad and button.key == f"remove {bad[0].partition('=')[0]} 0":
            button.click()
    fine(shown.run())
    assert texts(shown)[1] == "dog" * 5


def test_the_text_as_it_is_is_made_once(talking_model, monkeypatch):
    from interp.model.subject import Subject

    passes, own = [], Subject.stream
    monkeypatch.setattr(
        Subject, "stream", lambda self, *given: [passes.append(1), own(self, *given)][1]
    )
    shown = fine(arrived(talking_model, edits="hold 1.down.17=50"))
    assert len(passes) == 2
    for value in (0.0, -20.0):
        shown.slider(key="value hold 1.down.17 0").set_value(value).run()
    assert len(passes) == 4
    shown.slider(key="value hold 1.down.17 0").set_value(0.0).run()
    assert len(passes) == 4, "remembered"


def test_a_direction_at_the_same_path_is_told_apart(talking_model, tmp_path):
    """Fault 3: overwritten, it is another edit."""
    head = open_weights(str(talking_model)).W_U()
    about = Provenance.of("test", open_weights(str(talking_model)))
    folder, said = tmp_path / "own", []
    for token in (123, 50):
        index = pd.DataFrame({"name": ["d"]})
        Directions(Site("resid_post", 1), head[[token]], index, about).save(folder)
        said.append(texts(fine(arrived(talking_model, edits=f"add {folder}:0=50", tokens="2")))[1])
    assert said == ["dogdog", "w50w50"]


def test_a_conversation(talking_model, subject):
    shown = fine(arrived(talking_model, chat="yes", edits="hold 1.down.17=50", tokens="3"))
    shown.chat_input[0].set_value("w5  w6").run()
    fine(shown)
    edits = edits_of([parse_act("hold 1.down.17=50")], subject, str(talking_model))
    rows = compared(subject, edits, ["w1 w2", "w5 w6"], tokens=3)
    first, second = rows["text"].tolist()[:2], rows["text"].tolist()[2:]
    assert texts(shown) == ["w1 w2", *first, "w5 w6", *second]
    code = {block.language: block.value for block in shown.code}
    scope = {}
    exec(code["python"], scope)
    assert scope["rows"]["text"].tolist() == rows["text"].tolist()
    shown.button[-1].click().run()
    assert texts(fine(shown)) == first


def test_three_visitors_at_once_each_get_their_own(talking_model, subject):
    """Each wish's texts are those of the model alone, however many ask at once."""
    wishes = ["hold 1.down.17=50", "add 1.down.4=30", "hold 1.up.3=40"]
    want = {}
    for wish in wishes:
        edits = edits_of([parse_act(wish)], subject, str(talking_model))
        want[wish] = compared(subject, edits, ["w1 w2"], chat=False, tokens=20)["text"].tolist()
    assert len({texts[1] for texts in want.values()}) == 3
    # made beforehand, since each writes the same script file
    pages = {wish: at(talking_model, edits=wish, tokens="20") for wish in wishes}
    threads = [threading.Thread(target=page.run) for page in pages.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert {wish: texts(page) for wish, page in pages.items()} == want
    assert len(pool.POOL) == 1


@pytest.mark.parametrize(
    "list_", [[], ["hold 1.down.17=50"], ["add a;b%3B=2", "off hold 1.up.3"], ["add x: dog, cat=2"]]
)
def test_a_list_s_text_is_the_list(list_):
    assert edit_texts.split(edit_texts.joined(list_)) == list_
    assert [edit_texts.parsed(text).text for text in list_] == list_
    assert unquote(edit_texts.joined(list_)).count(";") >= len(list_) - 1
