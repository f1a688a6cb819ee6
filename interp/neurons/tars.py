"""TARS: remove concepts from a model by turning a few neuron vectors, and what that costs.

Source: TARS, targeted removal of a concept (the steps are in `removal.py`, the edits in
`weight_edits.py`). For every concept of a list and every number of edits, the study measures the
concept's probability on texts that ask for it, a neighbouring concept's on its own texts (what is
lost beside it), and the KL divergence of the edited model from the plain one on ordinary text. Two
controls turn as many other neurons of the same layers against the same vector: "matched" ones,
which add as much to the stream as those they stand for, and random ones.

Tables of the run:
`tars/effects.parquet`, one row a (concept, neurons, edits): concept string, neurons string (closest
    | matched | random), edits int64; logprob double (of the concept's word as the next token, mean
    over prompts), probability double (mean), neighbour string, neighbour_logprob double (mean over
    its prompts), each with …_low and …_high, the ends of its 95 % interval (null with one prompt);
    prompts, neighbour_prompts int64, unit string ("prompt"); kl_median, kl_mean double (nats, over
    the tokens of ordinary text), kl_mean_low, kl_mean_high, documents int64, kl_unit string
    ("document": null ends with one)
`tars/means.parquet`, one row a (neurons, edits): probability, logprob, neighbour_logprob, kl_mean
    double (means over the concepts) with …_low and …_high, concepts int64, unit string ("concept")
`tars/prompts.parquet`, one row a prompt of those: concept, neurons, edits, word string (the
    concept's or the neighbour's), prompt string, probability, logprob double
`tars/cumulative.parquet`: concepts int64 (removed so far, in the order of the list), edits int64
    (of each), logprob double (mean over the removed), kl_median, kl_mean double, … as above
`tars/edits.parquet`: concept, edit int64 (from 1), name string (of the neuron), cosine double
`targets/`: the vectors, as Directions; `edits/<concept>.safetensors`: the largest edit of each
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import UserError
from ..progress import progress
from ..runs.study import TextStudy
from ..runs.writer import RunWriter
from .concepts import Concept, concept_file, read_concepts, word_tokens

if TYPE_CHECKING:
    import pandas as pd

    from ..directions import Directions
    from ..model.subject import Subject
    from .edit_measure import EditMeasure
    from .weight_edits import WeightEdit


SETS = ("closest", "matched", "random")
"""Which neurons are turned: those closest to the concept's vector, and the two controls."""
PROMPT_COLUMNS = ("concept", "neurons", "edits", "word", "prompt", "probability", "logprob")
"""Those of `tars/prompts`."""


@dataclass(frozen=True)
class TarsConfig(TextStudy):
    """Remove concepts from a model by editing a few neuron vectors, and measure the cost."""

    STUDY: ClassVar[str] = "neurons.tars"
    VERSION: ClassVar[int] = 4

    concepts: tuple[str, ...] = ()
    """Words of the concept file. By default all of them."""
    file: str = ""
    """A YAML file of concepts. By default data/concepts.yaml, which shows the form."""
    edits: tuple[int, ...] = (0, 1, 2, 5, 10, 20, 50)
    """How many neuron vectors to turn: every number is measured."""
    target: Literal["head", "text"] = "head"
    """The concept's vector. head: the word's row of the LM head. text: the end of the stream after
    a text that describes it, with noise added until it decodes to the word."""
    tokens: int = 1024
    """Tokens of ordinary text on which the divergence is measured."""
    corpus: str = ""
    """Ordinary text: a file or a folder. By default the installed Python's own."""
    seed: int = 0
    """Seed of the noise and of the random neurons."""

    def fingerprints(self) -> dict[str, str]:
        from ..model.files import sha256

        return {**super().fingerprints(), "concepts": sha256(concept_file(self.file))}

    def check(self) -> None:
        super().check()
        self.stored_weights.check_dense("neurons tars")
        if not self.edits or min(self.edits) < 0 or max(self.edits) < 1:
            raise UserError("--edits must be numbers from 0 up, at least one of them above 0")
        largest, spec = max(self.edits), self.stored_weights.spec
        together = largest * len(self._chosen())
        if 2 * largest > spec.d_mlp or together > spec.n_layers * spec.d_mlp // 2:
            raise UserError(
                f"--edits {largest} are too many for {spec.n_layers} layers of {spec.d_mlp} "
                "neurons: the controls need as many others"
            )
        if self.tokens < 2:
            raise UserError(f"--tokens must be at least 2, not {self.tokens}")
        for concept in self._chosen():
            word_tokens(self.stored_weights, concept.word)
            word_tokens(self.stored_weights, concept.neighbour)

    def run(self, out: RunWriter) -> dict[str, Any]:
        from .edit_measure import EditMeasure

        subject = self.open(out)
        concepts = self._chosen()
        measure = EditMeasure(subject, self.corpus, self.tokens)
        made: dict[str, dict[str, WeightEdit]] = {}
        with progress("choose the neurons", len(concepts), "concepts") as advance:
            for concept in concepts:
                target = self._target(subject, concept)
                target.save_in(out, f"targets/{concept.word}")
                sets = self._sets(subject, concept, target, list(_closest(made).values()))
                with out.part(f"edits/{concept.word}.safetensors") as making:
                    sets["closest"].write(making)
                made[concept.word] = sets
                advance(1, concept.word)
        measured = self._removed(out, concepts, made, measure)
        table = out.table("tars/effects", _effects(measured, concepts))
        out.table("tars/means", _means(table))
        out.table("tars/prompts", measured[list(PROMPT_COLUMNS)])
        out.table("tars/edits", _listed(_closest(made)))
        together = self._together(out, concepts, _closest(made), measure)
        return _metrics(table, out.table("tars/cumulative", together))

    def _chosen(self) -> list[Concept]:
        known = read_concepts(concept_file(self.file))
        unknown = [word for word in self.concepts if word not in known]
        if unknown:
            raise UserError(f"no concept '{unknown[0]}': the file has {', '.join(known)}")
        return [known[word] for word in dict.fromkeys(self.concepts or known)]

    def _target(self, subject: Subject, concept: Concept) -> Directions:
        from .removal import head_target, text_target

        ids = word_tokens(self.stored_weights, concept.word)
        if self.target == "text":
            return text_target(subject, concept.describe, ids, self.seed)
        return head_target(self.stored_weights, concept.word, ids)

    def _sets(
        self, subject: Subject, concept: Concept, target: Directions, before: list[WeightEdit]
    ) -> dict[str, WeightEdit]:
        """By SETS: the largest edit of a concept, of neurons that no earlier edit has, and the
        edits of the two controls."""
        import numpy as np

        from ..model.neuron import NeuronName
        from .removal import closest, equal_contributors, reversal

        vector, largest = target.vectors[0], max(self.edits)
        taken = {neuron for edit in before for neuron in edit.neurons}
        candidates = closest(self.stored_weights, vector, largest + len(taken))
        pairs = [pair for pair in candidates if pair[0] not in taken][:largest]
        chosen = [name for name, _ in pairs]
        generator = np.random.default_rng([self.seed, *concept.word.encode()])
        drawn: list[NeuronName] = []
        for name in chosen:
            used = {n.neuron for n in (*chosen, *drawn) if n.layer == name.layer}
            free = [i for i in range(self.stored_weights.spec.d_mlp) if i not in used]
            drawn.append(NeuronName(name.layer, "down", int(generator.choice(free))))
        equals = equal_contributors(subject, chosen, concept.describe)
        sets = dict(zip(SETS, (chosen, equals, drawn), strict=True))
        about = {"concept": concept.word, "cosines": [cosine for _, cosine in pairs]}
        return {
            name: reversal(subject, neurons, vector, concept.describe, about)
            for name, neurons in sets.items()
        }

    def _removed(
        self,
        out: RunWriter,
        concepts: list[Concept],
        made: dict[str, dict[str, WeightEdit]],
        measure: EditMeasure,
    ) -> pd.DataFrame:
        """`tars/prompts`, with the divergence of each edit beside its prompts."""
        asked = [(concept, name, n) for concept in concepts for name in SETS for n in self.edits]

        def measured(some: Sequence[tuple[Concept, str, int]]) -> Iterator[dict[str, Any]]:
            for concept, name, n in some:
                label = {"concept": concept.word, "neurons": name, "edits": n}
                (rows,), divergence = measure(made[concept.word][name].first(n), [concept])
                yield from (label | divergence | row for row in rows)

        size = len(self.edits)
        return out.in_pieces("tars/prompts", asked, measured, size, "remove concepts", "edits")

    def _together(
        self,
        out: RunWriter,
        concepts: list[Concept],
        made: dict[str, WeightEdit],
        measure: EditMeasure,
    ) -> pd.DataFrame:
        """The first concept removed, then the first two together, and so on."""
        from .weight_edits import WeightEdit

        steps = [(n, k) for n in self.edits for k in range(1, len(concepts) + 1)]

        def measured(some: Sequence[tuple[int, int]]) -> Iterator[dict[str, Any]]:
            for n, k in some:
                removed = concepts[:k]
                edit = WeightEdit.joined([made[c.word].first(n) for c in removed])
                asked, divergence = measure(edit, removed)
                pairs = zip(asked, removed, strict=True)
                logprobs = [_summary(rows, concept)["logprob"] for rows, concept in pairs]
                yield {"concepts": k, "edits": n, "logprob": sum(logprobs) / k} | divergence

        size = len(concepts)
        return out.in_pieces("tars/cumulative", steps, measured, size, "together", "edits")


def _closest(made: dict[str, dict[str, WeightEdit]]) -> dict[str, WeightEdit]:
    return {word: sets["closest"] for word, sets in made.items()}


def _effects(measured: pd.DataFrame, concepts: list[Concept]) -> Iterator[dict[str, Any]]:
    """Rows of `tars/effects`: what each edit does to its prompts, and its divergence."""
    by_word = {concept.word: concept for concept in concepts}
    divergence = [name for name in measured if name not in PROMPT_COLUMNS]
    names = ["concept", "neurons", "edits"]
    for label, part in measured.groupby(names, sort=False):
        concept = by_word[part["concept"].iloc[0]]
        rows: Any = part[list(PROMPT_COLUMNS)].to_dict("records")
        effect = dict(zip(names, label, strict=True)) | _summary(rows, concept)
        yield effect | {name: part[name].iloc[0] for name in divergence}


def _summary(rows: Sequence[dict[str, Any]], concept: Concept) -> dict[str, Any]:
    """Means over the prompts, with their intervals."""
    from ..runs.intervals import mean_of

    def mean(name: str, word: str, column: str) -> dict[str, float]:
        return mean_of([row[name] for row in rows if row["word"] == word]).columns(column)

    return {
        **mean("logprob", concept.word, "logprob"),
        **mean("probability", concept.word, "probability"),
        "neighbour": concept.neighbour,
        **mean("logprob", concept.neighbour, "neighbour_logprob"),
        "prompts": len(concept.prompts),
        "neighbour_prompts": len(concept.neighbour_prompts),
        "unit": "prompt",
    }


def _means(effects: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows of `tars/means`."""
    from ..runs.intervals import mean_of

    for (neurons, edits), part in effects.groupby(["neurons", "edits"], sort=False):
        row = {"neurons": neurons, "edits": edits}
        for name in ("probability", "logprob", "neighbour_logprob", "kl_mean"):
            row |= mean_of(part[name]).columns(name)
        yield {**row, "concepts": len(part), "unit": "concept"}


def _listed(made: dict[str, WeightEdit]) -> Iterator[dict[str, Any]]:
    for word, edit in made.items():
        pairs = zip(edit.neurons, edit.provenance["cosines"], strict=True)
        for i, (neuron, cosine) in enumerate(pairs, 1):
            yield {"concept": word, "edit": i, "name": str(neuron), "cosine": cosine}


def _metrics(effects: pd.DataFrame, cumulative: pd.DataFrame) -> dict[str, float]:
    """For every number of edits: the mean probability after each set, the KL divergence of one
    concept's removal (median over the concepts) and of all together."""
    metrics: dict[str, float] = {}
    for (n, neurons), part in effects.groupby(["edits", "neurons"]):
        metrics[f"{neurons}_{n}"] = round(float(part["probability"].mean()), 6)
        metrics[f"{neurons}_kl_median_{n}"] = float(part["kl_median"].median())
    together = cumulative[cumulative["concepts"] == cumulative["concepts"].max()]
    medians = zip(together["edits"], together["kl_median"], strict=True)
    return metrics | {f"together_kl_median_{n}": median for n, median in medians}
