"""Small networks for the tests: every supported unit, in one way of calling or another."""

import torch
import torch.nn.functional as F
from torch import nn


class Piecewise(nn.Module):
    """Linear in pieces: A is the Jacobian. Functional, in-place and module calls."""

    def __init__(self, bias: bool = True):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(8) if bias else nn.Identity()
        self.b = nn.Conv2d(8, 8, 3, stride=2, bias=bias)
        self.up = nn.ConvTranspose2d(8, 4, 4, 2, 1, bias=bias)
        self.prelu = nn.PReLU(4)
        self.head = nn.Linear(4, 5, bias=bias)

    def forward(self, x):
        x = F.relu(self.norm(self.a(x)), inplace=True)
        x = F.max_pool2d(x, 3, 2, 1)
        x = F.leaky_relu(self.b(x), 0.2)
        x = torch.cat([x, 2 * x], 1)[:, 4:12]
        x = self.prelu(self.up(x))
        x = x + x.mean((2, 3), keepdim=True).abs()
        x -= x.flip(-1)
        return self.head(F.relu6(3 * x.clamp(min=-0.5)).mean((2, 3)) + F.hardtanh(x).sum((2, 3)))


class Smooth(nn.Module):
    """Masks, gates and norms: A is not the Jacobian."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.group = nn.GroupNorm(2, 8)
        self.layer = nn.LayerNorm(8)
        self.squeeze = nn.Linear(8, 8)
        self.glu = nn.Linear(8, 16)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.silu(self.group(self.a(x)))
        x = F.instance_norm(torch.tanh(x) + F.gelu(x))
        gate = torch.sigmoid(self.squeeze(x.mean((2, 3))))
        x = x * gate[:, :, None, None]
        x = x.flatten(2).transpose(1, 2)
        x = F.scaled_dot_product_attention(x, x, self.layer(x))
        x = x + (x @ x.mT / 3).softmax(-1) @ x
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)
        x = F.glu(self.glu(x)) + F.rms_norm(F.hardswish(x), (8,))
        return self.head(x[:, 1:].mean(1))


class Bottlenecks(nn.Module):
    """Like MobileNetV2: linear in pieces, and with random BatchNorm statistics most of its output
    comes from the norms, hardly any from the input."""

    def __init__(self, channels: int = 8, blocks: int = 7):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1, bias=False),
                                  nn.BatchNorm2d(channels), nn.ReLU6(inplace=True))  # fmt: skip
        self.blocks = nn.ModuleList(self._block(channels) for _ in range(blocks))
        self.head = nn.Linear(channels, 6)

    @staticmethod
    def _block(channels):
        wide = 3 * channels
        return nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(inplace=True),
            nn.Conv2d(wide, wide, 3, 1, 1, groups=wide, bias=False), nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True), nn.Conv2d(wide, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x):
        x = self.stem(x)
        for n, block in enumerate(self.blocks):
            x = x + block(x) if n % 3 == 2 else block(x)
        return self.head(x.mean((2, 3)))


def made(kind, seed: int = 0, dtype=torch.float64):
    """A network with random weights (its BatchNorms with statistics) and an input."""
    torch.manual_seed(seed)
    net = kind().to(dtype).eval()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return net.requires_grad_(False), torch.randn(1, 3, 9, 9, dtype=dtype)
