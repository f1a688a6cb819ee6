"""The board's and the comparison's pages on a tiny model, without a browser."""

import pytest
from streamlit.testing.v1 import AppTest

from interp.apps import othello
from interp.othello.position import parse_moves, position_after

from ..apps.views import opened


def _page(module: str) -> None:
    from importlib import import_module

    import_module(f"interp.apps.{module}").page()


def _found(widgets, start: str):
    return next(widget for widget in widgets if widget.label.startswith(start))


def test_board_page(store, monkeypatch) -> None:
    monkeypatch.setenv("INTERP_RUNS", str(store))
    page = AppTest.from_function(_page, args=("othello",), default_timeout=120).run()
    assert not page.error
    assert len(page.metric) == 2
    _found(page.slider, "Moves played").set_value(9)
    _found(page.selectbox, "Directions of").set_value("means").run()
    assert not page.exception
    assert len(_found(page.selectbox, "Disc").options) == 13
    _found(page.selectbox, "Directions of").set_value("topk").run()
    assert not page.exception
    _found(page.selectbox, "Directions of").set_value("l1")
    _found(page.slider, "Length").set_value(0.0).run()
    assert not page.exception
    assert page.metric[0].value == page.metric[1].value
    assert any("interp othello play" in code.value for code in page.code)


@pytest.mark.parametrize(
    ("clicked", "chosen"), [(["e4"], "e4"), ("d5", "d5"), (["a1"], None), (None, None)]
)
def test_a_click_on_a_disc_chooses_it(clicked, chosen, monkeypatch) -> None:
    """With and without a list around the name; an empty square, or no click, chooses nothing."""
    state: dict[str, str] = {}
    monkeypatch.setattr(othello.st, "session_state", state)
    points = [] if clicked is None else [{"customdata": clicked}]
    othello._remember({"selection": {"points": points}}, position_after(parse_moves("f5")))
    assert state.get("disc") == chosen


def test_layers_page(store, monkeypatch) -> None:
    monkeypatch.setenv("INTERP_RUNS", str(store))
    page = AppTest.from_function(_page, args=("othello_layers",), default_timeout=120).run()
    assert not page.exception
    assert not page.error
    code = [block.value for block in page.code]
    assert any("interp othello compare --model" in text for text in code)
    code = [block.value for block in opened(page, "Board edit").code]
    assert any("interp othello edit --compare" in text for text in code)
    opened(page, "Latents").number_input[0].set_value(7).run()
    assert any("Detects best" in text.value for text in page.markdown)
    assert not page.exception


def test_the_shipped_comparison_is_there_in_an_empty_store(own_home) -> None:
    page = AppTest.from_function(_page, args=("othello_layers",), default_timeout=120).run()
    assert not page.exception
    assert not page.error
    assert any("ships with the workbench" in caption.value for caption in page.caption)
    assert [tab.label for tab in page.tabs] == ["Layers"]
    assert any("Linear probes label" in each.value for each in page.markdown)


def test_pages_without_runs_say_how_to_make_one(own_home) -> None:
    for module in ("othello", "othello_layers"):
        page = AppTest.from_function(_page, args=(module,), default_timeout=120).run()
        assert any("interp othello compare" in code.value for code in page.code)
