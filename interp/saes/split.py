"""An SAE's error, cut into the part that is a linear function of the activation and the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interp.kernels.gram import Fit, Gram

from ..errors import UserError
from .sae import Sae


class SplitActivations(NamedTuple):
    """x = reconstruction + linear + nonlinear, up to float64's rounding; each [n, d_in]."""

    reconstruction: Tensor
    """With the mean that an SAE of centred activations leaves as it is."""
    linear: Tensor
    """What of the error x - reconstruction is a linear function of x."""
    nonlinear: Tensor


@dataclass(frozen=True)
class SaeSplit:
    """An SAE and a linear map of x to its error: together they cut activations in three."""

    sae: Sae
    fit: Fit

    def check(self, site: str, model: str = "", anyway: bool = False) -> None:
        """Raise UserError if it does not cut activations at this site of this model.

        Args:
            model: "" for one that is not known.
            anyway: take an SAE that names another model.
        """
        if self.sae.reads:
            raise UserError(
                f"the SAE is of the {self.sae.reads}, not of activations: take an SAE of {site}"
            )
        if self.sae.site not in ("", site):
            raise UserError(
                f"the SAE is of {self.sae.site}, these directions of {site}: take an SAE of that "
                "site"
            )
        if model:
            self.sae.check_model(model, "this SAE", anyway)

    @classmethod
    def of(
        cls, sae: Sae, x: Float[Tensor, "n d_in"], ridge: float = 0.0, intercept: bool = True
    ) -> SaeSplit:
        """The map fitted to activations, which should not be those it is used on.

        Args:
            ridge: in mean variances of x, as in all fits of an error.
        """
        grams = (Gram.of(read, read - x_hat) for read, _, x_hat in sae.reconstructions(x))
        gram = reduce(Gram.merge, grams)
        return cls(sae, error_map(gram, ridge, intercept, sae.centred))

    def __call__(self, x: Float[Tensor, "n d_in"]) -> SplitActivations:
        read, _, x_hat = zip(*self.sae.reconstructions(x), strict=True)
        exact, given = x.double().reshape(len(x), -1), torch.cat(read).double()
        linear = self.fit(given)
        kept = torch.cat(x_hat).double() + (exact - given)
        return SplitActivations(kept, linear, exact - kept - linear)


def error_map(gram: Gram, ridge: float = 0.0, intercept: bool = True, centred: bool = False) -> Fit:
    """The linear map of x to what is regressed on it, its `ridge` in mean variances of x.

    Args:
        centred: x has no mean over d_model. It is given an unrelated one, on which no prediction
            from x depends: the moments determine a linear map again.
    """
    if not centred:
        return gram.solve(ridge, intercept)
    d = len(gram.xx)
    filled = replace(gram, xx=gram.xx + gram.xx.trace() / d**2)
    return filled.solve(ridge / (1 + 1 / d), intercept)  # of x: the mean adds 1/d to its variance
