"""How far an edit's value goes: where it begins to change what a model says, and the most to try.

A quarter of the stream's median length at the site changes the text of the models that we tried,
and four times as much ruins it. A neuron of the down projection writes its value times its vector;
one of up or gate is multiplied with the other's, of which the mean over a sample of text is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..model.neuron import check_neuron, clamp_site, parse_neuron
from ..model.site import Site
from ..model.subject import Subject
from ..model.weights import open_weights
from ..text.corpus import read_corpus, token_rows
from .steering import Act, one_direction

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
        UserError: as `steering.edits_of`.
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
    norm = _length(_sample(subject, [stream])[stream])
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
    own, layer = clamp_site(neuron), neuron.layer
    stream = _stream(Site("mlp_out", layer), subject)
    partner = {"up": Site("mlp_gate", layer), "gate": Site("mlp_up", layer)}.get(neuron.kind)
    if "gate" not in weights.spec.kinds:
        partner = None
    found = _sample(subject, [own, stream, *filter(None, [partner])])
    largest = float(found[own][:, neuron.neuron].abs().max())
    other = float(found[partner][:, neuron.neuron].abs().mean()) if partner else 1.0
    written = float(weights.in_stream("down", layer)[neuron.neuron].norm()) * other
    norm = _length(found[stream])
    start = max(SHARE * norm / written if written else 0.0, TIMES * largest) or 1.0
    return _rounded(
        start,
        f"Its largest activation on a sample of text is {largest:.3g}. What it writes at "
        f"{_two(start):g} is {_two(start) * written / norm:.2g} of the stream's median length at "
        f"{stream}.",
    )


def _stream(site: Site, subject: Subject) -> Site:
    """Where the stream is to which something is added at a site; the site itself for others."""
    after = Site("resid_post", site.layer)
    return after if site.kind in ("attn_out", "mlp_out") and after in subject.sites else site


def _sample(subject: Subject, sites: Sequence[Site]) -> dict[Site, Tensor]:
    """Activations [n, d] at a sample of text, without the first position of each row, which models
    attend to whatever it is. Where the tokenizer knows hardly a word of it, at random tokens."""
    rows = list(token_rows(read_corpus(None), subject.prompting, ROW, TOKENS))
    if len({i for row in rows for i in row}) < FEW:
        drawn = torch.Generator().manual_seed(0)
        size = (TOKENS // ROW, ROW)
        rows = torch.randint(subject.spec.d_vocab, size, generator=drawn).tolist()
    batch = subject.pad(rows)
    counted = subject.counted(batch)
    counted[:, 0] = False
    found = subject.capture(batch, sites)
    return {site: found[site][counted].flatten(1).float() for site in sites}


def _length(x: Tensor) -> float:
    """The median: a few activations are massive."""
    return float(x.norm(dim=-1).median())


def _rounded(start: float, said: str) -> Reach:
    return Reach(_two(start), _two(TIMES * start), said)


def _two(value: float) -> float:
    """Two digits."""
    return float(f"{value:.2g}")
