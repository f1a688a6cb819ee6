"""Models that several of the files read, opened once."""

import pytest

from interp.model.subject import open_subject

from ..conftest import make_model
from ..letters import letter_tokenizer


@pytest.fixture(scope="session")
def othello():
    return open_subject("othello-gpt")


@pytest.fixture(scope="session")
def llama():
    return open_subject(make_model("llama"), tokenizer=letter_tokenizer(size=211))
