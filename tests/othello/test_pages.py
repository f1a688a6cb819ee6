"""The board's and the comparison's pages on a tiny model, without a browser."""

from streamlit.testing.v1 import AppTest


def _page(module: str) -> None:
    from importlib import import_module

    import_module(f"interp.apps.{module}").page()


def test_board_page(store, monkeypatch) -> None:
    monkeypatch.setenv("INTERP_RUNS", str(store))
    page = AppTest.from_function(_page, args=("othello",), default_timeout=120).run()
    assert not page.exception
    assert not page.error
    assert len(page.metric) == 2
    next(s for s in page.slider if s.label == "Moves played").set_value(9).run()
    assert not page.exception
    discs = next(s for s in page.selectbox if s.label.startswith("Disc"))
    assert len(discs.options) == 13
    for reader in ("means", "topk", "l1"):
        next(s for s in page.selectbox if s.label == "Push along").set_value(reader).run()
        assert not page.exception
    scale = next(s for s in page.slider if s.label.startswith("Length"))
    scale.set_value(0.0).run()
    assert page.metric[0].value == page.metric[1].value


def test_layers_page(store, monkeypatch) -> None:
    monkeypatch.setenv("INTERP_RUNS", str(store))
    page = AppTest.from_function(_page, args=("othello_layers",), default_timeout=120).run()
    assert not page.exception
    assert not page.error
    code = [block.value for block in page.code]
    assert any(text.startswith("interp othello compare --model") for text in code)
    assert any(text.startswith("interp othello edit --compare") for text in code)
    page.number_input[0].set_value(7).run()
    assert any("Stands best for" in text.value for text in page.markdown)
    assert not page.exception


def test_pages_without_runs_say_how_to_make_one(own_home) -> None:
    for module in ("othello", "othello_layers"):
        page = AppTest.from_function(_page, args=(module,), default_timeout=60).run()
        assert any("interp othello compare" in code.value for code in page.code)
