"""The circuits page without a browser: a card, hostile names, groups, what reproduces it."""

import json
import re
import shlex

import pytest
from streamlit.testing.v1 import AppTest

from interp.circuits.groups import GroupConfig
from interp.cli import parse
from interp.runs.store import Store
from interp.runs.study import run_or_load

from ..apps.views import opened
from .planted import EVIL, write_run


def page():
    from interp.apps.circuits import page

    page()


@pytest.fixture
def shown(own_home):
    write_run(own_home / "runs")
    return AppTest.from_function(page, default_timeout=120)


def texts(shown):
    return [each.value.replace("\\", "") for each in shown.caption]


def sound(shown):
    assert not shown.exception
    assert not shown.error
    return shown


def test_the_largest_node_is_shown_first_and_any_by_its_name(shown):
    sound(shown.run())
    assert shown.subheader[0].value.replace("\\", "") == "2.down.5@4"
    assert any("' are' - ' is' = 3.375" in each for each in texts(shown))
    numbers = {m.label: m.value for m in shown.metric}
    assert numbers == {"attribution, logits": "2.88", "activation": "1.5"}
    assert "Edges in: 2, +2.875 together" in texts(shown)
    commands = [block.value for block in shown.code if block.language == "bash"]
    assert any("neurons clamp --neuron=2.down.5 '--prompt=The keys" in each for each in commands)
    box = next(box for box in shown.selectbox if box.label == "Node")
    sound(box.set_value("1.head.3@4:1").run())
    assert shown.subheader[0].value.replace("\\", "") == "1.head.3@4:1"
    assert [each.value for each in shown.text] == ["␣are  ␣were", "␣is"]
    where = "head at position 4, ␣cabinet, reading from position 1, ␣keys"
    assert where in texts(shown)
    assert not any("neurons clamp" in block.value for block in shown.code)


def test_a_link_fills_in_the_form(shown):
    asked = {"prompt": "The key to the cabinet", "target": " is", "against": " are"}
    for name, value in asked.items():
        shown.query_params[name] = value
    shown.session_state["chosen model"] = "gemma3-270m"
    sound(shown.run())
    found = {box.label: box.value for box in shown.text_input}
    assert [found[name] for name in ("Prompt", "Target", "Against (may be empty)")] == list(
        asked.values()
    )
    assert found["Model"] == "gemma3-270m"


def test_commands_parse_and_the_call_runs(shown, own_home):
    sound(shown.run())
    bash = [block.value for block in shown.code if block.language == "bash"]
    assert len(bash) == 3
    sound(opened(shown, "Take away"))
    bash += [block.value for block in shown.code if block.language == "bash"]
    assert len(bash) == 5
    for command in bash:
        parse(shlex.split(command)[1:])
    sound(opened(shown, "Graph"))
    stored = [b.value for b in shown.code if b.value.startswith("import interp\nrun = ")]
    assert len(stored) == 1
    exec(stored[0], {})


def test_what_is_hidden_is_said(shown):
    sound(shown.run())
    nodes = next(slider for slider in shown.slider if slider.label.startswith("Nodes"))
    for share, weaker in ((0, "10 weaker nodes"), (100, " 0 weaker nodes")):
        sound(nodes.set_value(share).run())
        assert (
            weaker in json.loads(shown.get("plotly_chart")[0].proto.spec)["layout"]["title"]["text"]
        )


def framed():
    """The page as the app shows it: its address is its state."""
    from interp.apps.address import followed
    from interp.apps.circuits import page

    with followed("circuits"):
        page()


def test_nodes_are_merged_into_a_run_that_shows(own_home):
    write_run(own_home / "runs")
    shown = AppTest.from_function(framed, default_timeout=120)
    shown.query_params["view"] = "Groups"
    sound(shown.run())
    name = next(box for box in shown.text_input if box.label == "Name of the group")
    name.set_value("**plural**")
    shown.multiselect[0].set_value(["1.down.17@4", "2.down.5@4"])
    button = next(b for b in shown.button if b.label == "Merge")
    sound(button.click().run())
    (made,) = Store().runs("circuits.group")
    assert made.config["groups"] == ["**plural**=1.down.17@4,2.down.5@4"]
    assert shown.query_params["grouped"] == made.path.name
    assert shown.segmented_control[0].value == "Grouped"
    assert shown.subheader[0].value == r"\*\*plural\*\*"
    assert {m.label: m.value for m in shown.metric}["flows inside"] == "2.75"


def test_a_group_without_a_name_is_a_mistake_in_place(shown):
    sound(opened(shown, "Groups"))
    next(b for b in shown.button if b.label == "Merge").click().run()
    assert not shown.exception
    assert "give the group a name" in shown.error[0].value


def test_hostile_names_are_shown_as_they_are(own_home):
    evil = {"prompt": EVIL[3], "target": EVIL[1], "model": EVIL[3]}
    write_run(own_home / "runs", EVIL, EVIL, evil)
    run_or_load(GroupConfig((f"{EVIL[3]}=1.down.17@4",)))
    shown = AppTest.from_function(page, default_timeout=120)
    shown.query_params["grouped"] = ""
    sound(shown.run())
    for block in (*shown.caption, *shown.subheader, *shown.markdown, *shown.warning):
        said = re.sub(r"^\[([^][]+)\]\(/[^()]+\)$", r"\1", block.value)  # a link of our own
        assert not re.search(r"(?<!\\)[`*_\[\]()!<$]", said)


def test_without_a_run_and_with_an_empty_prompt(own_home):
    shown = sound(AppTest.from_function(page, default_timeout=120).run())
    assert "No finished run of circuits" in shown.info[0].value.replace("\\", "")
    parse(shlex.split(shown.code[0].value)[1:])
    next(b for b in shown.button if b.label == "Trace").click().run()
    assert "the prompt is empty" in shown.error[0].value
    shown.segmented_control[0].set_value("Grouped").run()
    assert not shown.exception
    assert "circuits.group" in shown.info[0].value.replace("\\", "")


def test_a_prompt_is_traced_in_place(own_home, dog_model):
    shown = sound(AppTest.from_function(page, default_timeout=120).run())
    given = {"Prompt": "w1 w2", "Target": "dog", "Against (may be empty)": "w3"}
    given["Counterfactual prompt (may be empty)"] = "w1 w4"
    for box in shown.text_input:
        box.set_value(given.get(box.label, str(dog_model) if box.label == "Model" else ""))
    next(b for b in shown.button if b.label == "Trace").click().run()
    sound(shown)
    (made,) = Store().runs("circuits.trace")
    assert made.config["target"] == "dog"
    assert shown.query_params["run"] == made.path.name
    assert any("“w1 w2”" in each for each in texts(shown))
    control = next(c for c in shown.segmented_control if c.label == "Nodes by")
    assert control.value == "effect"
    effects = made.table("nodes").set_index("node")["effect"]
    assert shown.metric[-1].label == "effect, logits"
    assert float(shown.metric[-1].value) == pytest.approx(effects[effects.abs().idxmax()], rel=6e-3)


def test_a_counterfactual_is_named_and_edges_are_effects(own_home):
    write_run(own_home / "runs", effects=True)
    shown = sound(AppTest.from_function(page, default_timeout=120).run())
    said = "' are' - ' is' = 3.375, and 1 at the counterfactual “The key to the cabinet”"
    assert any(said in each for each in texts(shown))
    assert shown.subheader[0].value.replace("\\", "") == "1.down.17@4"
    assert "Edges in: 3, +1.625 together" in texts(shown)
    labels = [slider.label for slider in shown.slider]
    assert labels == [f"{what}: share of the absolute effect" for what in ("Nodes", "Edges")]
