"""What CUDA refuses and what it takes, each in a line, for the pretended device to do the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .pretend import DEVICE, NAME, OnDevice

HERE = torch.arange(1.0, 13).view(3, 4)
"""On the CPU."""


def there() -> Tensor:
    return HERE.to(DEVICE)


def ids(device: str) -> Tensor:
    return torch.tensor([0, 2], device=device)


def filled(value: Tensor) -> Tensor:
    x = there()
    x[ids(DEVICE)] = value
    return x


def gradient(x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    functional.softmax(functional.linear(x, torch.ones(5, 4, device=x.device)), -1)[
        :, 0
    ].sum().backward()
    assert x.grad is not None
    return x.grad


def stepped(device: str) -> Tensor:
    layer = torch.nn.Linear(4, 2, device=device, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.fill_(0.5)
        layer.bias.fill_(0.1)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(HERE.double().to(device)).square().sum().backward()
    optimizer.step()
    return layer.weight.data


REFUSED: dict[str, Callable[[], Any]] = {
    "a sum": lambda: there() + HERE,
    "a product": lambda: there() @ HERE.T,
    "joined": lambda: torch.cat([there(), HERE]),
    "numbers stacked": lambda: torch.stack([there().sum(), HERE.sum()]),
    "a condition": lambda: torch.where(HERE > 2, there(), 0.0),
    "a bound that is a tensor": lambda: there().clamp(min=torch.tensor(2.0)),
    "two numbers": lambda: torch.addcmul(there(), torch.tensor(1.0), torch.tensor(2.0)),
    "the CPU's number changed": lambda: torch.tensor(1.0).add_(there().sum()),
    "the CPU's, at the device's places": lambda: HERE[ids(DEVICE)],
    "gathered at the CPU's places": lambda: there().gather(1, torch.zeros(3, 1, dtype=torch.long)),
    "embedded at the CPU's places": lambda: functional.embedding(ids("cpu"), there()),
    "filled with the CPU's": lambda: filled(HERE[:2]),
    "compared": lambda: torch.equal(there(), HERE),
    "to numpy": lambda: there().numpy(),
    "as an array": lambda: np.asarray(there()),
    "the CPU's generator": lambda: there().normal_(generator=torch.Generator()),
    "drawn with the CPU's generator": lambda: torch.multinomial(
        there(), 1, generator=torch.Generator()
    ),
    "the device's generator": lambda: torch.randn(3, generator=torch.Generator(DEVICE)),
    "a device without a number": lambda: torch.zeros(3, device=NAME),
    "made elsewhere": lambda: there() + torch.arange(4.0),
}
TAKEN: dict[str, Callable[[str], Any]] = {
    "a number of the CPU's": lambda device: HERE.to(device) * torch.tensor(2.0),
    "the CPU's number first": lambda device: torch.tensor(2.0) - HERE.to(device),
    "the CPU's numbers chosen": lambda device: torch.where(
        HERE.to(device) > 2, torch.tensor(1.0), torch.tensor(0.0)
    ),
    "at the CPU's places": lambda device: HERE.to(device)[ids("cpu")],
    "at a mask": lambda device: HERE.to(device)[HERE.to(device) > 4],
    "a number put in": lambda device: HERE.to(device).index_put((ids(device),), torch.tensor(1.0)),
    "masked": lambda device: HERE.to(device).masked_fill(HERE.to(device) > 4, torch.tensor(7.0)),
    "as a list": lambda device: HERE.to(device).tolist(),
    "a number": lambda device: float(HERE.to(device).sum()),
    "a gradient": lambda device: gradient(HERE.to(device)),
    "a view that is changed": lambda device: HERE.to(device).clone().view(-1)[1:].add_(1),
    "a copy of a module": lambda device: copy.deepcopy(
        torch.nn.Linear(4, 2).to(device).requires_grad_(False).eval()
    ).weight.isfinite(),
    "a step of an optimizer": stepped,
    "one function for many": lambda device: torch.vmap(lambda row: row.softmax(0) * 2)(
        HERE.to(device)
    ),
    "attention": lambda device: functional.scaled_dot_product_attention(
        *(3 * [HERE.to(device)[None, None]]), is_causal=True
    ),
    "drawn": lambda device: torch.multinomial(
        HERE.to(device), 2, generator=torch.Generator(device).manual_seed(3)
    ),
}


def broken() -> list[str]:
    """The rules that the pretended device does not keep."""
    wrong = []
    for name, run in REFUSED.items():
        try:
            run()
        except (RuntimeError, TypeError):
            continue
        wrong.append(f"{name}: taken")
    for name, made in TAKEN.items():
        one, other = made("cpu"), made(DEVICE)
        if isinstance(one, Tensor):
            if not isinstance(other, OnDevice):
                wrong.append(f"{name}: left the device")
            elif not torch.allclose(one.float(), other.cpu().float()):
                wrong.append(f"{name}: {other} instead of {one}")
        elif one != other:
            wrong.append(f"{name}: {other} instead of {one}")
    return wrong
