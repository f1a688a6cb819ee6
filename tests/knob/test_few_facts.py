"""A table of few facts is refused before anything is trained."""

import pytest

from interp.errors import UserError
from interp.knob.finetune import FinetuneConfig
from interp.runs.writer import RunWriter


def test_demonstrations_that_the_facts_do_not_give(settings, tmp_path):
    out = RunWriter(tmp_path, {})
    with pytest.raises(UserError, match="there are 5: give more, or --settings without '10-shot'"):
        FinetuneConfig(**settings, rows=32).run(out)
    assert not out.has("adapter/adapter_config.json")
    assert not list(tmp_path.rglob("train"))
