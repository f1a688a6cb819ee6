"""Networks and pictures: the real ones, ncnn's files, one's own, and bad ones."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from interp.errors import UserError
from interp.linearscope.explain import class_table
from interp.linearscope.interpreter import interpret
from interp.linearscope.ncnn import read_ncnn
from interp.linearscope.networks import open_network
from interp.linearscope.pictures import LARGEST, PHOTOGRAPHS, middle_square, open_picture

GRAPH = """7767517
3 3
Input in 0 1 x 0=8 1=8 2=2
Convolution a 1 1 x y 0=3 1=3 5=1 6=54 9=2 -23310=1,0.100000
Deconvolution b 1 1 y z 0=1 1=4 3=2 4=3 5=1 6=48
"""


def ncnn_files(folder, half, cut=0):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.LeakyReLU(0.1), nn.ConvTranspose2d(3, 1, 4, 2, 3))
    net.requires_grad_(False)
    data = b""
    for layer in (net[0], net[2]):
        layer.weight.copy_(layer.weight.half())
        weight = layer.weight if layer is net[0] else layer.weight.transpose(0, 1)
        flat = weight.numpy().astype("<f2" if half else "<f4").tobytes()
        tag = struct.pack("<I", 0x01306B47 if half else 0)
        data += tag + flat + b"\0" * (-len(flat) % 4) + layer.bias.numpy().tobytes()
    (folder / "net.param").write_text(GRAPH)
    (folder / "net.bin").write_bytes(data[: len(data) - cut])
    return net, folder / "net.param", folder / "net.bin"


@pytest.mark.parametrize("half", [True, False])
def test_ncnn_files_are_the_module_they_were_made_of(tmp_path, half):
    net, graph, weights = ncnn_files(tmp_path, half)
    x = torch.randn(1, 2, 9, 9)
    torch.testing.assert_close(read_ncnn(graph, weights)(x), net(x))


LAYER = "0=3 1=3 5=1 6=54"
FOLLOWED = {
    "nothing": ("", {}, nn.Identity()),
    "its own defaults": ("2=1 3=1 4=0 8=0 9=0 18=0.0 19=0 17=4 -23330=4,3,9,9,2 31=3", {}, None),
    "kernel": ("1=2 11=3 6=36", {"kernel_size": (3, 2)}, None),
    "stride": ("3=3 13=2", {"stride": (2, 3)}, None),
    "dilation": ("2=2 12=3", {"dilation": (3, 2)}, None),
    "dilation of both": ("2=2", {"dilation": 2}, None),
    "padding": ("4=1 14=2", {"padding": (2, 1)}, None),
    "padding of four sides": ("4=2 14=1 15=2 16=1", {"padding": (1, 2)}, None),
    "no bias": ("5=0", {"bias": False}, None),
    "relu": ("9=1", {}, nn.ReLU()),
    "leaky": ("9=2 10=0.2,", {}, nn.LeakyReLU(0.2)),
    "clip": ("9=3 -23310=2,-0.5,0.25", {}, nn.Hardtanh(-0.5, 0.25)),
    "clip, a newer list": ("9=3 10=-0.5,0.25", {}, nn.Hardtanh(-0.5, 0.25)),
    "sigmoid": ("9=4", {}, nn.Sigmoid()),
    "mish": ("9=5", {}, nn.Mish()),
}


def one_layer(folder, kind, parameters, settings, shape="0=8 1=8 2=2"):
    """An ncnn layer with LAYER's parameters and others, and its torch module."""
    torch.manual_seed(0)
    made = nn.Conv2d if kind == "Convolution" else nn.ConvTranspose2d
    net = made(2, 3, **{"kernel_size": 3, **settings}).requires_grad_(False)
    values = dict(pair.split("=") for pair in f"{LAYER} {parameters}".split())
    line = " ".join(f"{key}={value}" for key, value in values.items())
    (folder / "net.param").write_text(
        f"7767517\n2 2\nInput in 0 1 x {shape}\n{kind} a 1 1 x y {line}\n"
    )
    flat = net.weight if kind == "Convolution" else net.weight.transpose(0, 1)
    data = struct.pack("<I", 0) + flat.numpy().tobytes()
    (folder / "net.bin").write_bytes(
        data + (b"" if net.bias is None else net.bias.numpy().tobytes())
    )
    return net, folder / "net.param", folder / "net.bin"


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize("name", FOLLOWED)
def test_parameters_of_ncnn_are_followed(tmp_path, kind, name):
    parameters, settings, activation = FOLLOWED[name]
    if kind == "Deconvolution":
        parameters = parameters.replace("8=0 ", "")
    net, graph, weights = one_layer(tmp_path, kind, parameters, settings)
    x = torch.randn(1, 2, 11, 12)
    expected = (activation or nn.Identity())(net(x))
    torch.testing.assert_close(read_ncnn(graph, weights)(x), expected)


def test_an_ncnn_input_without_a_shape_has_the_channels_of_the_weights(tmp_path):
    net, graph, weights = one_layer(tmp_path, "Convolution", "", {}, shape="")
    x = torch.randn(1, 2, 9, 9)
    torch.testing.assert_close(read_ncnn(graph, weights)(x), net(x))


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("Convolution", "7=2", r"a has 7=2 \(unknown\), which is not followed"),
        ("Convolution", "8=1", "int8_scale_term"),
        ("Convolution", "18=1.5", r"18=1.5 \(pad_value\)"),
        ("Convolution", "19=1", "dynamic_weight"),
        ("Deconvolution", "18=1", "output_pad_right"),
        ("Deconvolution", "19=1", "output_pad_bottom"),
        ("Deconvolution", "20=4", "output_w"),
        ("Deconvolution", "21=4", "output_h"),
        ("Deconvolution", "28=1", "dynamic_weight"),
        ("Convolution", "25=0", r"25=0 \(unknown\)"),
        ("Convolution", "9=6 10=0.2,0.5", "activation 9=6 with 10=0.2,0.5: only 0 to 5"),
        ("Convolution", "9=2", "activation 9=2 with 10=: only"),
        ("Convolution", "9=3 10=1.0", "activation 9=3 with 10=1"),
        ("Convolution", "4=1 15=2", "padding .* differs between opposite sides"),
        ("Convolution", "4=1 16=2", "padding .* differs between opposite sides"),
        ("Deconvolution", "4=-233", "padding .* depends on the size"),
        ("Convolution", "3=0", "no outputs, kernel, stride or dilation"),
        ("Convolution", "6=53", "a has 53 weights .6., not 3 x 2 x 3 x 3"),
        ("Convolution", "3=1.5", "one whole number for 3=stride_w"),
        ("Convolution", "3=many", "a line that cannot be read: Convolution a"),
    ],
)
def test_parameters_of_ncnn_that_are_not_followed_are_named(tmp_path, kind, parameters, message):
    _, graph, weights = one_layer(tmp_path, kind, parameters, {})
    with pytest.raises(UserError, match=message):
        read_ncnn(graph, weights)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Deconvolution b", "Softmax b", "kind Softmax"),
        ("7767517", "no graph", "no ncnn graph"),
        ("3 3", "4 3", "cut short: it has 3 layers"),
        ("1 1 y z", "1 1 x z", "b does not go on from the layer before it"),
        ("1 1 y z", "2 1 x y z", "b does not go on from the layer before it"),
        ("Deconvolution b", "Deconvolution a", "the name a is taken"),
        ("0=8 1=8 2=2", "0=8 1=8 2=2 4=1", r"in has 4=1 \(unknown\)"),
        ("0=8 1=8 2=2", "0=8 1=8 2=5", "a has 54 weights .6., not 3 x 5 x 3 x 3"),
    ],
)
def test_bad_ncnn_graphs(tmp_path, old, new, message):
    _, graph, weights = ncnn_files(tmp_path, True)
    graph.write_text(GRAPH.replace(old, new))
    with pytest.raises(UserError, match=message):
        read_ncnn(graph, weights)


def test_ncnn_weights_that_are_cut_short(tmp_path):
    _, graph, weights = ncnn_files(tmp_path, True, cut=8)
    with pytest.raises(UserError, match="cut short"):
        read_ncnn(graph, weights)


def test_efficientnet_on_a_cat():
    network = open_network("efficientnet-lite0")
    x0 = network.prepare(middle_square(open_picture("chelsea"), 224))
    system = interpret(network.module, x0)
    assert torch.equal(system.y, network.module(x0))
    torch.testing.assert_close(system.matvec(x0) + system.r, system.y, rtol=0, atol=1e-4)
    # torch's own derivative along a direction; the network is linear in pieces
    u = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    along = torch.func.jvp(network.module, (x0,), (u,))[1].detach()
    assert float((system.matvec(u) - along).norm()) < 2e-6 * float(along.norm())
    places = torch.randint(0, x0.numel(), (8,), generator=torch.Generator().manual_seed(0))
    columns, rows = system.columns(places)[:, :5].T, system.rows(torch.arange(5)).flatten(1)
    difference = (columns - rows[:, places]).norm(dim=0) / columns.norm(dim=0)
    assert float(difference.max()) < 1e-5
    best = system.y.softmax(-1)[0].topk(3)
    assert best.indices.tolist() == [285, 282, 281]
    assert [network.label(i) for i in best.indices.tolist()][2] == "tabby"
    torch.testing.assert_close(best.values, torch.tensor([0.40, 0.33, 0.16]), rtol=0, atol=0.03)
    table, _ = class_table(network, system, best.indices)
    black = system(network.prepare(np.zeros((224, 224, 3), np.uint8)))[0, best.indices]
    bias = (table["score"] - table["black_votes"]).to_numpy()
    np.testing.assert_allclose(bias, black.numpy(), rtol=0, atol=1e-4)
    share = np.abs(bias) / (np.abs(bias) + np.abs(table["black_votes"]))
    np.testing.assert_allclose(table["black_share"], share, rtol=1e-12)
    votes = system.votes(best.indices).double().flatten(1).sum(1)
    parts = sum(system.constants(best.indices).values())
    torch.testing.assert_close(votes + parts, system.y[0, best.indices].double(), rtol=0, atol=1e-4)


def test_efficientnet_scores_are_those_of_other_definitions():
    """The old package's, made with the same weights and the same torch by

        network = efficientnet_lite_pytorch.EfficientNet.from_name("efficientnet-lite0").eval()
        network.load_state_dict(load_file(".../efficientnet-lite0/model.safetensors"))
        picture = middle_square(open_picture("chelsea"), 224)
        network(open_network("efficientnet-lite0").prepare(picture))

    (version 0.1.0); timm 1.0.31's `tf_efficientnet_lite0` gives the same to the last bit.
    """
    network = open_network("efficientnet-lite0")
    with torch.no_grad():
        scores = network.module(network.prepare(middle_square(open_picture("chelsea"), 224)))[0]
    # of the classes 0, 100, ..., 800
    hundreds = [-0.8472, 0.4282, -0.1202, -0.2674, 0.0352, -0.6801, -0.0130, 3.1289, -1.1891]
    torch.testing.assert_close(scores[:900:100], torch.tensor(hundreds), rtol=0, atol=1e-3)
    assert float(scores.norm()) == pytest.approx(39.0398, abs=1e-3)


def test_waifu2x_is_better_than_bicubic():
    network = open_network("waifu2x")
    whole = middle_square(open_picture("astronaut"), 192)
    small = np.asarray(Image.fromarray(whole).resize((96, 96), Image.Resampling.BICUBIC))
    system = interpret(network.module, network.prepare(small))
    border = 2 * network.border
    target = torch.from_numpy(whole.copy()).permute(2, 0, 1)[:, border:-border, border:-border]
    plain = np.asarray(Image.fromarray(small).resize((192, 192), Image.Resampling.BICUBIC))
    plain = torch.from_numpy(plain.copy()).permute(2, 0, 1)[:, border:-border, border:-border]
    ours = (255 * system.y[0] - target).square().mean()
    assert 2 * float(ours) < float((plain.float() - target).square().mean())


def test_sketches_are_affine_with_instance_norms():
    network = open_network("sketch")
    x0 = network.prepare(middle_square(open_picture("chelsea"), 64)).double()
    net = network.module.double()
    system = interpret(net, x0)
    torch.testing.assert_close(system.matvec(x0) + system.r, net(x0), rtol=0, atol=1e-10)
    jacobian = torch.autograd.grad(net(x0.requires_grad_())[0, 0, 3, 3], x0)[0]
    assert not torch.allclose(system.rows(torch.tensor([3 * 64 + 3])), jacobian)


def test_a_network_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "ownnet.py").write_text(
        "import torch\n"
        "def make():\n    return torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3), torch.nn.ReLU())\n"
        "def odd():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    network = open_network("ownnet:make")
    assert network.kind == "image"
    weights = {name: torch.ones_like(t) for name, t in network.module.state_dict().items()}
    save_file(weights, tmp_path / "w.safetensors")
    assert float(open_network("ownnet:make", "w.safetensors").module[0].bias[0].detach()) == 1
    weights["0.bias"][0] = torch.nan
    save_file(weights, tmp_path / "nan.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:99])
    for name, file, message in [
        ("ownnet:make", "nan.safetensors", "not finite"),
        ("ownnet:make", "cut.safetensors", "cannot load"),
        ("ownnet:make", "none.safetensors", "cannot load"),
        ("ownnet:nothing", "", "cannot make"),
        ("ownnet:odd", "", "not a torch module"),
        ("nothing", "", "no network"),
    ]:
        with pytest.raises(UserError, match=message):
            open_network(name, file)


def test_every_photograph_opens():
    for name in PHOTOGRAPHS:
        picture = open_picture(name)
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.shape[2] == 3
        assert middle_square(picture, 32).shape == (32, 32, 3)


def test_a_picture_is_what_a_viewer_shows(tmp_path):
    """Turned as the camera says; what is transparent is white."""
    wide = np.zeros((4, 6, 3), np.uint8)
    wide[0] = 200
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(wide).save(tmp_path / "phone.png", exif=turned)
    assert np.array_equal(open_picture(str(tmp_path / "phone.png")), np.rot90(wide, -1))
    clear = np.zeros((2, 2, 4), np.uint8)
    clear[0, 0] = (10, 20, 30, 255)
    Image.fromarray(clear, "RGBA").save(tmp_path / "clear.png")
    found = open_picture(str(tmp_path / "clear.png"))
    assert found[0, 0].tolist() == [10, 20, 30]
    assert (found[1] == 255).all()


def test_bad_pictures(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no picture"):
        open_picture("nothing.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match="cannot be read"):
        open_picture(str(tmp_path / "text.png"))
    Image.new("L", (40, 30)).save(tmp_path / "grey.png")
    assert open_picture(str(tmp_path / "grey.png")).shape == (30, 40, 3)
    (tmp_path / "cut.png").write_bytes((tmp_path / "grey.png").read_bytes()[:50])
    with pytest.raises(UserError, match="cannot be read"):
        open_picture(str(tmp_path / "cut.png"))
    for dtype in (np.uint16, np.int32, np.float32):
        Image.fromarray(np.ones((8, 8), dtype)).save(tmp_path / "deep.tiff")
        with pytest.raises(UserError, match="convert it to 8 bits"):
            open_picture(str(tmp_path / "deep.tiff"))
    monkeypatch.setattr("interp.linearscope.pictures.LARGEST", 1000)
    assert LARGEST > 1000
    with pytest.raises(UserError, match="make it smaller"):
        open_picture(str(tmp_path / "grey.png"))
