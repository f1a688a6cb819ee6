"""One server for all that is fuzzed."""

import pytest

from .harness import Server


@pytest.fixture(scope="session")
def server():
    made = Server("streamlit.testing.v1")
    yield made
    made.close()
