"""The study `circuits.head`: what one attention head looks at, moves and writes on a prompt.

Equations: `ov`. Every term of the layer's attention is summed, and the sum compared with the
attn_out of the model: the metric "error of the sum", relative to its longest position.

Tables of the run:
`pattern.parquet`: query int, key int, query_token string, key_token string, weight double (the
    pattern), length double (of what the head adds at the query for the key, after a norm behind
    attention), direct double, total double: what that does to the target, through the final norm
    and head alone, and through all later layers too, in the frozen network (NaN without a target)
`sources.parquet`: position int, token string, length double (of W_O v, what a query with all its
    attention there gets, but for the scale of a norm behind), top list<string>, bottom list<string>
    (what it says)
`copies.parquet`: token string, id int, given bool (of the prompt; else drawn from the vocabulary),
    above int, below int (tokens that W_U OV norm(W_E), through the lens, places above and below the
    token itself), top list<string>, bottom list<string>
`vectors.parquet`: number int, singular double, share double (of the sum of squares of all), reads
    list<string>, reads_not list<string> (tokens of the read vector through the unembedding itself),
    writes list<string>, writes_not list<string>
Beside them directions: in `directions` the singular vectors of OV that are written, at
LAYER.attn_out, in `reads` those that are read, at LAYER.resid_pre behind the norm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from ..directions.directions import Directions
from ..directions.provenance import Provenance
from ..directions.reading import Product
from ..errors import UserError
from ..lens.files import open_lens
from ..lens.lens import Lens
from ..model.batch import Batch
from ..model.readout import open_readout
from ..model.site import Site
from ..model.subject import Subject
from ..model.vocabulary import token_strings
from ..model.weights import Weights
from ..obsprop.task_files import Task, read_task
from ..runs.study import TextStudy
from ..runs.writer import RunWriter
from .asked import asked_target, task_print, tokens_of
from .frozen import Rule, rows
from .ov import OV, Head, Terms, places, terms

ROWS = 64
"""Tokens whose logits are made at once."""
FINAL = Site("final_norm_in")


@dataclass(frozen=True)
class HeadConfig(TextStudy):
    """Show an attention head: its pattern on a prompt, what it moves, and its OV circuit."""

    STUDY: ClassVar[str] = "circuits.head"
    VERSION: ClassVar[int] = 1

    prompt: str = "The keys to the cabinet"
    """The text."""
    head: str = "5.3"
    """Layer and number of the head."""
    target: str = ""
    """A token whose logit the head's terms are measured by, such as ' are'; by default none."""
    against: str = ""
    """A token whose logit is subtracted; by default the mean over the vocabulary is."""
    observable: str = ""
    """An observable in the place of both tokens: a shipped one by its name, or a file."""
    rule: Rule = "half"
    """How gated products are frozen for effects through later layers: half or gate."""
    lens: str = field(default="raw", metadata={"key": False})
    """What reads the vectors that it writes: raw, final, a run's folder of `interp lens fit`, or a
    published .pt file. Its fingerprint is part of the key."""
    k: int = 10
    """Tokens to keep of each vector."""
    vectors: int = 8
    """Singular vectors of OV to keep."""
    sample: int = 500
    """Tokens of the vocabulary, drawn at random, that are asked whether the head copies them."""

    @cached_property
    def opened_lens(self) -> Lens:
        return open_lens(self.lens, self.stored_weights)

    @cached_property
    def task(self) -> Task | None:
        return read_task(self.observable) if self.observable else None

    def fingerprints(self) -> dict[str, str]:
        own = {"lens": self.opened_lens.identity, **task_print(self.task)}
        return {**super().fingerprints(), **own}

    def check(self) -> None:
        super().check()
        spec = self.stored_weights.spec
        Head.parse(self.head, spec)
        if not self.prompt:
            raise UserError("the prompt is empty: give at least one token")
        if self.against and not self.target:
            raise UserError("--against needs a --target that it is subtracted from")
        if self.observable and self.target:
            raise UserError("--observable names its own tokens: leave out --target and --against")
        for option, value, most in (
            ("k", self.k, spec.d_vocab),
            ("vectors", self.vectors, spec.d_head),
        ):
            if not 1 <= value <= most:
                raise UserError(f"--{option} must be 1 to {most}, not {value}")
        if self.sample < 1:
            raise UserError("--sample must be at least 1")

    def run(self, out: RunWriter) -> dict[str, Any]:
        subject, head = self.open(out, attention="eager"), Head.parse(self.head, self._spec)
        batch = subject.tokens(self.prompt)
        said = tokens_of(subject, batch)
        found, error = attention_terms(subject, self.stored_weights, batch, head.layer)
        pattern = self._pattern(subject, batch, head, found, said)
        out.table("pattern", pattern)
        written = self._written(head, found.written[head.number], said)
        columns = ["position", "token", "length", "top", "bottom"]
        out.table("sources", self._decoded(written)[columns])
        ov = OV.of(self.stored_weights, head)
        copies = out.table("copies", self._copies(ov, head, batch.ids[0].cpu()))
        shares = self._vectors(ov, head, out)
        drawn = copies[~copies["given"]]
        effects = {}
        if self.target or self.task:
            last = pattern[pattern["query"] == len(said) - 1]
            effects = {
                "direct": float(last["direct"].sum()),
                "total": float(pattern["total"].sum()),
            }
        return {
            "tokens": len(said),
            "error of the sum": error,
            **effects,
            f"share that it copies (own among the first {self.k})": _share(drawn, "above", self.k),
            f"share that it suppresses (own among the last {self.k})": _share(
                drawn, "below", self.k
            ),
            f"share of OV in {self.vectors} vectors": shares,
        }

    @property
    def _spec(self) -> Any:
        return self.stored_weights.spec

    def _pattern(
        self, subject: Subject, batch: Batch, head: Head, found: Terms, said: list[str]
    ) -> pd.DataFrame:
        """A row a query and a key that it can see."""
        n, nan = len(said), torch.full((len(said), len(said)), torch.nan)
        direct = total = nan
        if self.target or self.task:
            target = asked_target(
                subject, self.stored_weights, self.target, self.against, self.task
            )
            own = Site("attn_out", head.layer)
            gradients = rows(subject, batch, target, [own, FINAL], self.rule)
            direct, total = (
                found.effects(head.number, gradients[site].cpu()) for site in (FINAL, own)
            )
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

    def _written(self, head: Head, vectors: Tensor, said: list[str]) -> Directions:
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

    def _decoded(self, found: Directions, lens: str | Lens | None = None) -> pd.DataFrame:
        return found.decode(self.stored_weights, self.k, lens or self.opened_lens)

    def _copies(self, ov: OV, head: Head, ids: Int[Tensor, " pos"]) -> pd.DataFrame:
        """A row a token of the prompt, and of the sample."""
        weights, readout = self.stored_weights, open_readout(self.stored_weights)
        strings = token_strings(weights.folder, weights.spec.d_vocab)
        given = [i for i in dict.fromkeys(ids.tolist()) if bool((readout.ids == i).any())]
        generator = torch.Generator().manual_seed(0)
        drawn = readout.ids[torch.randperm(len(readout.ids), generator=generator)[: self.sample]]
        asked = torch.tensor([*given, *drawn.tolist()])
        own = torch.searchsorted(readout.ids, asked)
        E, site = weights.W_E(), Site("attn_out", head.layer)
        table: list[dict[str, Any]] = []
        for at, ids_here in zip(torch.split(own, ROWS), torch.split(asked, ROWS), strict=True):
            vectors = self.opened_lens.vectors(ov(E[ids_here]), site)
            logits = vectors @ readout.rows.T
            above, below = places(logits, at)
            top, bottom = (
                readout.ids[logits.topk(self.k, largest=largest).indices]
                for largest in (True, False)
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

    def _vectors(self, ov: OV, head: Head, out: RunWriter) -> float:
        """Write the singular vectors; returns the share of OV's squares that they hold."""
        reads, singular, writes = ov.svd(self.vectors)
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
        made = Provenance.of(self.STUDY, self.stored_weights, head=str(head))
        written = Directions(Site("attn_out", head.layer), writes.float(), index, made)
        reading = Product(ov.scale)
        read = Directions(Site("resid_pre", head.layer), reads.float(), index, made, reading)
        written.save_in(out, "directions")
        read.save_in(out, "reads")
        table = index.drop(columns="name")
        for name, found, lens in (("reads", read, "raw"), ("writes", written, None)):
            decoded = self._decoded(found, lens)
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
