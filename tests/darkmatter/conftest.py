"""Models that several of the files read, opened once."""

import pytest

from interp.model.subject import open_subject

from ..conftest import make_model


class Bytes:
    """A tokenizer: one id a byte."""

    def encode(self, text, add_special_tokens):
        return list(text.encode())

    def decode(self, ids):
        return bytes(ids).decode(errors="replace")


@pytest.fixture(scope="session")
def othello():
    return open_subject("othello-gpt")


@pytest.fixture(scope="session")
def llama():
    return open_subject(make_model("llama"), tokenizer=Bytes())
