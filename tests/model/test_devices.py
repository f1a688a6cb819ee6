"""A device that cannot be used is one line that names those that can."""

import pytest
import torch

from interp.errors import UserError
from interp.model.devices import check_device


@pytest.mark.parametrize("device", ["banana", "cuda:99", "meta", "xpu:99"])
def test_the_machines_own_devices_are_named(device):
    with pytest.raises(UserError) as refused:
        check_device(device)
    line = str(refused.value)
    assert "\n" not in line
    assert len(line) < 120
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        assert line == f"device '{device}' cannot be used here: this machine has cpu"
    else:
        assert f"this machine has cpu, {accelerator.type}:0" in line


def test_split_is_no_device_of_a_kernel():
    with pytest.raises(UserError, match="'split' is for models of text that are run: give cpu"):
        check_device("split")
