"""What a page says of an address that it cannot read, and where a run's key leads."""

import pytest
from streamlit.testing.v1 import AppTest

from interp.apps import unread

from ..manifests import finish_by_hand


def a_page():
    import streamlit as st

    from interp.analyses import Page
    from interp.apps.address import bound, followed
    from interp.apps.unread import about

    with followed("probe") as arrived:
        st.number_input("K", key=bound("k", 16))
        st.selectbox("Layer", ["all", "1"], key=bound("layer", "all", ["all", "1"]))
        st.toggle("Chat", key=bound("chat", True))
        st.multiselect("Kinds", ["up", "down"], key=bound("kinds", ()))
        st.text_input("List", key=bound("list", "x", instead=("begun",)))
        about(Page("interp.apps.probe", "", ""), arrived)


def arrived(function, **params):
    shown = AppTest.from_function(function, default_timeout=120)
    for name, value in params.items():
        shown.query_params[name] = value
    shown.run()
    assert not shown.exception
    return shown


def url(shown):
    """The URL's parameters, of each one value, which a test of Streamlit's has as a list or not."""
    every = dict(shown.query_params).items()
    return {name: value if isinstance(value, str) else value[-1] for name, value in every}


def said(blocks):
    return [block.value.replace("\\", "") for block in blocks]


def test_what_cannot_be_read_is_said_once():
    shown = arrived(a_page, layer="abc", k="much", chat="maybe", rnak="qqq", layre="*x*" * 90)
    assert said(shown.warning) == [
        "The address says 'much' for k, which is none here: '16' is shown.",
        "The address says 'abc' for layer, which is none here: 'all' is shown.",
        "The address says 'maybe' for chat, which is none here: 'yes' is shown.",
    ]
    (other,) = said(shown.caption)
    assert other.startswith("The address also says rnak=qqq, layre=*x**x*")
    assert len(other) < 200
    shown.number_input[0].set_value(3).run()
    assert not said(shown.warning)
    assert float(url(shown)["k"]) == 3
    assert "layer" not in url(shown)


@pytest.mark.parametrize(
    "params",
    [{"k": "16", "layer": "1", "chat": "yes"}, {"k": "4", "layer": "all", "kinds": "up"}, {}],
)
def test_what_is_read_is_not_mentioned(params):
    shown = arrived(a_page, **params, view="Nearest", edits="hold 1.down.2", run="0123456789ab")
    assert not said(shown.warning)
    assert not said(shown.caption), "another page's, or a closed tab's"


def a_form():
    import streamlit as st

    from interp.analyses import Page
    from interp.apps.address import bound, followed, knows
    from interp.apps.unread import about

    with followed("probe") as arrived:
        knows(["k", "norm"], all=True)
        st.number_input("K", key=bound("k", 16))
        about(Page("interp.apps.probe", "", ""), arrived)


def test_a_form_names_a_setting_that_it_lacks_though_other_pages_have_it():
    given = {"k": "3", "norm": "raw", "layers": "99"}
    assert not said(arrived(a_page, **given).caption), "layers is another page's"
    (other,) = said(arrived(a_form, **given).caption)
    assert other == "The address also says layers=99, which this page does not know."


def test_an_empty_list_and_what_a_list_began_with_leave_the_address():
    shown = arrived(a_page, begun="1.down.2", kinds="up")
    shown.multiselect[0].set_value([]).run()
    assert url(shown) == {"begun": "1.down.2"}
    shown.text_input[0].set_value("y").run()
    assert url(shown) == {"list": "y"}


def test_names_of_parameters_are_told_from_other_words():
    names = "view direction edits act which node neuron standing heads at other lens text c"
    assert [name for name in names.split() if not unread._a_parameter(name)] == []
    assert not any(map(unread._a_parameter, ("rank", "rnu")))


def heads_page():
    from interp.apps.address import followed
    from interp.apps.heads import page

    with followed("heads"):
        page()


@pytest.fixture
def runs(own_home):
    made = {}
    for study in ("circuits.patch", "circuits.head", "circuits.roles", "neurons.clamp"):
        made[study] = finish_by_hand(own_home / "runs", study, {"model": "m"}).name
    return made


@pytest.mark.parametrize(
    ("params", "study", "leads"),
    [
        ({"run": "circuits.roles"}, "circuits.roles", {"view": "Every head", "heads": None}),
        ({"patch": "circuits.head"}, "circuits.head", {"view": "A head", "head": None}),
        ({"view": "A head", "run": "circuits.patch"}, "circuits.patch", {"patch": None}),
    ],
)
def test_a_run_of_another_tab_leads_there(runs, params, study, leads):
    given = {name: runs.get(value, value) for name, value in params.items()}
    shown = arrived(heads_page, **given)
    assert url(shown) == {name: value or runs[study] for name, value in leads.items()}


def test_a_run_of_another_page_is_a_link(runs):
    shown = arrived(heads_page, patch=runs["neurons.clamp"])
    (info,) = said(shown.info)
    assert f"{runs['neurons.clamp']} is one of neurons.clamp, which another page shows" in info
    assert any(f"/clamp?run={runs['neurons.clamp']}" in text for text in said(shown.markdown))


def new_page():
    from interp.apps.address import followed
    from interp.apps.new import page

    with followed("new"):
        page()


def test_no_study_stands_in_for_one_that_there_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_RUNS", str(tmp_path))  # an empty home would fetch the model anew
    shown = arrived(new_page, study="nonsense", k="abc")
    assert said(shown.error) == ["there is no study 'nonsense': choose one of the list"]
    assert not shown.button
    shown.selectbox[0].set_value("neurons.tars").run()
    assert not shown.exception
    assert url(shown)["study"] == "neurons.tars"
