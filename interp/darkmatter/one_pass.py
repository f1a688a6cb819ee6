"""One pass over a stream of contexts for all readers (SAEs) of a site: fit, fit norms, measure.

The stream is cut in three runs of contexts, in order, so that no token is read twice and none of a
context is on two sides (Engels et al. cut by token, which leaks; here only the one document that
lies across a border has contexts on both sides):

    fit      x -> e for every SAE's error e (one Gram of x, shared), mean |e|^2 by token
    norms    x -> |.|^2 of x and of every SAE's output, error, linear and nonlinear part
    test     everything that is reported

What is kept is sums (`sums.py`): memory grows with the square of d, not with the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.kernels.gram import Fit, Gram

from ..errors import UserError
from ..saes.open import Read, Readers, Saes
from .sums import Errors, ScalarSums, Shrinkage, VectorSums, shrinkage

TARGETS = ("output", "error", "linear", "nonlinear", "corrected")
"""Vectors of every SAE whose squared norm is predicted; `corrected`: the error, shrinkage out."""


SMALL = 1e-3
"""Ridge, in mean variances, of the regressions beside the main one: they have fewer tokens."""


class Tokens(NamedTuple):
    """Activations and where they come from."""

    x: Float[Tensor, "n d"]
    document: Int[Tensor, " n"]
    token: Int[Tensor, " n"]
    before: tuple[Float[Tensor, "n d"], ...] = ()
    """Activations of the sites of the earlier SAEs."""


@dataclass
class ByToken:
    """Mean |e|^2 of every token id, the crudest prediction of an error's size."""

    count: Float[Tensor, " d_vocab"]
    total: Float[Tensor, "d_vocab saes"]

    @classmethod
    def empty(cls, d_vocab: int, saes: int) -> ByToken:
        zeros = torch.zeros(d_vocab, 1 + saes, dtype=torch.float64)
        return cls(zeros[:, 0], zeros[:, 1:])

    def add(self, token: Int[Tensor, " n"], squares: Float[Tensor, "n saes"]) -> None:
        self.count.index_add_(0, token, torch.ones(len(token), dtype=torch.float64))
        self.total.index_add_(0, token, squares)

    def predict(self, token: Int[Tensor, " n"]) -> Float[Tensor, "n saes"]:
        """The mean over all tokens for an id that was not seen."""
        overall = self.total.sum(0) / self.count.sum()
        seen = self.count[token][:, None]
        return torch.where(seen > 0, self.total[token] / seen.clamp_min(1), overall)


@dataclass
class OnePass:
    """The sums of one site's readers, and the regressions made of them on the way."""

    readers: Readers
    d_vocab: int
    ridge: float
    """Of the main regression, in mean variances of x."""
    earlier: tuple[Saes, ...] = ()
    """SAEs of sites before, whose outputs are tried as a cause of the nonlinear error."""
    fit_gram: Gram | None = None
    fit: Fit | None = None
    shrinkages: list[Shrinkage] = field(default_factory=list)
    norm_gram: Gram | None = None
    norm_fit: Fit | None = None
    earlier_grams: list[Gram | None] = field(default_factory=lambda: [None, None])
    """For x and y = outputs of earlier SAEs and nonlinear errors: in `norms`, and in `test`."""
    test_gram: Gram | None = None
    table: ByToken = field(init=False)
    vectors: VectorSums = field(init=False)
    scalars: ScalarSums = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.readers.names)
        self.table = ByToken.empty(self.d_vocab, count)
        self.vectors = VectorSums.empty(count, self.readers.d_in)
        self.scalars = ScalarSums.empty(scalar_names(self.readers.names))

    def add_fit(self, found: Tokens, read: Read) -> None:
        self.fit_gram = _merged(self.fit_gram, read.x, read.error.flatten(1))
        self.table.add(found.token, read.error.double().square().sum(2))

    def close_fit(self) -> None:
        """Solve for every reader's linear map.

        Raises:
            UserError: x does not determine it, or a reader whose output never changes.
        """
        assert self.fit_gram is not None
        self.fit, d = self.solved(self.ridge, True), self.readers.d_in
        if self.fit.method != "cholesky":
            raise undetermined(self.fit_gram.count, d)
        for number, name in enumerate(self.readers.names):
            gram, own = self.fit_gram, slice(number * d, (number + 1) * d)
            part = Gram(
                gram.count, gram.x_mean, gram.y_mean[own], gram.xx, gram.xy[:, own], gram.yy[own]
            )
            try:
                self.shrinkages.append(shrinkage(part))
            except ValueError as error:
                raise UserError(f"{name}: {error}; leave this SAE out") from error

    def solved(self, ridge: float, intercept: bool) -> Fit:
        """The regression of all errors on x; `ridge` in mean variances of x. Its `method` is not
        "cholesky" where x does not determine it."""
        gram = self.fit_gram
        assert gram is not None
        scale = float(gram.xx.trace()) / (gram.count * len(gram.xx))
        return gram.solve(ridge * scale, intercept)

    def parts(self, read: Read) -> Errors:
        """The errors and their two parts; after `close_fit`."""
        assert self.fit is not None
        x, error = read.x.double(), read.error.double()
        linear = self.fit(x).view(error.shape)
        return Errors(x, error, linear, error - linear, read.active.double())

    def add_norms(self, found: Tokens, parts: Errors) -> None:
        self.norm_gram = _merged(self.norm_gram, parts.x, self._squares(parts))
        self._add_earlier(0, found, parts)

    def close_norms(self) -> None:
        assert self.norm_gram is not None
        scale = float(self.norm_gram.xx.trace()) / (self.norm_gram.count * self.readers.d_in)
        self.norm_fit = self.norm_gram.solve(SMALL * scale)

    def add_test(self, found: Tokens, parts: Errors, loss: Float[Tensor, " n"]) -> None:
        """`loss` is the model's cross-entropy of the token that follows (NaN where none does)."""
        assert self.norm_fit is not None
        self.test_gram = _merged(self.test_gram, parts.x, parts.error.flatten(1))
        self.vectors.add(found.document, parts)
        columns = [
            self._squares(parts),
            self.norm_fit(parts.x),
            self.table.predict(found.token),
            parts.error.norm(dim=2),
            parts.nonlinear.norm(dim=2),
            parts.active,
            loss.double()[:, None],
        ]
        known = loss.isfinite()
        self.scalars.add(found.document[known], torch.cat(columns, 1)[known])
        self._add_earlier(1, found, parts)

    def _add_earlier(self, at: int, found: Tokens, parts: Errors) -> None:
        outputs = [
            (x[:, None] - saes.read(x).error).flatten(1)
            for saes, x in zip(self.earlier, found.before, strict=True)
        ]
        if outputs:
            gram, y = self.earlier_grams[at], parts.nonlinear.flatten(1)
            self.earlier_grams[at] = _merged(gram, torch.cat(outputs, 1), y)

    def earlier_r2(self) -> Float[Tensor, " saes"]:
        """Share of every SAE's nonlinear error, over all outputs, that the earlier SAEs explain."""
        fitted, tested = self.earlier_grams
        assert fitted is not None
        assert tested is not None
        scale = float(fitted.xx.trace()) / (fitted.count * len(fitted.xx))
        shape = (len(self.readers.names), self.readers.d_in)
        error = tested.squared_error(fitted.solve(SMALL * scale)).view(shape).sum(1)
        return 1 - error / tested.yy.view(shape).sum(1)

    def _squares(self, parts: Errors) -> Float[Tensor, "n targets"]:
        """|x|^2, and of every reader the TARGETS'."""
        whole = parts.x[:, None]
        corrected = torch.stack(
            [
                shrink.corrected(parts.x, parts.error[:, at])
                for at, shrink in enumerate(self.shrinkages)
            ],
            1,
        )
        vectors = (whole - parts.error, parts.error, parts.linear, parts.nonlinear, corrected)
        squares = torch.stack([v.square().sum(2) for v in vectors], 2)
        return torch.cat([whole.square().sum(2), squares.flatten(1)], 1)


def scalar_names(readers: tuple[str, ...]) -> tuple[str, ...]:
    """The numbers per token whose moments are kept, in their order in `add_test`."""
    targets = ["x", *(f"{target} {name}" for name in readers for target in TARGETS)]
    return (
        *targets,
        *(f"predicted {target}" for target in targets),
        *(f"by token {name}" for name in readers),
        *(f"length error {name}" for name in readers),
        *(f"length nonlinear {name}" for name in readers),
        *(f"active {name}" for name in readers),
        "loss",
    )


def undetermined(tokens: int, d: int) -> UserError:
    """What to say where x does not determine its linear map."""
    return UserError(
        f"{tokens} tokens do not determine a linear map of {d} numbers (the Gram matrix is "
        "singular): give more --tokens, or --ridge 1e-6"
    )


def _merged(gram: Gram | None, x: Tensor, y: Tensor) -> Gram:
    part = Gram.of(x, y)
    return part if gram is None else gram.merge(part)
