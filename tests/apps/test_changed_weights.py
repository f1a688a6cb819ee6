"""Pages that show directions whose model's folder holds other weights by now."""

import pytest
import torch

from interp.directions.keeping import keep

from ..directions.gains import with_gain
from .test_direction import asked, direction_page, kept_page, said

CHANGED = "as it was: the content of its folder changed since"


@pytest.fixture
def changed(dog_model, tmp_path, own_home):
    folder = with_gain(dog_model, tmp_path / "changed", torch.full((32,), 2.0))
    for name in ("1.up.3", "0.down.3"):
        keep("c", name, model=str(folder))
    return with_gain(folder, folder, torch.linspace(-1, 3, 32))


@pytest.mark.parametrize("view", ["tokens", "nearest", "split", "examples"])
def test_a_direction_says_it_in_every_view(view, changed):
    shown = asked(direction_page, changed, direction="kept:c:0.down.3", view=view)
    assert f"This direction is of {changed} {CHANGED}" in said(shown)
    now = asked(direction_page, changed, direction="0.down.3", view=view)
    assert CHANGED not in said(now)


def test_what_is_compared_says_it(changed):
    given = {"direction": "kept:c:1.up.3", "view": "compare"}
    shown = asked(direction_page, changed, **given, other="0.down.3")
    assert f"They are of two states of {changed}" in said(shown)
    assert "none" in {each.value for each in shown.metric}
    both = asked(direction_page, changed, **given, other="kept:c:0.down.3")
    assert said(both).count(CHANGED) == 2
    assert {each.label: each.value for each in both.metric}[
        "cosine in the stream, before the norm"
    ] == "none"


def test_a_collection_says_it(changed):
    shown = asked(kept_page, changed, name="c", view="Compare")
    for name in ("1.up.3", "0.down.3"):
        assert f"{name} is of {changed} {CHANGED}" in said(shown)
    assert "1.up.3 is left out: the gain of its norm is not here" in said(shown)
