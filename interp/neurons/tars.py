"""TARS: remove concepts from a model by turning a few neuron vectors against them, and its price.

Source: TARS, targeted removal of a concept (the steps are in `removal.py`, the edits in
`weight_edits.py`). For every concept of a list and every number of edits: the concept's probability
on texts that ask for it, a neighbouring concept's on its own texts (collateral), and the KL
divergence of the edited model from the plain one on ordinary text. A control turns as many random
neurons of the same layers and kinds against the same vector.

Tables of the run:
`tars/effects.parquet`, one row a (concept, edits, control): concept string, edits int64, control
    bool, logprob double (of the concept's word as the next token, mean over prompts), probability
    double (mean), neighbour string, neighbour_logprob double, kl_median, kl_mean double (nats, over
    the tokens of ordinary text)
`tars/prompts.parquet`, one row a prompt of those: concept, edits, control, word string (the
    concept's or the neighbour's), prompt string, probability double
`tars/cumulative.parquet`: concepts int64 (removed so far, in the order of the list), edits int64
    (of each), logprob double (mean over the removed), kl_median, kl_mean double
`tars/edits.parquet`: concept, edit int64 (from 1), name string (of the neuron), cosine double
`targets/`: the vectors, as Directions; `edits/<concept>.safetensors`: the largest edit of each
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import UserError
from ..progress import progress
from ..store import RunWriter
from .concepts import Concept, concept_file, read_concepts, word_tokens

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from ..directions import Directions
    from ..subject import Subject
    from ..weights import Weights
    from .weight_edits import WeightEdit


@dataclass(frozen=True)
class TarsConfig:
    """Remove concepts from a model by editing a few neuron vectors, and measure the price."""

    STUDY: ClassVar[str] = "neurons.tars"
    VERSION: ClassVar[int] = 1

    model: str = "smollm2-135m"
    """A catalog name, hub id, folder or .gguf file."""
    concepts: tuple[str, ...] = ()
    """Words of the concept file; by default all of them."""
    file: str = ""
    """A YAML file of concepts, as data/concepts.yaml, which is the default."""
    edits: tuple[int, ...] = (0, 1, 2, 5, 10, 20, 50)
    """Numbers of neuron vectors to turn."""
    target: Literal["head", "text"] = "head"
    """The concept's vector: the word's row of the LM head, or the end of the stream after a
    describing text (with noise added until it decodes to the word)."""
    tokens: int = 1024
    """Tokens of ordinary text on which the divergence is measured."""
    corpus: str = ""
    """Ordinary text: a file or folder; by default the installed Python's own."""
    seed: int = 0
    """Of the noise and of the control's random neurons."""
    device: str = field(default="cpu", metadata={"key": False})
    """Where to compute."""

    @cached_property
    def _weights(self) -> Weights:
        from ..weights import open_weights

        return open_weights(self.model)

    def fingerprints(self) -> dict[str, str]:
        from ..catalog import sha256
        from ..corpus import fingerprint

        return {
            "model": self._weights.fingerprint(),
            "concepts": sha256(concept_file(self.file)),
            "corpus": fingerprint(self.corpus or None),
        }

    def check(self) -> None:
        self._chosen()
        if not self.edits or min(self.edits) < 0 or max(self.edits) < 1:
            raise UserError("--edits must be numbers from 0 up, at least one of them above 0")
        if self.tokens < 1:
            raise UserError(f"--tokens must be at least 1, not {self.tokens}")

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd

        from ..subject import open_subject

        subject = open_subject(self.model, device=self.device)
        concepts = self._chosen()
        text = _Text(subject, self)
        steps = len(concepts) * (2 * len(self.edits) + 1)
        effects: list[dict[str, Any]] = []
        prompts: list[dict[str, Any]] = []
        made: dict[str, WeightEdit] = {}
        with progress("remove concepts", steps, "edits") as advance:
            for concept in concepts:
                target = self._target(subject, concept)
                target.save(out.path / "targets" / concept.word)
                made[concept.word] = self._edit(subject, concept, target, list(made.values()))
                made[concept.word].save(out.path / "edits" / f"{concept.word}.safetensors")
                control = self._control(subject, concept, target, made[concept.word])
                for edit, is_control in ((made[concept.word], False), (control, True)):
                    for n in self.edits:
                        with edit.first(n).applied(subject):
                            rows = list(_asked(subject, concept))
                            label = {"concept": concept.word, "edits": n, "control": is_control}
                            effects.append(label | _summary(rows, concept) | text.divergence())
                        prompts += [label | row for row in rows]
                        advance(1, f"{concept.word}, {n} edits")
                advance(1)
        cumulative = self._cumulative(subject, concepts, made, text)
        tables = {"effects": effects, "prompts": prompts, "cumulative": cumulative}
        for name, rows in {**tables, "edits": list(_listed(made))}.items():
            with out.part(f"tars/{name}.parquet") as path:
                pd.DataFrame(rows).to_parquet(path)
        out.facts = {"parity": subject.parity, "device": self.device}
        return _metrics(pd.DataFrame(effects), cumulative)

    def _chosen(self) -> list[Concept]:
        known = read_concepts(concept_file(self.file))
        unknown = [word for word in self.concepts if word not in known]
        if unknown:
            raise UserError(f"no concept '{unknown[0]}': the file has {', '.join(known)}")
        return [known[word] for word in self.concepts or known]

    def _target(self, subject: Subject, concept: Concept) -> Directions:
        from .removal import head_target, text_target

        ids = word_tokens(self._weights, concept.word)
        if self.target == "text":
            return text_target(subject, concept.describe, ids, self.seed)
        return head_target(self._weights, concept.word, ids)

    def _edit(
        self, subject: Subject, concept: Concept, target: Directions, before: list[WeightEdit]
    ) -> WeightEdit:
        """The largest edit of a concept, of neurons that no earlier one has taken."""
        from .removal import closest, reversal

        vector, most = target.vectors[0], max(self.edits)
        taken = {neuron for edit in before for neuron in edit.neurons}
        found = closest(self._weights, vector, most + len(taken))
        free = [pair for pair in found if pair[0] not in taken][:most]
        return reversal(subject, free, vector, concept.describe)

    def _control(
        self, subject: Subject, concept: Concept, target: Directions, edit: WeightEdit
    ) -> WeightEdit:
        """As many random neurons of the same layers, turned against the same vector."""
        import numpy as np

        from .removal import reversal
        from .search import NeuronName

        generator = np.random.default_rng([self.seed, *concept.word.encode()])
        drawn: list[NeuronName] = []
        for name in edit.neurons:
            taken = {n.neuron for n in (*edit.neurons, *drawn) if n.layer == name.layer}
            free = [i for i in range(self._weights.spec.d_mlp) if i not in taken]
            drawn.append(NeuronName(name.layer, "down", int(generator.choice(free))))
        pairs = [(name, float("nan")) for name in drawn]
        return reversal(subject, pairs, target.vectors[0], concept.describe)

    def _cumulative(
        self,
        subject: Subject,
        concepts: list[Concept],
        made: dict[str, WeightEdit],
        text: _Text,
    ) -> list[dict[str, Any]]:
        from .weight_edits import WeightEdit

        rows = []
        with progress("together", len(concepts) * len(self.edits), "edits") as advance:
            for n in self.edits:
                for k in range(1, len(concepts) + 1):
                    removed = concepts[:k]
                    edit = WeightEdit.joined([made[c.word].first(n) for c in removed])
                    with edit.applied(subject):
                        logprobs = [
                            _summary(list(_asked(subject, c)), c)["logprob"] for c in removed
                        ]
                        label = {"concepts": k, "edits": n, "logprob": sum(logprobs) / k}
                        rows.append(label | text.divergence())
                    advance(1, f"{k} concepts, {n} edits each")
        return rows


class _Text:
    """Ordinary text, and what the plain model says of it."""

    def __init__(self, subject: Subject, config: TarsConfig) -> None:
        from ..corpus import read_corpus, token_rows

        length = min(128, config.tokens, subject.context or 128)
        texts = read_corpus(config.corpus or None)
        rows = token_rows(texts, lambda t: _encode(subject, t), length, None, config.tokens)
        self._subject = subject
        self._rows = list(rows)
        self._plain = list(self._logprobs())

    def divergence(self) -> dict[str, float]:
        """KL(plain || as it is now), nats, over every token but each row's first."""
        import torch

        found = []
        for plain, now in zip(self._plain, self._logprobs(), strict=True):
            found.append((plain.exp() * (plain - now)).sum(-1).flatten())
        values = torch.cat(found)
        return {"kl_median": float(values.median()), "kl_mean": float(values.mean())}

    def _logprobs(self) -> Iterator[Tensor]:
        for start in range(0, len(self._rows), 4):
            batch = self._subject.pad(self._rows[start : start + 4])
            yield self._subject.logits(batch)[:, 1:].log_softmax(-1)


def _encode(subject: Subject, text: str) -> list[int]:
    ids: list[int] = subject.tokens(text).ids[0].tolist()
    return ids


def _asked(subject: Subject, concept: Concept) -> Iterator[dict[str, Any]]:
    """The probability of the concept's and of its neighbour's word on their own prompts."""
    both = ((concept.word, concept.prompts), (concept.neighbour, concept.neighbour_prompts))
    for word, prompts in both:
        assert subject.weights is not None
        ids = word_tokens(subject.weights, word)
        logprobs = subject.logits(subject.tokens(prompts))[:, -1].double().log_softmax(-1)
        chances = logprobs[:, ids].exp().sum(-1).tolist()
        for prompt, chance in zip(prompts, chances, strict=True):
            yield {"word": word, "prompt": prompt, "probability": chance}


def _summary(rows: Sequence[dict[str, Any]], concept: Concept) -> dict[str, Any]:
    import math

    def mean_log(word: str) -> float:
        found = [math.log(r["probability"]) for r in rows if r["word"] == word]
        return sum(found) / len(found)

    own = [r["probability"] for r in rows if r["word"] == concept.word]
    return {
        "logprob": mean_log(concept.word),
        "probability": sum(own) / len(own),
        "neighbour": concept.neighbour,
        "neighbour_logprob": mean_log(concept.neighbour),
    }


def _listed(made: dict[str, WeightEdit]) -> Iterator[dict[str, Any]]:
    for word, edit in made.items():
        pairs = zip(edit.neurons, edit.provenance["cosines"], strict=True)
        for i, (neuron, cosine) in enumerate(pairs, 1):
            yield {"concept": word, "edit": i, "name": str(neuron), "cosine": cosine}


def _metrics(effects: pd.DataFrame, cumulative: list[dict[str, Any]]) -> dict[str, float]:
    """By number of edits: mean probability, the control's, KL of one concept and of all."""
    found: dict[str, float] = {}
    for (n, control), part in effects.groupby(["edits", "control"]):
        name = f"{'control' if control else 'probability'}_{n}"
        found[name] = round(float(part["probability"].mean()), 6)
        if not control:
            found[f"kl_median_{n}"] = float(part["kl_median"].median())
    whole = max(row["concepts"] for row in cumulative)
    for row in cumulative:
        if row["concepts"] == whole:
            found[f"together_kl_median_{row['edits']}"] = row["kl_median"]
    return found
