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
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..obsprop.task_files import Task, read_task
from ..runs.study import TextStudy
from ..runs.writer import RunWriter
from .asked import asked_target, task_print
from .head import Head
from .rules import Rule

if TYPE_CHECKING:
    from ..lens.lens import Lens


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
    """What reads the vectors that it writes: raw; final (the logit lens); tuned or jacobian, the
    model's newest fit or the shipped one; a run's folder or key; or a .safetensors or .pt file. Its
    fingerprint is part of the key."""
    k: int = 10
    """Tokens to keep of each vector."""
    vectors: int = 8
    """Singular vectors of OV to keep."""
    sample: int = 500
    """Tokens of the vocabulary, drawn at random, that are asked whether the head copies them."""

    @cached_property
    def opened_lens(self) -> Lens:
        from ..lens.files import open_lens

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
        if not self.prompt.strip():
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
        self.check_words(self.target, self.against)

    def run(self, out: RunWriter) -> dict[str, Any]:
        from .head_tables import HeadWork

        subject = self.open(out, attention="eager")
        target = None
        if self.target or self.task:
            words = (self.target, self.against)
            target = asked_target(subject, self.stored_weights, *words, self.task)
        work = HeadWork(
            subject,
            self.stored_weights,
            Head.parse(self.head, subject.spec),
            subject.tokens(self.prompt),
            target,
            self.rule,
            self.opened_lens,
            *(self.k, self.vectors, self.sample),
        )
        return work.tables(out)
