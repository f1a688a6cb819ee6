"""How much of a logit comes from each token: rows of a language model's interpreter as Directions.

    logit_c = sum over tokens of row_c[token] . x[token] + r_c          (see language.py)

The row of a contrast (" Paris" against " London") is the difference of the rows. Equivalent, for a
model whose decisions are constants to autograd: `torch.autograd.grad(logit, x)`.

Written to the run: `logits.parquet` (logit string, value, linear, r double), `tokens.parquet`
(logit string, position int64, token string, contribution double, length double: of the row at that
token), and `directions/`, a row of A per logit and token (index: name, logit, position, token).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import UserError
from ..model.site import Site
from ..runs.writer import RunWriter

if TYPE_CHECKING:
    from ..model.subject import Subject
    from .interpreter import Interpreter


@dataclass(frozen=True)
class TokensConfig:
    """Split a language model's logits exactly among the tokens of a prompt."""

    STUDY: ClassVar[str] = "linearscope.tokens"
    VERSION: ClassVar[int] = 1

    model: str = "smollm2-135m"
    """A catalog name, hub id or folder."""
    prompt: str = "The capital of France is"
    """The text whose next token's logits are split."""
    site: str = "0.resid_pre"
    """The site whose activations the logits are split by."""
    words: tuple[str, ...] = ()
    """The tokens to explain, with their spaces; by default the three most likely."""
    against: str = ""
    """A token whose logit is subtracted from every other."""
    device: str = field(default="cpu", metadata={"key": False})
    """The device to compute on, such as cpu or cuda."""

    def fingerprints(self) -> dict[str, str]:
        from ..model.weights import open_weights

        return open_weights(self.model).fingerprints()

    def check(self) -> None:
        """Raise UserError for settings that cannot work."""
        if not self.prompt:
            raise UserError("the prompt is empty: give at least one token")
        Site.parse(self.site)

    def run(self, out: RunWriter) -> dict[str, Any]:
        import pandas as pd

        from ..directions import Directions
        from ..model.subject import open_subject
        from .language import interpret_logits

        subject = open_subject(self.model, device=self.device)
        out.facts["parity"] = subject.parity
        batch, site = subject.tokens(self.prompt), Site.parse(self.site)
        system = interpret_logits(subject, batch, site)
        names, rows, sums = self._logits(subject, system)
        texts = [subject.text(token[None]) for token in batch.ids[0]]
        shares = (rows * system.x0).double().flatten(2).sum(2)
        token_rows, index = [], []
        for n, name in enumerate(names):
            for position, text in enumerate(texts):
                where = {"logit": name, "position": position, "token": text}
                share, length = float(shares[n, position]), float(rows[n, position].norm())
                token_rows.append({**where, "contribution": share, "length": length})
                index.append({"name": f"{name!r} from {position}{text!r}", **where})
        with out.part("tokens.parquet") as path:
            pd.DataFrame(token_rows).to_parquet(path)
        with out.part("logits.parquet") as path:
            sums.to_parquet(path)
        about = {"model": self.model, "analysis": self.STUDY, "prompt": self.prompt}
        vectors = rows.flatten(0, 1).flatten(1).cpu()
        Directions(site, vectors, pd.DataFrame(index), about).save(out.path / "directions")
        errors = (sums["linear"] + sums["r"] - sums["value"]).abs()
        return {"largest error": float(errors.max()), "largest r": float(sums["r"].abs().max())}

    def _logits(self, subject: Subject, system: Interpreter) -> tuple[list[str], Any, Any]:
        """Names, rows [logits, pos, ...] and `logits.parquet`."""
        import pandas as pd
        import torch

        asked = dict.fromkeys(_token(subject, word) for word in self.words)
        ids = list(asked) or system.y[0].topk(3).indices.tolist()
        texts = [subject.text(torch.tensor([i])) for i in ids]
        # many tokens are pieces of a character and have the same text
        names = [t if texts.count(t) == 1 else f"{t} #{i}" for t, i in zip(texts, ids, strict=True)]
        rows = system.rows(torch.tensor(ids))
        value, r = system.y[0, ids].double(), system.r[0, ids].double()
        if self.against:
            other = _token(subject, self.against)
            rows = rows - system.rows(torch.tensor([other]))
            value, r = value - system.y[0, other], r - system.r[0, other]
            names = [f"{name} - {self.against}" for name in names]
        linear = (rows * system.x0).double().flatten(1).sum(1)
        columns = {"value": value.tolist(), "linear": linear.tolist(), "r": r.tolist()}
        return names, rows, pd.DataFrame({"logit": names, **columns})


def _token(subject: Subject, word: str) -> int:
    ids = subject.tokens(word).ids[0]
    if len(ids) != 1:
        pieces = ", ".join(repr(subject.text(piece[None])) for piece in ids)
        raise UserError(f"{word!r} is {len(ids)} tokens ({pieces}): give one of them")
    return int(ids[0])
