"""Tiny models of several families, open for the microscope, in float32 and float64."""

from functools import lru_cache

import pytest
import torch

from interp.microscope.passed import Opened
from interp.model.subject import open_subject

FAMILIES = ("llama", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "gpt_neo")
IDS = [[3, 17, 5, 99, 42, 7]]


@pytest.fixture(scope="session")
def open_here(model_folder):
    """`open_here(family, dtype)`: an `Opened`."""

    @lru_cache
    def opened(family, dtype=torch.float32):
        folder = str(model_folder(family))
        return Opened(open_subject(folder, attention="eager", dtype=dtype))

    return opened
