"""How far an edit's value goes: where it begins to change what a model says, and the most to try.

A quarter of the stream's median length at the site changes the text of the models that we tried,
and four times as much ruins it. What a direction or a latent adds is as long as the value says.
What a neuron writes passes an activation function, another neuron or a norm on its way, so the
change of the stream is measured with the edit in force.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..model.batch import Batch
from ..model.edits import clamp
from ..model.neuron import NeuronName, check_neuron, clamp_site, parse_neuron
from ..model.site import Site
from ..model.subject import Subject
from ..model.weights import open_weights
from ..text.corpus import read_corpus, token_rows
from .acts import Act, one_direction

if TYPE_CHECKING:
    from ..saes import Sae

SHARE = 0.25
"""Of the stream's length, at the first value."""
TIMES = 4.0
"""The end of the range, in first values."""
ROW, TOKENS = 64, 256
"""The sample of text: Python's own."""
FEW = 16
"""Kinds of tokens in a sample that says nothing."""
TRIES = 4
"""Values that are tried, after the first."""
CLOSE = 1.2
"""Shares within this factor are about the same."""
FARTHEST = 10.0
"""The factor from one value that is tried to the next, at most."""
FEWER = 4.0
"""By this factor the negative half does little."""


class Reach(NamedTuple):
    """A range of values, from -`most` to `most`."""

    start: float
    most: float
    said: str
    """What the numbers mean, in a sentence."""


def reach(
    act: Act, subject: Subject, model: str, sae: Sae | None = None, largest: float = math.nan
) -> Reach:
    """Of an edit with a value.

    Args:
        sae: that of an edit by a latent.
        largest: the latent's largest activation in a survey, if there is one.

    Raises:
        UserError: as `acts.edits_of`.
    """
    if act.verb == "hold":
        return _of_neuron(act, subject, model)
    if sae is not None:
        length = float(sae.W_dec[act.latent].norm())
        site = Site.parse(sae.site)
    else:
        direction = one_direction(act.target, model)
        length, site = float(direction.vectors[0].norm()), direction.site
    stream = _stream(site, subject)
    text = _Text.of(subject)
    norm = _length(text.data(subject.capture(text.batch, [stream])[stream]))
    start = SHARE * norm / length if length else 1.0
    if sae is not None and largest > 0:
        start = max(start, largest)
        said = f"In units of its activation, whose largest in the survey is {largest:.3g}; "
    else:
        said = "In multiples of what it writes; " if sae else "In multiples of the vector; "
    share = length / norm if norm else math.nan
    said += f"1 is {share:.2g} of the stream's median length at {stream}."
    return _rounded(start, said)


def _of_neuron(act: Act, subject: Subject, model: str) -> Reach:
    neuron, weights = parse_neuron(act.target), open_weights(model)
    check_neuron(neuron, weights)
    own, stream = clamp_site(neuron), _stream(Site("mlp_out", neuron.layer), subject)
    inner = {Site(kind, neuron.layer) for kind in ("mlp_up", "mlp_post", "mlp_out")}
    text = _Text.of(subject)
    seen = subject.capture(text.batch, {own, stream, *(inner & set(subject.sites))})
    data = {site.kind: text.data(x).double() for site, x in seen.items()}
    activation = data[own.kind][:, neuron.neuron]
    low, high = float(activation.min()), float(activation.max())
    a_unit = _written(neuron, data, weights.in_stream("down", neuron.layer).double())
    guess = SHARE * _length(data[stream.kind]) / a_unit if a_unit > 0 else 0.0

    def moved(value: float) -> tuple[float, float]:
        return _moved(neuron, value, subject, text, seen[stream], stream)

    start, (up, down) = _settled(guess, TIMES * max(abs(low), abs(high)), moved)
    little = "; the negative half does little" if down < up / FEWER else ""
    return _rounded(
        start,
        f"On a sample of text it is {low:.3g} to {high:.3g}. Held at {start:g}, it moves the "
        f"stream at {stream} by {up:.2g} of its median length, held at {-start:g} by "
        f"{down:.2g}{little}.",
    )


def _written(neuron: NeuronName, data: Mapping[str, Tensor], rows: Tensor) -> float:
    """About how long what a neuron writes to the stream is for one unit of its activation: a guess,
    from which the values to measure begin.

    Args:
        data: activations [n, d] of its layer by kind of site, those that the model has.
        rows: what each neuron writes before a norm, [d_mlp, d_model].
    """
    factors = [rows[neuron.neuron].norm()]
    if "mlp_up" in data and neuron.kind == "gate":
        factors.append(_median(data["mlp_up"][:, neuron.neuron].abs()))
    if {"mlp_up", "mlp_post"} <= data.keys() and neuron.kind == "up":
        own, product = (data[kind][:, neuron.neuron].abs() for kind in ("mlp_up", "mlp_post"))
        factors.append(_median(product / own))
    if {"mlp_post", "mlp_out"} <= data.keys():  # a norm behind the MLP
        before, after = data["mlp_post"] @ rows, data["mlp_out"]
        factors.append(_median(after.norm(dim=-1) / before.norm(dim=-1)))
    return float(torch.stack(factors).prod())


def _median(values: Tensor) -> Tensor:
    """Of those that are finite; 1 of none."""
    finite = values[values.isfinite()]
    return finite.median() if len(finite) else torch.ones((), dtype=values.dtype)


def _settled(
    guess: float, least: float, moved: Callable[[float], tuple[float, float]]
) -> tuple[float, tuple[float, float]]:
    """The value, of two digits and at least `least`, that moves the stream by about SHARE, and how
    far it and its negative do. Behind a norm there may be none: then one beyond which nothing
    grows."""
    value = _two(max(guess, least) or 1.0)
    shares = moved(value)
    for _ in range(TRIES):
        near = SHARE / CLOSE <= shares[0] <= SHARE * CLOSE
        if near or not shares[0] > 0 or (shares[0] > SHARE and value <= _two(least)):
            break
        next_ = _two(max(value * min(SHARE / shares[0], FARTHEST), least))
        found = moved(next_)
        if next_ > value and found[0] < CLOSE * shares[0]:
            break
        value, shares = next_, found
    return value, shares


def _moved(
    neuron: NeuronName, value: float, subject: Subject, text: _Text, plain: Tensor, stream: Site
) -> tuple[float, float]:
    """The median change of the stream with a neuron held at a value, and at its negative, as a
    share of the stream's median length, over a half of the text."""
    half = slice(0, (len(text.counted) + 1) // 2)
    ids, mask, counted, before = text.batch.ids, text.batch.mask, text.counted[half], plain[half]
    twice = Batch(*(torch.cat([x[half], x[half]]) for x in (ids, mask)))
    values = torch.tensor([value, -value]).repeat_interleave(len(counted))
    with subject.edited(clamp(clamp_site(neuron), neuron.neuron, values)):
        after = subject.capture(twice, [stream])[stream]
    norm = _length(before[counted])
    changes = torch.split((after - before.repeat(2, 1, 1)).double(), len(counted))
    up, down = (_length(change[counted]) / norm if norm else math.nan for change in changes)
    return up, down


def _stream(site: Site, subject: Subject) -> Site:
    """Where the stream is to which something is added at a site; the site itself for others."""
    after = Site("resid_post", site.layer)
    return after if site.kind in ("attn_out", "mlp_out") and after in subject.sites else site


class _Text(NamedTuple):
    """A sample of text, and which positions count: not the first of each row, which models attend
    to whatever it is. Where the tokenizer knows hardly a word of it, random tokens."""

    batch: Batch
    counted: Tensor

    @classmethod
    def of(cls, subject: Subject) -> _Text:
        rows = list(token_rows(read_corpus(None), subject.prompting, ROW, TOKENS))
        if len({i for row in rows for i in row}) < FEW:
            drawn = torch.Generator().manual_seed(0)
            size = (TOKENS // ROW, ROW)
            rows = torch.randint(subject.spec.d_vocab, size, generator=drawn).tolist()
        batch = subject.pad(rows)
        counted = subject.counted(batch)
        counted[:, 0] = False
        return cls(batch, counted)

    def data(self, x: Tensor) -> Tensor:
        """Activations [n, d] at the positions that count."""
        return x[self.counted].flatten(1)


def _length(x: Tensor) -> float:
    """The median: a few activations are massive."""
    return float(x.double().norm(dim=-1).median())


def _rounded(start: float, said: str) -> Reach:
    return Reach(_two(start), _two(TIMES * start), said)


def _two(value: float) -> float:
    """Two digits."""
    return float(f"{value:.2g}")
