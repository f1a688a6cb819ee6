"""Direct contributions as tables: of every part of a model, of its heads, of its neurons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..model.site import Site
from .direct import Direct
from .names import ATTENTION, BIAS, EMBEDDING, MLP
from .passed import EMBEDDED


class Part(NamedTuple):
    """A part of a model, and what it adds to each of n logits."""

    kind: str
    layer: int
    contribution: Float[Tensor, " n"]


def parts(direct: Direct) -> Iterator[Part]:
    """Every part, as a pass reaches them; together they are the logits."""
    weights = direct.passed.opened.weights
    yield Part(EMBEDDING, -1, direct.of(EMBEDDED))
    for layer in range(weights.spec.n_layers):
        bias = torch.zeros(len(direct.at), dtype=torch.float64)
        for kind, inside, norm, site in (
            (ATTENTION, "head_z", "attn_post", "attn_out"),
            (MLP, "mlp_post", "mlp_post", "mlp_out"),
        ):
            whole = direct.of(Site(site, layer))
            # what comes whole keeps its bias
            own = direct.bias(norm, layer) if direct.has(inside, layer) else whole * 0  # type: ignore[arg-type]
            yield Part(kind, layer, whole - own)
            bias += own
        if bias.any():
            yield Part(BIAS, layer, bias)
    yield Part(BIAS, weights.spec.n_layers, direct.constant)


def part_table(direct: Direct) -> pd.DataFrame:
    """A row a logit and part: `position`, `target` (the logit's name), `kind`, `layer`,
    `contribution`."""
    found, made = list(parts(direct)), []
    for n, about in enumerate(_about(direct)):
        made += [
            {**about, "kind": kind, "layer": layer, "contribution": float(values[n])}
            for kind, layer, values in found
        ]
    return pd.DataFrame(made)


def sum_errors(direct: Direct) -> Float[Tensor, " n"]:
    """How far the parts' sum is from the model's own logit, in size."""
    total = torch.stack([part.contribution for part in parts(direct)]).sum(0)
    return (total - direct.values).abs()


class Every(NamedTuple):
    """All heads or neurons of a model in one row."""

    layers: list[int]
    numbers: list[int]
    """Within the layer."""
    contributions: Float[Tensor, "n all"]
    activations: Float[Tensor, "n all"] | None = None


def every_head(direct: Direct) -> Every | None:
    """None for a model whose attention has no heads of its own."""
    layers = [n for n in _layers(direct) if direct.has("head_z", n)]
    found = [direct.heads(layer) for layer in layers]
    return Every(*_numbered(layers, found), torch.cat(found, 1)) if found else None


def every_neuron(direct: Direct) -> Every | None:
    """None for a model of which every layer is one of experts."""
    layers = [n for n in _layers(direct) if direct.has("mlp_post", n)]
    active = [direct.activations(layer) for layer in layers]
    found = [a * direct.per_unit(layer) for a, layer in zip(active, layers, strict=True)]
    if not found:
        return None
    return Every(*_numbered(layers, found), torch.cat(found, 1), torch.cat(active, 1))


def _layers(direct: Direct) -> range:
    return range(direct.passed.opened.weights.spec.n_layers)


def _numbered(layers: list[int], found: list[Tensor]) -> tuple[list[int], list[int]]:
    widths = [x.shape[1] for x in found]
    pairs = zip(layers, widths, strict=True)
    return [n for n, width in pairs for _ in range(width)], [i for w in widths for i in range(w)]


def head_table(direct: Direct, keep: int = 20) -> pd.DataFrame:
    """The heads with the largest contributions to each logit, in size: `position`, `target`,
    `name`, `layer`, `head`, `contribution`; `source`, the position from which it carries most of
    that, and `from_source`, how much (-1 and NaN where patterns are not read)."""
    columns = ["position", "target", "name", "layer", "head", "contribution"]
    made: list[dict[str, Any]] = []
    if (every := every_head(direct)) is not None:
        sources = {layer: direct.sources(layer) for layer in dict.fromkeys(every.layers)}
        for n, about in enumerate(_about(direct)):
            for i in _largest(every.contributions[n], keep):
                layer, head = every.layers[i], every.numbers[i]
                own = {"name": f"{layer}.{head}", "layer": layer, "head": head}
                value = float(every.contributions[n, i])
                where = _source(sources[layer], n, head, value)
                made.append({**about, **own, "contribution": value, **where})
    return pd.DataFrame(made, columns=[*columns, "source", "from_source"])


def _source(shares: Tensor | None, n: int, head: int, value: float) -> dict[str, Any]:
    """Where a head carries most of its contribution from."""
    if shares is None:
        return {"source": -1, "from_source": float("nan")}
    own = shares[n, head]
    at = int((own if value >= 0 else -own).argmax())
    return {"source": at, "from_source": float(own[at])}


def neuron_table(direct: Direct, keep: int = 20) -> pd.DataFrame:
    """The neurons with the largest contributions to each logit, and those with the largest
    activations there, both in size: `position`, `target`, `name`, `layer`, `neuron`, `activation`,
    `contribution`, `per_unit` (what one unit of activation adds), and its place in either order,
    `by_contribution` and `by_activation` (from 1; 0 where it is not among the first)."""
    columns = ["position", "target", "name", "layer", "neuron"]
    columns += ["activation", "contribution", "per_unit", "by_contribution", "by_activation"]
    made: list[dict[str, Any]] = []
    if (every := every_neuron(direct)) is not None:
        assert every.activations is not None
        for n, about in enumerate(_about(direct)):
            active, adds = every.activations[n], every.contributions[n]
            first, second = _largest(adds, keep), _largest(active, keep)
            for i in dict.fromkeys([*first, *second]):
                layer, number = every.layers[i], every.numbers[i]
                own = {"name": f"{layer}.down.{number}", "layer": layer, "neuron": number}
                a, c = float(active[i]), float(adds[i])
                values = {"activation": a, "contribution": c, "per_unit": c / a if a else 0.0}
                places = {
                    "by_contribution": first.index(i) + 1 if i in first else 0,
                    "by_activation": second.index(i) + 1 if i in second else 0,
                }
                made.append({**about, **own, **values, **places})
    return pd.DataFrame(made, columns=columns)


def _about(direct: Direct) -> list[dict[str, Any]]:
    strings = direct.passed.opened.strings
    pairs = zip(direct.at.tolist(), direct.asked, strict=True)
    return [{"position": at, "target": asked.name(strings)} for at, asked in pairs]


def _largest(values: Float[Tensor, " all"], keep: int) -> list[int]:
    """The numbers of the largest, in size."""
    found: list[int] = values.abs().topk(min(keep, len(values))).indices.tolist()
    return found
