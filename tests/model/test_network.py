"""Any torch module as a Network: the same sites, edits and promises as a language model's."""

import pytest
import torch
from torch import nn

from interp.directions import Directions
from interp.errors import UserError
from interp.model import edits
from interp.model.network import open_network
from interp.model.site import Site


class Small(nn.Module):
    """Convolutions, one ReLU used twice, a tuple inside, a linear head."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5))
        self.second = nn.Conv2d(5, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.memory = nn.GRU(4, 6, batch_first=True)
        self.head = nn.Linear(6, 7)

    def forward(self, x):
        x = self.relu(self.second(self.relu(self.first(x))))
        states, _ = self.memory(x.flatten(2).transpose(1, 2))
        return self.head(states[:, -1])


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return Small()


@pytest.fixture(scope="module")
def x():
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def network(module, x):
    return open_network(module, x)


def test_output_is_the_modules(module, network, x):
    with torch.no_grad():
        assert torch.equal(network.output(x), module.eval()(x))


def test_sites_are_what_a_pass_reaches_once(network):
    names = [str(site) for site in network.sites]
    assert names.index("first.0:out") < names.index("second:in") < names.index("head:out")
    assert not [name for name in names if name.startswith("relu:")], "the ReLU runs twice"
    assert "memory:out" not in names, "a GRU gives a tuple"
    assert all(Site.parse(name) == site for name, site in zip(names, network.sites, strict=True))


def test_feature_maps_come_channels_last(module, network, x):
    found = network.capture(x, ["first.0:out", "head:in"])
    with torch.no_grad():
        want = module.first[0](x).permute(0, 2, 3, 1)
    assert torch.equal(found[Site("out", module="first.0")], want)
    assert found[Site("in", module="head")].shape == (2, 6)


def test_capture_stops_after_the_last_site(network, x):
    ran = []
    handle = network._backend.model.head.register_forward_hook(lambda *_: ran.append(1))
    network.capture(x, ["second:out"])
    assert not ran
    network.capture(x, ["head:out"])
    handle.remove()
    assert ran == [1]


def test_edits_act_on_channels_at_positions(network, x):
    site = Site("out", module="second")
    before, plain = network.capture(x, [site])[site], network.output(x)
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = True
    direction = torch.tensor([1.0, 2.0, 0.0, -1.0])
    for where in ("all", mask):
        with network.edited(edits.set_coordinate(site, direction, 3.0, where)):
            after, changed = network.capture(x, [site])[site], network.output(x)
        hit = torch.ones_like(mask) if where == "all" else mask
        assert torch.equal(after[~hit], before[~hit])
        unit = direction / direction.norm()
        torch.testing.assert_close(after[hit] @ unit, torch.full((int(hit.sum()),), 3.0))
        assert not torch.equal(changed[0], plain[0])
    assert torch.equal(network.output(x), plain)


def test_a_direction_steers_and_scores(network, x):
    import pandas as pd

    site = Site("in", module="head")
    found = Directions(site, torch.eye(6)[:2], pd.DataFrame({"name": ["a", "b"]}))
    before = network.capture(x, [site])[site]
    with network.edited(found.steer(1, 2.0)):
        after = network.capture(x, [site])[site]
    moved = torch.tensor([[0.0, 2.0]] * 2, dtype=torch.float64)
    torch.testing.assert_close(found.scores(after) - found.scores(before), moved, rtol=0, atol=1e-6)


def test_the_module_stays_as_it_is(module, x):
    module.train()
    open_network(module, x)
    assert module.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    assert all(p.requires_grad for p in module.parameters())


def test_mistakes(network, x):
    with pytest.raises(UserError, match=r"no site 'relu:out'; it has :in, first:in"):
        network.capture(x, ["relu:out"])
    with pytest.raises(UserError, match="'features:3'|name and in or out"):
        network.capture(x, ["head:middle"])
    site = Site("out", module="head")
    with (
        network.edited(edits.clamp(site, 0, 1.0, "last")),
        pytest.raises(UserError, match="no last"),
    ):
        network.output(x)
    wrong = edits.clamp(site, 0, 1.0, torch.ones(3, dtype=torch.bool))
    with network.edited(wrong), pytest.raises(UserError, match=r"\[3\], the positions there \[2\]"):
        network.output(x)
    with pytest.raises(UserError, match="gives a tuple, not a tensor"):
        open_network(nn.GRU(3, 4), torch.ones(1, 2, 3))
