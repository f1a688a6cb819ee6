"""What one pass makes of the errors of a site's SAEs: regressions, and the sums of what they leave.

The stream is cut into three blocks of contexts, in order, so that no token is read twice and no
context lies in two blocks (Engels et al. cut by token, which leaks; here only the one document
across a border has contexts in both):

    fit      x -> e for every SAE's error e (one Gram of x, shared), mean |e|^2 by token
    norms    x -> |.|^2 of x and of every SAE's output, error, linear and nonlinear part
    test     everything that is reported

Only sums are kept (`accumulators.py`): memory grows with the square of d, not with the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.kernels.gram import Fit, Gram

from ..errors import UserError
from ..saes.open import ErrorSource, SaeErrors, Saes
from ..saes.split import error_map
from ..text.contexts import Tokens
from .accumulators import ScalarSums, Shrinkage, SplitErrors, VectorSums, shrinkage

TARGETS = ("output", "error", "linear", "nonlinear", "corrected")
"""Vectors of every SAE whose squared norm is predicted; `corrected`: the error, shrinkage out."""
SMALL = 1e-3
"""Ridge, in mean variances, of the regressions beside the main one: they have fewer tokens."""


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
class ErrorRegressions:
    """What is accumulated of one site's SAEs, and the regressions solved on the way."""

    saes: ErrorSource
    d_vocab: int
    ridge: float
    """Of the main regression, in mean variances of x."""
    earlier: tuple[Saes, ...] = ()
    """SAEs of sites before, whose outputs may explain the nonlinear error."""
    fit_gram: Gram | None = None
    fit: Fit | None = None
    shrinkages: list[Shrinkage] = field(default_factory=list)
    norm_gram: Gram | None = None
    norm_fit: Fit | None = None
    earlier_grams: list[Gram | None] = field(default_factory=lambda: [None, None])
    """For x and y = outputs of earlier SAEs and nonlinear errors: in `norms`, and in `test`."""
    test_gram: Gram | None = None
    by_token: ByToken = field(init=False)
    vectors: VectorSums = field(init=False)
    scalars: ScalarSums = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.saes.names)
        self.by_token = ByToken.empty(self.d_vocab, count)
        self.vectors = VectorSums.empty(count, self.saes.d_in)
        self.scalars = ScalarSums.empty(scalar_names(self.saes.names))

    def state(self) -> dict[str, Tensor]:
        """Every sum, by name: what `restore` continues from."""
        sums = {
            "by_token/count": self.by_token.count,
            "by_token/total": self.by_token.total,
            "scalars": self.scalars.moments,
            **{f"vectors/{f.name}": getattr(self.vectors, f.name) for f in fields(self.vectors)},
        }
        for name, gram in self._grams().items():
            for part in fields(gram) if gram else ():
                sums[f"{name}/{part.name}"] = torch.as_tensor(getattr(gram, part.name))
        return sums

    def restore(self, sums: dict[str, Tensor]) -> None:
        """Set all sums to what `state` gave; what was solved with them is to be solved again."""
        self.by_token = ByToken(sums["by_token/count"], sums["by_token/total"])
        self.scalars.moments = sums["scalars"]
        self.vectors = VectorSums(*(sums[f"vectors/{f.name}"] for f in fields(VectorSums)))
        held = {name: _gram_in(sums, name) for name in self._grams()}
        self.fit_gram, self.norm_gram, self.test_gram, *self.earlier_grams = held.values()

    def _grams(self) -> dict[str, Gram | None]:
        names = ("fit", "norms", "test", "earlier in norms", "earlier in test")
        grams = (self.fit_gram, self.norm_gram, self.test_gram, *self.earlier_grams)
        return dict(zip(names, grams, strict=True))

    def add_fit(self, tokens: Tokens, errors: SaeErrors) -> None:
        self.fit_gram = _merged(self.fit_gram, errors.x, errors.error.flatten(1))
        self.by_token.add(tokens.token, errors.error.double().square().sum(2))

    def close_fit(self) -> None:
        """Solve for every SAE's linear map.

        Raises:
            UserError: x does not determine it.
        """
        assert self.fit_gram is not None
        self.fit, d = self.solved(self.ridge, True), self.saes.d_in
        if self.fit.method != "cholesky":
            raise undetermined(self.fit_gram.count, d)
        for number in range(len(self.saes.names)):
            gram, own = self.fit_gram, slice(number * d, (number + 1) * d)
            part = Gram(
                gram.count, gram.x_mean, gram.y_mean[own], gram.xx, gram.xy[:, own], gram.yy[own]
            )
            self.shrinkages.append(shrinkage(part))

    def solved(self, ridge: float, intercept: bool) -> Fit:
        """The regression of all errors on x; `ridge` in mean variances of x. Where x does not
        determine it, its `method` is not "cholesky"."""
        assert self.fit_gram is not None
        return error_map(self.fit_gram, ridge, intercept, self.saes.centred)

    def split(self, errors: SaeErrors) -> SplitErrors:
        """The errors and their two parts; after `close_fit`."""
        assert self.fit is not None
        x, error = errors.x.double(), errors.error.double()
        linear = self.fit(x).view(error.shape)
        return SplitErrors(x, error, linear, error - linear, errors.active.double())

    def add_norms(self, tokens: Tokens, split: SplitErrors) -> None:
        self.norm_gram = _merged(self.norm_gram, split.x, self._squares(split))
        self._add_earlier(0, tokens, split)

    def close_norms(self) -> None:
        assert self.norm_gram is not None
        self.norm_fit = error_map(self.norm_gram, SMALL, centred=self.saes.centred)

    def add_test(self, tokens: Tokens, split: SplitErrors, loss: Float[Tensor, " n"]) -> None:
        """`loss` is the model's cross-entropy of the token that follows (NaN where none does)."""
        assert self.norm_fit is not None
        self.test_gram = _merged(self.test_gram, split.x, split.error.flatten(1))
        self.vectors.add(tokens.document, split)
        columns = [
            self._squares(split),
            self.norm_fit(split.x),
            self.by_token.predict(tokens.token),
            split.error.norm(dim=2),
            split.nonlinear.norm(dim=2),
            split.active,
            loss.double()[:, None],
        ]
        known = loss.isfinite()
        self.scalars.add(tokens.document[known], torch.cat(columns, 1)[known])
        self._add_earlier(1, tokens, split)

    def _add_earlier(self, at: int, tokens: Tokens, split: SplitErrors) -> None:
        made = (saes.errors(x) for saes, x in zip(self.earlier, tokens.before, strict=True))
        outputs = [(each.x[:, None] - each.error).flatten(1) for each in made]
        if outputs:
            gram, y = self.earlier_grams[at], split.nonlinear.flatten(1)
            self.earlier_grams[at] = _merged(gram, torch.cat(outputs, 1), y)

    def earlier_r2(self) -> Float[Tensor, " saes"]:
        """Share of every SAE's nonlinear error, over all outputs, that the earlier SAEs explain."""
        fitted, tested = self.earlier_grams
        assert fitted is not None
        assert tested is not None
        shape = (len(self.saes.names), self.saes.d_in)
        error = tested.squared_error(error_map(fitted, SMALL)).view(shape).sum(1)
        return 1 - error / tested.yy.view(shape).sum(1)

    def _squares(self, split: SplitErrors) -> Float[Tensor, "n targets"]:
        """|x|^2, and of every SAE those of the TARGETS."""
        whole = split.x[:, None]
        corrected = torch.stack(
            [
                each.corrected(split.x, split.error[:, at])
                for at, each in enumerate(self.shrinkages)
            ],
            dim=1,
        )
        vectors = (whole - split.error, split.error, split.linear, split.nonlinear, corrected)
        squares = torch.stack([v.square().sum(2) for v in vectors], 2)
        return torch.cat([whole.square().sum(2), squares.flatten(1)], 1)


def scalar_names(saes: tuple[str, ...]) -> tuple[str, ...]:
    """The numbers per token whose moments are accumulated, in their order in `add_test`."""
    targets = ["x", *(f"{target} {name}" for name in saes for target in TARGETS)]
    return (
        *targets,
        *(f"predicted {target}" for target in targets),
        *(f"by token {name}" for name in saes),
        *(f"length error {name}" for name in saes),
        *(f"length nonlinear {name}" for name in saes),
        *(f"active {name}" for name in saes),
        "loss",
    )


def undetermined(tokens: int, d: int) -> UserError:
    """The error where x does not determine its linear map."""
    return UserError(
        f"{tokens} tokens do not determine a linear map of {d} numbers (the Gram matrix is "
        "singular): give more --tokens, or --ridge 1e-6"
    )


def _gram_in(sums: dict[str, Tensor], name: str) -> Gram | None:
    """The one of a name, if there is one."""
    if f"{name}/count" not in sums:
        return None
    _, *parts = (sums[f"{name}/{part.name}"] for part in fields(Gram))
    return Gram(int(sums[f"{name}/count"]), *parts)


def _merged(gram: Gram | None, x: Tensor, y: Tensor) -> Gram:
    part = Gram.of(x, y)
    return part if gram is None else gram.merge(part)
