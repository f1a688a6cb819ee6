"""What is no token id is one line, at every method that takes ids."""

import numpy as np
import pytest
import torch

from interp.errors import UserError
from interp.model.subject import open_subject
from interp.model.token_ids import token_ids


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (torch.rand(1, 5), "whole numbers, not float32: give a tensor of dtype long"),
        (torch.ones(2, 3, dtype=torch.bool), "whole numbers, not bool"),
        (torch.ones(1, 2, 3, dtype=torch.long), r"\[pos\] or \[batch, pos\], not \[1, 2, 3\]"),
        (torch.tensor(3), r"not \[\]"),
        (torch.empty(0, 4, dtype=torch.long), "empty prompt"),
        (torch.tensor([5, -2]), r"0\.\.10, which -2 is not"),
        ([3, 11], r"0\.\.10, which 11 is not"),
        ([1.5, 2], "whole numbers"),
        (["a"], "no token ids"),
        ([[1, 2], [3]], "no token ids"),
        ([10**30], "no token ids"),
        (None, "no token ids"),
    ],
)
def test_what_is_no_ids(given, says):
    with pytest.raises(UserError, match=says) as caught:
        token_ids(given, 11)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [[1, 2], np.array([1, 2]), torch.tensor([1, 2]).int()])
def test_what_is_ids(given):
    ids = token_ids(given, 11)
    assert ids.dtype == torch.long
    assert ids.tolist() == [1, 2]


def test_every_method_refuses_them(model_folder, own_home):
    subject = open_subject(model_folder("llama"))
    wrong = torch.rand(1, 5)
    for call in (
        lambda: subject.logits(wrong),
        lambda: subject.capture(wrong, ["0.resid_pre"]),
        lambda: subject.generate(wrong, 2),
        lambda: subject.pad([[1, 2], [1.5]]),
    ):
        with pytest.raises(UserError, match="whole numbers"):
            call()
    assert subject.pad([[1, 2], [3]]).ids.tolist() == [[1, 2], [0, 3]]
