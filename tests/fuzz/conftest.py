"""One server for all that is fuzzed."""

import pytest

from .harness import Server


@pytest.fixture(scope="session")
def server():
    made = Server()
    yield made
    made.close()
