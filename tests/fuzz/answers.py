"""The same question to a stored run, by command line, notebook and app: what each prints."""

from __future__ import annotations

import json
from pathlib import Path


def notebook(arguments: list[str]) -> int:
    """Print every table of the run, and the answers of a search, as a notebook would have them."""
    from interp.neurons import search
    from interp.runs.store import Store

    atlas = search.open_atlas(None, Store(Path("runs")))
    print(json.dumps([atlas.config, atlas.metrics], sort_keys=True))
    for answer in (atlas.table("neurons"), search.top(atlas, limit=20), search.find(atlas, "#7")):
        print(answer.to_json(orient="records"))
    print(search.density(atlas, "z").to_json(orient="records"))
    return 0


def app(arguments: list[str]) -> int:
    """Print what the atlas page shows. A message in place makes it a line, as on the command
    line."""
    from streamlit.testing.v1 import AppTest

    from interp.errors import UserError

    shown = AppTest.from_function(_page, default_timeout=120).run()
    if shown.exception:
        raise RuntimeError(shown.exception[0].value)
    for message in (*shown.error, *shown.warning, *shown.info):
        raise UserError(str(message.value))
    for frame in shown.dataframe:
        print(frame.value.to_json(orient="records"))
    print([caption.value for caption in shown.caption])
    return 0


def _page() -> None:
    from interp.apps.atlas import page

    page()
