"""A text of many documents."""

import json

import pytest


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    """40 documents of the same 20 words."""
    file = tmp_path_factory.mktemp("text") / "text.jsonl"
    words = [" ".join(f"w{(3 * d + i * i) % 20}" for i in range(40)) for d in range(40)]
    file.write_text("\n".join(json.dumps({"text": each}) for each in words))
    return str(file)
