"""How much of a logit comes from each token: rows of a language model's interpreter as Directions.

    logit_c = sum over tokens of row_c[token] . x[token] + r_c          (see language.py)

The row of a contrast (" Paris" against " London") is the difference of the rows. Equivalent, for a
model whose decisions are constants to autograd: `torch.autograd.grad(logit, x)`.

Written to the run: `logits.parquet` (logit string, value, linear, r double), `tokens.parquet`
(logit string, position int64, token string, contribution double, length double: of the row at that
token), and `directions/`, a row of A per logit and token (index: name, logit, position, token).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..model.site import Site
from ..runs.study import TextStudy
from ..runs.writer import RunWriter

if TYPE_CHECKING:
    from ..model.subject import Subject
    from .interpreter import Interpreter


@dataclass(frozen=True)
class TokensConfig(TextStudy):
    """Split a language model's logits exactly among the tokens of a prompt."""

    STUDY: ClassVar[str] = "linearscope.tokens"
    VERSION: ClassVar[int] = 2

    prompt: str = "The capital of France is"
    """The text whose next token's logits are split."""
    site: str = "0.resid_pre"
    """The site whose activations the logits are split by."""
    words: tuple[str, ...] = ()
    """The tokens to explain, with their spaces; by default the three most likely."""
    against: str = ""
    """A token whose logit is subtracted from every other."""

    def check(self) -> None:
        super().check()
        self.stored_weights.check_dense("linearscope tokens")
        if not self.prompt.strip():
            raise UserError("the prompt is empty: give at least one token")
        Site.parse(self.site)
        for word in (*self.words, self.against):
            self.check_words(word)  # one of them may be given twice

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd

        from ..directions import Directions
        from ..directions.provenance import Provenance
        from .language import interpret_logits

        subject = self.open(out)
        batch, site = subject.tokens(self.prompt), Site.parse(self.site)
        system = interpret_logits(subject, batch, site)
        names, rows, sums = self._logits(subject, system)
        out.table("logits", sums)
        texts = [subject.text(token[None]) for token in batch.ids[0]]
        where = pd.MultiIndex.from_product([names, range(len(texts))], names=["logit", "position"])
        index = where.to_frame(index=False).assign(token=texts * len(names))
        shares = (rows * system.x0).double().flatten(2).sum(2).flatten()
        lengths = rows.flatten(2).norm(dim=2).flatten()
        columns = {"contribution": shares.tolist(), "length": lengths.tolist()}
        out.table("tokens", index.assign(**columns))
        labels = [f"{logit!r} from {n}{text!r}" for logit, n, text in index.to_numpy()]
        index.insert(0, "name", labels)
        made = Provenance.of(self.STUDY, self.stored_weights, prompt=self.prompt)
        vectors = rows.flatten(0, 1).flatten(1).cpu()
        Directions(site, vectors, index, made).save_in(out, "directions")
        errors = (sums["linear"] + sums["r"] - sums["value"]).abs()
        return {"largest error": float(errors.max()), "largest r": float(sums["r"].abs().max())}

    def _logits(self, subject: Subject, system: Interpreter) -> tuple[list[str], Any, Any]:
        """Names, rows [logits, pos, ...] and `logits.parquet`."""
        import pandas as pd
        import torch

        from ..model.prompting import one_token

        size = subject.spec.d_vocab
        asked = dict.fromkeys(one_token(subject.prompting, word, size) for word in self.words)
        ids = list(asked) or system.y[0].topk(3).indices.tolist()
        texts = [subject.text(torch.tensor([i])) for i in ids]
        # many tokens are pieces of a character and have the same text
        names = [t if texts.count(t) == 1 else f"{t} #{i}" for t, i in zip(texts, ids, strict=True)]
        rows = system.rows(torch.tensor(ids))
        value, r = system.y[0, ids].double(), system.r[0, ids].double()
        if self.against:
            other = one_token(subject.prompting, self.against, size)
            rows = rows - system.rows(torch.tensor([other]))
            value, r = value - system.y[0, other], r - system.r[0, other]
            names = [f"{name} - {self.against}" for name in names]
        linear = (rows * system.x0).double().flatten(1).sum(1)
        columns = {"value": value.tolist(), "linear": linear.tolist(), "r": r.tolist()}
        return names, rows, pd.DataFrame({"logit": names, **columns})
