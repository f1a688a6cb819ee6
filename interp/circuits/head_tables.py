"""The tables of the study `circuits.head`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from ..directions.directions import Directions
from ..directions.provenance import Provenance
from ..directions.reading import Product
from ..lens.lens import Lens
from ..model.batch import Batch
from ..model.readout import open_readout
from ..model.site import Site
from ..model.subject import Subject
from ..model.vocabulary import token_strings
from ..model.weights import Weights
from ..runs.writer import RunWriter
from .asked import asked_target, tokens_of
from .frozen import rows
from .head import Head
from .ov import OV, Terms, places, terms

if TYPE_CHECKING:
    from .heads import HeadConfig

ROWS = 64
"""Tokens whose logits are made at once."""
FINAL = Site("final_norm_in")


def head_tables(config: HeadConfig, out: RunWriter) -> dict[str, Any]:
    """Write the tables of a run; its metrics."""
    subject, head = (
        config.open(out, attention="eager"),
        Head.parse(config.head, config.stored_weights.spec),
    )
    batch = subject.tokens(config.prompt)
    said = tokens_of(subject, batch)
    found, error = attention_terms(subject, config.stored_weights, batch, head.layer)
    pattern = _pattern(config, subject, batch, head, found, said)
    out.table("pattern", pattern)
    written = _written(head, found.written[head.number], said)
    columns = ["position", "token", "length", "top", "bottom"]
    out.table("sources", _decoded(config, written)[columns])
    ov = OV.of(config.stored_weights, head)
    copies = out.table("copies", _copies(config, ov, head, batch.ids[0].cpu()))
    shares = _vectors(config, ov, head, out)
    drawn = copies[~copies["given"]]
    effects = {}
    if config.target or config.task:
        last = pattern[pattern["query"] == len(said) - 1]
        effects = {
            "direct": float(last["direct"].sum()),
            "total": float(pattern["total"].sum()),
        }
    return {
        "tokens": len(said),
        "error of the sum": error,
        **effects,
        f"share that it copies (own among the first {config.k})": _share(drawn, "above", config.k),
        f"share that it suppresses (own among the last {config.k})": _share(
            drawn, "below", config.k
        ),
        f"share of OV in {config.vectors} vectors": shares,
    }


def _pattern(
    config: HeadConfig, subject: Subject, batch: Batch, head: Head, found: Terms, said: list[str]
) -> pd.DataFrame:
    """A row a query and a key that it can see."""
    n, nan = len(said), torch.full((len(said), len(said)), torch.nan)
    direct = total = nan
    if config.target or config.task:
        target = asked_target(
            subject, config.stored_weights, config.target, config.against, config.task
        )
        own = Site("attn_out", head.layer)
        gradients = rows(subject, batch, target, [own, FINAL], config.rule)
        direct, total = (found.effects(head.number, gradients[site].cpu()) for site in (FINAL, own))
    lengths = found.lengths(head.number)
    return pd.DataFrame(
        {
            "query": q,
            "key": s,
            "query_token": said[q],
            "key_token": said[s],
            "weight": float(found.pattern[head.number, q, s]),
            "length": float(lengths[q, s]),
            "direct": float(direct[q, s]),
            "total": float(total[q, s]),
        }
        for q in range(n)
        for s in range(q + 1)
    )


def _written(head: Head, vectors: Tensor, said: list[str]) -> Directions:
    """What the head writes for each source with all its attention."""
    index = pd.DataFrame(
        {
            "name": [f"{head} from {position}" for position in range(len(said))],
            "position": range(len(said)),
            "token": said,
            "length": vectors.norm(dim=1).tolist(),
        }
    )
    return Directions(Site("attn_out", head.layer), vectors.float(), index)


def _decoded(config: HeadConfig, found: Directions, lens: str | Lens | None = None) -> pd.DataFrame:
    return found.decode(config.stored_weights, config.k, lens or config.opened_lens)


def _copies(config: HeadConfig, ov: OV, head: Head, ids: Int[Tensor, " pos"]) -> pd.DataFrame:
    """A row a token of the prompt, and of the sample."""
    weights, readout = config.stored_weights, open_readout(config.stored_weights)
    strings = token_strings(weights.folder, weights.spec.d_vocab)
    given = [i for i in dict.fromkeys(ids.tolist()) if bool((readout.ids == i).any())]
    generator = torch.Generator().manual_seed(0)
    drawn = readout.ids[torch.randperm(len(readout.ids), generator=generator)[: config.sample]]
    asked = torch.tensor([*given, *drawn.tolist()])
    own = torch.searchsorted(readout.ids, asked)
    E, site = weights.W_E(), Site("attn_out", head.layer)
    table: list[dict[str, Any]] = []
    for at, ids_here in zip(torch.split(own, ROWS), torch.split(asked, ROWS), strict=True):
        vectors = config.opened_lens.vectors(ov(E[ids_here]), site)
        logits = vectors @ readout.rows.T
        above, below = places(logits, at)
        top, bottom = (
            readout.ids[logits.topk(config.k, largest=largest).indices] for largest in (True, False)
        )
        for row, token in enumerate(ids_here.tolist()):
            table.append(
                {
                    "token": strings[token],
                    "id": token,
                    "given": len(table) < len(given),
                    "above": int(above[row]),
                    "below": int(below[row]),
                    "top": [strings[i] for i in top[row].tolist()],
                    "bottom": [strings[i] for i in bottom[row].tolist()],
                }
            )
    return pd.DataFrame(table)


def _vectors(config: HeadConfig, ov: OV, head: Head, out: RunWriter) -> float:
    """Write the singular vectors; returns the share of OV's squares that they hold."""
    reads, singular, writes = ov.svd(config.vectors)
    whole = float((ov.write.T @ ov.write).mul(ov.read @ ov.read.T).sum())
    shares = (singular.square() / whole).tolist()
    index = pd.DataFrame(
        {
            "name": [f"{head} vector {i}" for i in range(len(singular))],
            "number": range(len(singular)),
            "singular": singular.tolist(),
            "share": shares,
        }
    )
    made = Provenance.of(config.STUDY, config.stored_weights, head=str(head))
    written = Directions(Site("attn_out", head.layer), writes.float(), index, made)
    reading = Product(ov.scale)
    read = Directions(Site("resid_pre", head.layer), reads.float(), index, made, reading)
    written.save_in(out, "directions")
    read.save_in(out, "reads")
    table = index.drop(columns="name")
    for name, found, lens in (("reads", read, "raw"), ("writes", written, None)):
        decoded = _decoded(config, found, lens)
        table[name], table[f"{name}_not"] = decoded["top"], decoded["bottom"]
    out.table("vectors", table)
    return float(sum(shares))


def attention_terms(
    subject: Subject, weights: Weights, batch: Batch, layer: int
) -> tuple[Terms, float]:
    """The terms of a layer's attention on one prompt, and how far their sum is from the model's
    attn_out: the longest difference at a position over the longest attn_out.

    Raises:
        UserError: a layer without patterns and values, or a family whose heads have a gate.
    """
    wanted = [Site(kind, layer) for kind in ("attn_pattern", "head_v", "attn_out")]
    captured = subject.capture(batch, wanted)
    pattern, values, added = (captured[site][0].cpu() for site in wanted)
    found = terms(weights, layer, pattern, values)
    differs = (found.total() - added.double()).norm(dim=1).max()
    return found, float(differs / added.double().norm(dim=1).max())


def _share(copies: pd.DataFrame, side: str, k: int) -> float:
    """Of tokens that stand among the first k from one side."""
    return float((copies[side] < k).mean())
