"""The interpreter's identities on architectures of timm and torchvision, measured.

Each has random weights and random norms: running means and variances, gains, biases, and every
other parameter that starts as one constant (a layer's scale of 1e-6 would hide what it scales). In
float64 and in float32, for a random picture x0, direction u and output direction v:

    value      |A x0 + r - f(x0)|, the largest number, over the largest in A x0, r and f(x0)
    adjoint    |<A u, v> - <u, A^T v>| / (|A u| |v|)
    jacobian   |A^T v - J^T v| / |J^T v|, J by autograd: rounding where the network is linear in
               pieces, and else how far frozen norms, gates, masks and patterns lead from it

Where J is not to be equal, it is taken in a batch of two: in a batch of one torch 2.13 gets
batch_norm's derivative wrong on a CPU if a transpose follows. (None of the others has one, and in a
batch of two float32 rounds differently, so that a ReLU may flip.) Both packages come with the extra
`architectures`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import UserError
from .interpreter import interpret

CLASSES = 10
_SIDE = 64
PIECEWISE = {
    "timm": """
        convmixer_768_32 darknet53 densenet121 dla34 fbnetc_100 gernet_s hgnetv2_b0 hrnet_w18_small
        inception_v3:96 inception_v4:96 mobilenetv4_conv_small_050 mobileone_s0 nasnetalarge:96
        nf_resnet26 pnasnet5large:96 regnetx_002 repvgg_a0 res2net50_14w_8s resnet18 selecsls42
        vgg11_bn vovnet39a xception41
    """,
    "torchvision": """
        alexnet densenet121 googlenet:96 inception_v3:96 mnasnet0_5 mobilenet_v2 regnet_x_400mf
        resnet18 shufflenet_v2_x0_5 squeezenet1_0 vgg11
    """,
}
"""Linear in pieces; after a colon the side of the input in pixels, if it is not 64."""
OTHERS = {
    "timm": """
        bat_resnext26ts:256 beit_base_patch16_224 botnet26t_256 caformer_s18 cait_xxs24_224
        coat_lite_tiny coatnet_nano_rw_224:224 convformer_s18 convit_tiny:224 convnext_atto
        convnextv2_atto crossvit_tiny_240:240 cs3darknet_s csatv2 davit_tiny dm_nfnet_f0 dpn48b
        eca_halonext26ts:256 eca_nfnet_l0 ecaresnet26t edgenext_xx_small efficientformer_l1:224
        efficientformerv2_s0 efficientnet_b0 efficientnet_cc_b0_4e efficientvit_b0
        efficientvit_m0:224 ese_vovnet19b_dw eva02_tiny_patch14_224:56 fasternet_t0 fastvit_t8
        focalnet_tiny_srf gcresnet33ts gcvit_xxtiny:224 ghostnetv2_100 gmlp_ti16_224
        hiera_tiny_224:224 inception_next_atto lambda_resnet26t legacy_seresnet18 levit_128s:224
        mambaout_femto maxvit_pico_rw_256:256 mixer_s32_224 mixnet_s mobilenetv3_small_050
        mobilevit_xxs mobilevitv2_050 mvitv2_tiny nest_tiny:224 nextvit_small nf_regnet_b0
        pit_ti_224 poolformer_s12 poolformerv2_s12 pvt_v2_b0 rdnet_tiny regnety_002 regnetz_b16
        repvit_m0_9 resmlp_12_224 resnest14d resnet50_gn resnetv2_50x1_bit rexnet_100 sequencer2d_s
        seresnet33ts shvit_s1 skresnet18 starnet_s1 swiftformer_xs swin_tiny_patch4_window7_224:224
        swinv2_tiny_window8_256 tf_efficientnet_b0 tiny_vit_5m_224 tnt_s_legacy_patch16_224
        tresnet_m twins_pcpvt_small twins_svt_small visformer_tiny vit_tiny_patch16_224 volo_d1_224
        xcit_nano_12_p16_224
    """,
    "torchvision": """
        convnext_tiny efficientnet_b0 efficientnet_v2_s maxvit_t:224 mobilenet_v3_small
        regnet_y_400mf swin_t swin_v2_t vit_b_16
    """,
}
_NO_SECOND_HEAD = {"aux_logits": False, "init_weights": False}
_OPTIONS: dict[str, dict[str, Any]] = {
    "torchvision vit_b_16": {"image_size": _SIDE},
    "torchvision googlenet": _NO_SECOND_HEAD,
    "torchvision inception_v3": _NO_SECOND_HEAD,
}


class Architecture(NamedTuple):
    name: str
    """Its package and its name there."""
    side: int
    """Of its input, in pixels."""
    piecewise: bool
    """Whether it is linear in pieces."""


class Errors(NamedTuple):
    """How far each identity is missed, in one precision (see above)."""

    value: float
    adjoint: float
    jacobian: float


class Row(NamedTuple):
    """A row of the table, as text; numbers are those of float64 / float32."""

    architecture: str
    pixels: str
    value: str
    adjoint: str
    jacobian: str
    refused: str
    """What is refused, with its place in the network; empty if all is followed."""


def architectures() -> list[Architecture]:
    """All that are measured, in the order of their names."""
    listed = []
    for packages, piecewise in ((PIECEWISE, True), (OTHERS, False)):
        for package, names in packages.items():
            for name, _, side in (entry.partition(":") for entry in names.split()):
                listed.append(Architecture(f"{package} {name}", int(side or _SIDE), piecewise))
    return sorted(listed)


def measure(architecture: Architecture) -> tuple[Row, dict[torch.dtype, Errors]]:
    """A row of the table, and the numbers in it; none if the network is refused.

    Raises:
        UserError: timm or torchvision is not installed.
    """
    errors = {}
    for dtype in (torch.float64, torch.float32):
        net = random_network(architecture).to(dtype)
        try:
            errors[dtype] = _errors(net, architecture)
        except UserError as error:
            return Row(architecture.name, str(architecture.side), "", "", "", str(error)), {}
    value, adjoint, jacobian = (
        " / ".join(f"{number:.0e}" for number in both)
        for both in zip(*errors.values(), strict=True)
    )
    return Row(architecture.name, str(architecture.side), value, adjoint, jacobian, ""), errors


def random_network(architecture: Architecture) -> nn.Module:
    """The network with random weights and statistics, the same at every call, in float32."""
    package, name = architecture.name.split()
    options = {"num_classes": CLASSES, **_OPTIONS.get(architecture.name, {})}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if package == "timm":
            net = _of_timm(name, architecture.side, options)
        else:
            net = _torchvision().models.get_model(name, weights=None, **options)
        _randomise(net)
    module: nn.Module = net.eval().requires_grad_(False)
    return module


@torch.no_grad()
def _randomise(net: nn.Module) -> None:
    for part in net.modules():
        if isinstance(getattr(part, "running_mean", None), Tensor):
            part.running_mean.normal_(0, 0.3)  # type: ignore[operator, union-attr]
            part.running_var.uniform_(0.5, 2)  # type: ignore[operator, union-attr]
    for parameter in net.parameters():
        first = parameter.flatten()[0]
        if parameter.numel() > 1 and bool((parameter == first).all()):
            if first == 0:
                parameter.normal_(0, 0.1)
            else:
                parameter.uniform_(0.5, 1.5)


def _errors(net: nn.Module, architecture: Architecture) -> Errors:
    dtype, side = next(net.parameters()).dtype, architecture.side
    random = torch.Generator().manual_seed(1)
    x0, u = torch.randn(2, 1, 3, side, side, generator=random).to(dtype)
    system = interpret(net, x0)
    v = torch.randn(system.y.shape, generator=random).to(dtype)
    linear, ahead, back = system.matvec(x0), system.matvec(u), system.rmatvec(v)
    largest = torch.stack([part.abs().max() for part in (linear, system.r, system.y)]).max()
    value = (linear + system.r - system.y).abs().max() / largest
    products = [(a.double() * b.double()).sum() for a, b in ((ahead, v), (back, u))]
    adjoint = (products[0] - products[1]).abs() / (ahead.double().norm() * v.double().norm())
    leaf = x0.clone().requires_grad_(True)
    with torch.enable_grad():
        batch = leaf.expand(1 if architecture.piecewise else 2, -1, -1, -1)
        score = (net(batch)[:1] * v).sum()
        (jacobian,) = torch.autograd.grad(score, leaf)
    return Errors(float(value), float(adjoint), float((back - jacobian).norm() / jacobian.norm()))


def _of_timm(name: str, side: int, options: dict[str, Any]) -> Any:
    _torchvision()  # timm imports it
    try:
        import timm
    except ImportError as error:
        raise UserError(_NOT_INSTALLED) from error
    try:
        return timm.create_model(name, img_size=side, **options)
    except TypeError:  # one that takes every size has no such option
        return timm.create_model(name, **options)


_NOT_INSTALLED = (
    "timm and torchvision are not installed: pip install 'interp-workbench[architectures]'"
)


def _torchvision() -> Any:
    """torchvision; beside a torch for CPUs the one of the registry, built for CUDA, cannot load its
    compiled operators, and stops at two that it wants to describe. No classifier uses them."""
    try:
        try:
            import torchvision
        except RuntimeError as error:
            if "torchvision::nms does not exist" not in str(error):
                raise
            for name in ("nms", "qnms"):
                torch.library.define(
                    f"torchvision::{name}",
                    "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
                )
            import torchvision
    except ImportError as error:
        raise UserError(_NOT_INSTALLED) from error
    return torchvision
