"""The study `prompt.look`: what a model makes of a text, and which parts of it say the next token.

Equations: `direct`, `tokens`, `pair`. The logits at a position are of the token after it, so what
is said of a position explains what the model predicts *after* that token. At every position the
explained logit is that of the likeliest next token; at the chosen one that of `target`.

Written to the run:
    tokens.parquet   as `tokens.token_table`: position, token, id, special, probability, rank,
                     surprise, entropy, next, next_probabilities
    cells.parquet    the lens grid, as `interp.lens.grid` writes it
    parts.parquet    as `tables.part_table`: position, target, kind, layer, contribution
    heads.parquet    as `tables.head_table`: position, target, name, layer, head, contribution,
                     source, from_source
    neurons.parquet  as `tables.neuron_table`: position, target, name, layer, neuron, activation,
                     contribution, per_unit, by_contribution, by_activation; with raises, lowers
                     list<string>, the tokens that what it writes there raises and lowers most
    values.parquet   position, target, value (of the model's own logits), error double: how far the
                     sum of the parts is from it
and where they are asked for
    scores.parquet   as `scores.scored`: name, text, position, token, score
    other_tokens.parquet, differences.parquet    of the other text: as tokens, and as
                     `differences.differences`: of, name, kind, layer, here, there, active_here,
                     active_there, difference
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..runs.study import TextStudy
from ..runs.writer import RunWriter

if TYPE_CHECKING:
    from ..directions import Directions
    from ..lens.lens import Lens
    from ..model.prompting import Bos
    from ..runs.store import Run, Store
    from .direct import Asked, Direct
    from .passed import Opened, Passed


@dataclass(frozen=True)
class LookConfig(TextStudy):
    """Put a text under the microscope: its tokens, what the model says after each, and the parts,
    heads and neurons that say it."""

    STUDY: ClassVar[str] = "prompt.look"
    VERSION: ClassVar[int] = 2
    FACTS: ClassVar[dict[str, Any]] = {"position": int, "lens": dict[str, Any]}

    prompt: str = field(default="The capital of France is", metadata={"positional": True})
    """The text."""
    position: int = -1
    """The token after which the target is explained, from 0; a negative one counts from the end."""
    target: str = ""
    """The token that is explained there, with its space; by default the likeliest."""
    against: str = ""
    """A token whose logit is subtracted; by default the mean over the vocabulary is."""
    alone: bool = False
    """Explain the token's own logit: nothing is subtracted."""
    other: str = ""
    """Another text to compare with at the chosen position."""
    direction: str = field(default="", metadata={"key": False})
    """Directions that score each token, as `interp directions` takes them (29.down.808, a folder,
    sae:SOURCE:12). Their fingerprint is part of the key. With --bos auto latents score the text
    as their SAE asks for it, so positions of their scores may count a BOS more."""
    lens: str = field(default="final", metadata={"key": False})
    """What reads the stream after each layer: final (the logit lens); tuned or jacobian, the
    model's newest fit or the shipped one; a run's folder or key; or a .safetensors or .pt file. Its
    fingerprint is part of the key."""
    k: int = 10
    """Tokens to keep of each distribution."""
    keep: int = 20
    """Heads and neurons to keep at each position."""

    @cached_property
    def opened_lens(self) -> Lens:
        from ..lens.files import open_lens

        return open_lens(self.lens, self.stored_weights)

    @cached_property
    def directions(self) -> Directions:
        from ..directions import open_directions

        return open_directions(self.direction, self.model)

    @property
    def scores_bos(self) -> Bos:
        """What goes before the text where directions score it: as for `interp directions text`,
        what is asked for, or else what an SAE says of the texts that it was trained on."""
        return self.directions.reading.bos if self.bos == "auto" else self.bos

    def fingerprints(self) -> dict[str, str]:
        own = {"lens": self.opened_lens.identity}
        if self.direction:
            own["direction"] = self.directions.identity
            start = self.start(self.scores_bos)
            if start != self.start(self.bos):
                own["before the scored text"] = " ".join(map(str, start))
        return {**super().fingerprints(), **own}

    def check(self) -> None:
        super().check()
        if not self.prompt.strip():
            raise UserError("the prompt is empty: give at least one token")
        if self.prompt == self.other:
            raise UserError("the other text is the same: change it")
        if self.alone and self.against:
            raise UserError("--alone subtracts nothing: leave out --against")
        self.check_tokens(self.k)
        self._check_places()
        if self.keep < 1:
            raise UserError(f"--keep must be at least 1, not {self.keep}")

    def _check_places(self) -> None:
        """Refuse what the tokenizer alone shows to be none, before the model is opened."""
        from .pair import place_of, position_of

        ids = self.prompting.ids(self.prompt)
        at = position_of(self.position, len(ids))
        self.check_words(self.target, self.against)
        if self.other:
            place_of(ids, self.prompting.ids(self.other), at)

    def run(self, out: RunWriter) -> dict[str, Any]:
        from .passed import Opened

        return self.write(out, Opened(self.open(out, attention="eager")))

    def write(self, out: RunWriter, opened: Opened) -> dict[str, Any]:
        """Write the tables, with a model that is open; the metrics."""
        from .direct import Direct
        from .passed import passed
        from .tokens import token_table

        seen = passed(opened, self.prompt)
        at = seen.position(self.position)
        out.facts |= {"position": at, "lens": self.opened_lens.about}
        tokens = out.table("tokens", token_table(seen, self.k))
        out.table("cells", grid(seen, self.opened_lens, self.k))
        asked = [self._asked(seen, position, at) for position in range(len(seen))]
        errors = self._contributions(out, Direct.over(seen, asked))
        metrics: dict[str, Any] = {}
        if self.direction:
            from .scores import scored_text

            found = scored_text(seen, self.prompt, self.directions, self.scores_bos)
            out.table("scores", found)
        if self.other:
            metrics = self._compare(out, seen, at, asked[at])
        return {
            "explained": asked[at].name(opened.strings),
            "value": asked[at].value(seen.logits(at)),
            "tokens": len(tokens),
            "mean surprise, nats": float(tokens["surprise"].mean()),
            "largest error of a sum": errors,
            **metrics,
        }

    def _asked(self, seen: Passed, position: int, chosen: int) -> Asked:
        from .direct import ask

        words = (self.target, self.against) if position == chosen else ("", "")
        return ask(seen, position, *words, self.alone)

    def _contributions(self, out: RunWriter, direct: Direct) -> float:
        """Tables of every position; the largest error of a sum."""
        import pandas as pd

        from .tables import head_table, neuron_table, part_table, sum_errors
        from .words import with_words

        out.table("parts", part_table(direct))
        out.table("heads", head_table(direct, self.keep))
        neurons = neuron_table(direct, self.keep)
        out.table("neurons", with_words(direct.passed.opened, neurons))
        strings, errors = direct.passed.opened.strings, sum_errors(direct)
        values = {
            "position": range(len(errors)),
            "target": [asked.name(strings) for asked in direct.asked],
            "value": direct.values.tolist(),
            "error": errors.tolist(),
        }
        out.table("values", pd.DataFrame(values))
        return float(errors.max())

    def _compare(self, out: RunWriter, seen: Passed, at: int, asked: Asked) -> dict[str, Any]:
        """The tables of the other text."""
        from .differences import differences
        from .direct import Direct
        from .pair import place_of
        from .passed import passed
        from .tokens import token_table

        other = passed(seen.opened, self.other)
        out.table("other_tokens", token_table(other, self.k))
        place = place_of(seen.ids.tolist(), other.ids.tolist(), at)
        here, there = (Direct.one(*pair, asked) for pair in ((seen, at), (other, place.position)))
        out.table("differences", differences(here, there, self.keep))
        return {
            "value in the other text": float(there.values),
            "position in the other text": place.position,
        }


def look_with(config: LookConfig, opened: Opened, store: Store) -> Run:
    """The run of a study, made with a model that is open already."""
    from ..runs.making import open_or_make
    from ..runs.study import plan

    def work(out: RunWriter) -> dict[str, Any]:
        config.record(out, opened.subject)
        return config.write(out, opened)

    planned = plan(config)
    folder = store.folder(config.STUDY, planned["key"])
    return open_or_make(folder, planned, config.check, work)


def grid(seen: Passed, lens: Lens, k: int, start: int = 0, end: int | None = None) -> Any:
    """The lens grid of some positions of a text, as `interp.lens.grid` makes it."""
    import pandas as pd
    import torch

    from ..lens.grid import cells
    from ..model.site import Site

    weights, some = seen.opened.weights, range(len(seen))[start:end]
    own = torch.stack([seen.logprobs(at) for at in some])
    streams = {
        layer: seen.seen[Site("resid_post", layer)][some.start : some.stop]
        for layer in range(weights.spec.n_layers)
        if lens.covers(layer) and Site("resid_post", layer) in seen.seen
    }
    said = seen.tokens[some.start : some.stop]
    text = seen.opened.subject.text
    table = pd.DataFrame(cells(lens, streams, own, said, k, text, weights.W_U()))
    return table.assign(position=table["position"] + some.start)
