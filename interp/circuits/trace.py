"""The study `circuits.trace`: which neurons and heads made a model prefer one token to another.

The model is frozen at the prompt (frozen.py), taken apart (parts.py, network.py) and cut down to
its largest nodes (graph.py). Sources: Arora et al. 2026, "Language model circuits are sparse in the
neuron basis"; Rezaei Jafari et al. 2025, "RelP"; Ameisen et al. 2025, attribution graphs.

Written to the run:
    nodes.parquet   node int; kind string: embedding, neuron, head, mlp or attention (a whole
                    module's output, in layers of experts and in attention without heads of its
                    own), latent, error, bias, target, remainder; layer int (-1 before the first,
                    the number of layers behind the last); position int (-1: none); source int: the
                    position that a head reads; index int: the neuron's, head's or latent's number,
                    -1 else; name string; token string: the prompt's at the position; activation
                    double (of a head its pattern; NaN: none); there double: the same at the
                    counterfactual; attribution double: what it has of the target, of the remainder
                    the sum of the edges out of it; effect double: row . (activation here - there),
                    what the target loses with the activation from there as the frozen network
                    predicts it, NaN without a counterfactual; top, bottom list<string>: the tokens
                    that what it writes raises and lowers most (with a counterfactual: what it
                    writes more than there), empty for what writes nothing
    edges.parquet   source, target int: nodes; weight double; effect double: the same of what
                    changes from the counterfactual's activations, NaN without one
    totals.parquet  kind string, layer int, nodes int, attribution, absolute double: of all nodes,
                    those that are not kept too
    cuts.parquet    layer int, sum double: row . stream behind the layer, plus the constants that
                    are added later; error double: its difference from the target
    tokens.parquet  position int, token string, counterfactual string ("" without one)

Attributions, effects and weights are in the target's units, logits. Edges into a node add up to its
attribution, those into the target to the target; the remainder has what is not drawn. The effects
of edges add up to the node's too: there the remainder also has what comes of other decisions, such
as a head that looks elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..obsprop.task_files import Task, read_task
from ..progress import progress, waiting
from ..runs.study import TextStudy
from ..runs.writer import RunWriter
from .asked import asked_target, check_pair, check_texts, task_print, tokens_of
from .rules import Rule

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from ..lens.lens import Lens
    from ..model.batch import Batch
    from ..model.subject import Subject
    from .graph import Edge
    from .latents import Spliced
    from .network import Network, Node
    from .target import Target


@dataclass(frozen=True)
class TraceConfig(TextStudy):
    """Find the neurons and heads that made a model say a token, as a graph that adds up."""

    STUDY: ClassVar[str] = "circuits.trace"
    VERSION: ClassVar[int] = 1

    prompt: str = field(default="", metadata={"positional": True})
    """The text whose next token is explained; by default that of the observable's pair."""
    target: str = ""
    """The token that is explained, with its space; by default the likeliest."""
    against: str = ""
    """A token whose logit is subtracted; by default the mean over the vocabulary is."""
    observable: str = ""
    """An observable in the place of both tokens: a shipped one by its name, or a file."""
    counterfactual: str = ""
    """A text of as many tokens: nodes are then chosen by what the target loses with their
    activations there."""
    rule: Rule = "half"
    """How a gated product is frozen: each factor carries a half, or the gate is frozen."""
    lens: str = field(default="raw", metadata={"key": False})
    """What reads what a node writes: raw; final (the logit lens); tuned or jacobian, the model's
    newest fit or the shipped one; a run's folder or key; or a .safetensors or .pt file. Its
    fingerprint is part of the key."""
    saes: tuple[str, ...] = field(default=(), metadata={"key": False})
    """SAEs or transcoders whose latents are nodes: folders, or release:sae_id. Their fingerprints
    are part of the key."""
    share: float = 0.8
    """Keep the largest nodes that have this share of the absolute attribution (with a
    counterfactual: effect), and of the edges between them those that have it."""
    nodes: int = 150
    """The maximum of nodes to keep, whatever their share; the embeddings are there beside them."""
    k: int = 8
    """Tokens to keep for each node and side."""

    @cached_property
    def task(self) -> Task | None:
        return read_task(self.observable) if self.observable else None

    @cached_property
    def opened_lens(self) -> Lens:
        from ..lens.files import open_lens

        return open_lens(self.lens, self.stored_weights)

    @property
    def texts(self) -> tuple[str, str]:
        """The prompt, and the counterfactual or ""."""
        pair = self.task.pair if self.task and not self.prompt else (self.prompt, "")
        return pair[0], self.counterfactual or pair[1]

    def fingerprints(self) -> dict[str, str]:
        own = {"lens": self.opened_lens.identity, **task_print(self.task)}
        if self.saes:
            from ..saes.open import saes_fingerprint

            own["saes"] = " ".join(map(saes_fingerprint, self.saes))
        return {**super().fingerprints(), **own}

    def check(self) -> None:
        super().check()
        prompt, counterfactual = self.texts
        if not prompt.strip():
            raise UserError("the prompt is empty: give at least one token")
        if prompt == counterfactual:
            raise UserError("the prompt and its counterfactual are the same: change one")
        if self.observable and (self.target or self.against):
            raise UserError("--observable names its own tokens: leave out --target and --against")
        if not 0 < self.share <= 1:
            raise UserError(f"--share must be above 0 and at most 1, not {self.share:g}")
        if self.nodes < 1:
            raise UserError(f"--nodes must be at least 1, not {self.nodes}")
        self.check_tokens(self.k)
        self.check_words(self.target, self.against)
        check_texts(self.prompting, (prompt, counterfactual))

    def run(self, out: RunWriter) -> dict[str, Any]:
        from .graph import chosen, drawn
        from .network import open_network

        subject = self.open(out, attention="eager")
        batch, other = self._batches(subject)
        target = self._target(subject, batch)
        with waiting("freezing the model"):
            spliced = self._spliced(subject, batch, other)
            network = open_network(subject, batch, target, self.rule, spliced, other)
        effects = network.effects
        nodes, share = chosen(network, effects or network.attributions, self.share, self.nodes)
        flowing = sum(network.parts[node.part].flows for node in nodes)
        with progress("edges", flowing, "nodes") as advance:
            edges, flow_error = drawn(network, nodes, self.share, advance)
        tokens = tokens_of(subject, batch)
        others = tokens_of(subject, other) if other else [""] * len(tokens)
        out.table(
            "tokens", _frame(position=range(len(tokens)), token=tokens, counterfactual=others)
        )
        out.table("nodes", self._nodes(network, nodes, effects, tokens, target, edges))
        out.table("edges", _frame(**{n: [getattr(e, n) for e in edges] for n in edges[0]._fields}))
        out.table("totals", _totals(network))
        cuts = _frame(layer=network.cuts.keys(), sum=network.cuts.values())
        cuts["error"] = cuts["sum"] - network.value
        out.table("cuts", cuts)
        return {
            "explained": target.name,
            "target": network.value,
            **({"counterfactual": network.counterfactual} if other else {}),
            "nodes": len(nodes),
            "edges": len(edges),
            "share": share,
            "largest error of a cut": float(cuts["error"].abs().max()),
            "largest error of a node": flow_error,
        }

    def _batches(self, subject: Subject) -> tuple[Batch, Batch | None]:
        """The prompt, and the counterfactual if there is one.

        Raises:
            UserError: they differ in length.
        """
        prompt, counterfactual = self.texts
        batch = subject.tokens(prompt)
        if not counterfactual:
            return batch, None
        other = subject.tokens(counterfactual)
        check_pair(tokens_of(subject, batch), tokens_of(subject, other))
        return batch, other

    def _spliced(self, subject: Subject, batch: Batch, other: Batch | None) -> list[Spliced]:
        """The SAEs, each ready for the prompt.

        Raises:
            UserError: as `splice`; two that write the same site.
        """
        if not self.saes:
            return []
        from ..saes import open_sae
        from .latents import splice

        opened = {name: open_sae(name, model=self.model) for name in self.saes}
        spliced = [splice(subject, sae, batch, other, name) for name, sae in opened.items()]
        if len({each.gives for each in spliced}) < len(self.saes):
            raise UserError("two of --saes write the same site: give one of them")
        return spliced

    def _target(self, subject: Subject, batch: Batch) -> Target:
        word = self.target or int(subject.logits(batch)[0, -1].argmax())
        return asked_target(subject, self.stored_weights, word, self.against, self.task)

    def _nodes(
        self,
        network: Network,
        nodes: Sequence[Node],
        effects: Sequence[Tensor] | None,
        tokens: list[str],
        target: Target,
        edges: Sequence[Edge],
    ) -> pd.DataFrame:
        """`nodes.parquet`."""
        from .written import said

        told = said(network, nodes, self.stored_weights, self.opened_lens, self.k)
        rows: list[dict[str, Any]] = []
        nan = float("nan")
        for number, (node, words) in enumerate(zip(nodes, told, strict=True)):
            part, index = network.parts[node.part], node.at
            position, source = part.position(index), part.source(index)
            rows.append(
                {
                    "node": number,
                    "kind": part.kind,
                    "layer": part.layer,
                    "position": position,
                    "source": position if source is None else source,
                    "index": part.number(index),
                    "name": tokens[position] if part.kind == "embedding" else part.name(index),
                    "token": tokens[position] if position >= 0 else "",
                    "activation": part.activation(index),
                    "there": network.changed[node.part].activation(index)
                    if network.changed
                    else nan,
                    "attribution": float(network.attributions[node.part][index]),
                    "effect": float(effects[node.part][index]) if effects else nan,
                    "top": words.top,
                    "bottom": words.bottom,
                }
            )
        last, layers = len(tokens) - 1, self.stored_weights.spec.n_layers
        none = {"index": -1, "activation": nan, "there": nan, "top": []}
        left = [edge for edge in edges if edge.source == len(rows) + 1]
        gap = network.value - network.counterfactual
        has = (sum(edge.weight for edge in left), sum(edge.effect for edge in left))
        for kind, name, layer, position, (value, effect) in (
            ("target", target.name, layers, last, (network.value, gap)),
            ("remainder", "remainder", -1, -1, has),
        ):
            token = tokens[position] if position >= 0 else ""
            place = {"position": position, "source": position, "token": token, "bottom": []}
            about = {"node": len(rows), "kind": kind, "layer": layer, "name": name}
            rows.append({**about, **place, **none, "attribution": value, "effect": effect})
        return _frame(**{name: [row[name] for row in rows] for name in rows[0]})


def _totals(network: Network) -> pd.DataFrame:
    """`totals.parquet`."""
    rows: dict[tuple[str, int], list[float]] = {}
    for part, found in zip(network.parts, network.attributions, strict=True):
        row = rows.setdefault((part.kind, part.layer), [0, 0.0, 0.0])
        values = found.double()
        for n, more in enumerate((values.numel(), float(values.sum()), float(values.abs().sum()))):
            row[n] += more
    columns: dict[str, Any] = {"kind": [k for k, _ in rows], "layer": [layer for _, layer in rows]}
    counts, sums, sizes = zip(*rows.values(), strict=True)
    return _frame(**columns, nodes=map(int, counts), attribution=sums, absolute=sizes)


def _frame(**columns: Any) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: list(values) for name, values in columns.items()})
