"""How far a slider goes, against hooks on transformers' own model in float64."""

import re
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from interp.directions.acts import parse_act
from interp.directions.reach import SHARE, _settled, reach
from interp.model.subject import open_subject

NEURON = 7
MODULES = {
    "llama": ("model.layers.{}", "mlp.up_proj", "mlp.gate_proj", "mlp.down_proj"),
    "gemma2": ("model.layers.{}", "mlp.up_proj", "mlp.gate_proj", "mlp.down_proj"),
    "gemma3_text": ("model.layers.{}", "mlp.up_proj", "mlp.gate_proj", "mlp.down_proj"),
    "gpt2": ("transformer.h.{}", "mlp.c_fc", "", "mlp.c_proj"),
}
SAID = re.compile(
    r"On a sample of text it is (\S+) to (\S+)\. Held at (\S+), it moves the stream at "
    r"1\.resid_post by (\S+) of its median length, held at (\S+) by ([^;]+?)"
    r"(; the negative half does little)?\."
)


@pytest.fixture(scope="module", params=MODULES)
def family(request, model_folder, dog_model, tmp_path_factory):
    """A family's name and a model of it, with a tokenizer that knows no word of the sample."""
    folder = tmp_path_factory.mktemp(request.param) / "model"
    shutil.copytree(model_folder(request.param), folder)
    for file in dog_model.glob("token*"):
        shutil.copy(file, folder)
    return request.param, folder


def measured(family, folder, kind, value=None):
    """The neuron's activations and the stream [rows, pos - 1, …] of random tokens, in float64, with
    the neuron held or not."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    layer, up, gate, down = MODULES[family]
    layer, seen = model.get_submodule(layer.format(1)), {}

    def held(x):
        seen["own"] = x[..., NEURON].clone()
        if value is not None:
            x[..., NEURON] = value
        return x

    if kind == "down":
        layer.get_submodule(down).register_forward_pre_hook(lambda _, given: (held(given[0]),))
    else:
        module = layer.get_submodule(up if kind == "up" else gate)
        module.register_forward_hook(lambda _, given, out: held(out))
    layer.register_forward_hook(
        lambda _, given, out: seen.update(stream=out[0] if isinstance(out, tuple) else out)
    )
    drawn = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (4, 64), generator=drawn)
    with torch.no_grad():
        model(ids)
    counted = ids != 0  # w0 is special: the unknown word
    counted[:, 0] = False
    return seen["own"], seen["stream"], counted


@pytest.mark.parametrize("kind", ["up", "gate", "down"])
def test_what_is_said_of_a_held_neuron_is_so(family, kind):
    name, folder = family
    if name == "gpt2" and kind == "gate":
        pytest.skip("it has no gates")
    given = f"hold 1.{kind}.{NEURON}=1"
    found = reach(parse_act(given), open_subject(folder), str(folder))
    low, high, start, moves, opposite, back, little = SAID.fullmatch(found.said).groups()
    own, before, counted = measured(name, folder, kind)
    own = own[counted]
    assert [float(low), float(high)] == pytest.approx(
        [float(own.min()), float(own.max())], rel=5e-3
    )
    assert (float(start), float(opposite)) == (found.start, -found.start)
    assert found.most == pytest.approx(4 * found.start, rel=0.05)

    def moved(value):
        after = measured(name, folder, kind, value)[1]
        changed, length = (x[:2][counted[:2]].norm(dim=-1) for x in (after - before, before))
        return float(changed.median() / length.median())

    exact = moved(found.start), moved(-found.start)
    assert [float(moves), float(back)] == pytest.approx(exact, rel=0.06)
    assert bool(little) == (exact[1] < exact[0] / 4)
    least = 4 * float(own.abs().max())
    assert found.start >= 0.95 * least
    if not SHARE / 1.25 < exact[0] < SHARE * 1.25:
        assert found.start == pytest.approx(least, rel=0.05)


@pytest.mark.parametrize(
    ("grows", "guess", "least", "start"),
    [
        (lambda v: 0.01 * v, 25, 1, 25.0),  # as guessed
        (lambda v: 0.01 * v, 700, 1, 25.0),  # the guess is too large,
        (lambda v: 0.01 * v, 0.07, 0.01, 25.0),  # or too small
        (lambda v: 0.01 * v, 25, 60, 60.0),  # its own activation is larger
        (lambda v: 0.1 * v / (1 + v), 0.1, 0.01, 5.0),  # never as far: where it hardly grows
        (lambda v: 0.0, 0, 0, 1.0),  # nothing is written
    ],
)
def test_the_first_value_moves_the_stream_by_a_quarter_or_as_far_as_any(grows, guess, least, start):
    value, shares = _settled(guess, least, lambda v: (grows(v), -grows(v)))
    assert shares == (grows(value), -grows(value))
    assert value == pytest.approx(start, rel=0.05)
