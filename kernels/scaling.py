"""Powers of two, taken off the operands before anything is multiplied and given back at the end.

float32 holds t^4 only for t between 1e-9 and 1e9, and a logit of two short rows not at all. So
every path multiplies rows whose largest number is near 1:

    logit = unit * (x * factor) . w',    factor = 2^-e, w' = w * 2^-f, unit = 2^(e + f)

No digit changes by this, except of numbers 2^126 times smaller than the largest of their row of x,
or of the read-out. They are within every bound, and the exact scores (in float64, from both as
given) still see them. Skewness and kurtosis are computed without
the unit, so they are the same bits for x and 2^p x.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

MODERATE = 40
"""A read-out whose largest number is within 2^40 of 1 stays as it is, and is not copied."""
MOST = 126
"""Largest exponent taken off: its power and the power's inverse are normal numbers in float32."""
SOFT = (2.0**-100, 2.0**80)
"""Limits of a unit in exponents of e: beyond them no softmax changes, and float32 overflows."""


class Operands(NamedTuple):
    """What is multiplied: rows times their factor, and the read-out; and both as given."""

    vectors: Tensor
    """[n, d] as given."""
    readout: Tensor
    """w' [V, d]."""
    factor: Tensor
    """[n], in a dtype that keeps the vectors' digits."""
    unit: np.ndarray
    """[n] float64: a logit in units of what the products give."""
    given: Tensor
    """[V, d] the read-out as given; the product with `exact_rows` is in the unit of the others."""

    def rows(self, rows: slice | Tensor) -> Tensor:
        """Some rows, times their factor."""
        return self.vectors[rows] * self.factor[rows, None]

    def exact_rows(self) -> Tensor:
        """[n, d] float64: the vectors over their units, to be multiplied with `given`."""
        return self.vectors.double() / torch.from_numpy(self.unit).to(self.vectors.device)[:, None]

    def only(self, rows: np.ndarray) -> Operands:
        """The operands of some rows."""
        at = torch.from_numpy(rows).to(self.vectors.device)
        return self._replace(vectors=self.vectors[at], factor=self.factor[at], unit=self.unit[rows])


def scaled(
    vectors: Tensor, readout: Tensor, moderate_rows: int = 0, moderate: int = MODERATE
) -> Operands:
    """Rows and read-out brought near 1.

    Exponents as small as `moderate_rows` and, of the read-out, `moderate` are left as they are.

    Raises:
        ValueError: a value that is not finite.
    """
    exponents = _exponents(torch.aminmax(vectors, dim=1), "vectors")
    exponents[abs(exponents) <= moderate_rows] = 0
    exponent, given = int(_exponents(torch.aminmax(readout), "readout")), readout
    if abs(exponent) <= moderate:
        exponent = 0
    else:
        readout = readout * 2.0**-exponent
    # float16 does not hold all of them
    precision = torch.float32 if vectors.dtype == torch.float16 else vectors.dtype
    factor = torch.from_numpy(np.ldexp(1.0, -exponents)).to(vectors.device, precision)
    return Operands(vectors, readout, factor, np.ldexp(1.0, exponents + exponent), given)


def soft(unit: np.ndarray) -> np.ndarray:
    """[n] float32: what products are multiplied with in exponents of e."""
    clipped: np.ndarray = np.clip(unit, *SOFT).astype(np.float32)
    return clipped


def _exponents(extremes: tuple[Tensor, Tensor], name: str) -> np.ndarray:
    """e of the largest number of each row, which is between 2^(e-1) and 2^e; 0 for zeros."""
    # the extremes carry NaN and infinities, and unlike isfinite make no mask of the whole
    low, high = (end.cpu().double().numpy() for end in extremes)
    largest = np.maximum(-low, high)
    if not np.isfinite(largest).all():
        raise ValueError(f"there is a NaN or an infinity in the {name}")
    exponents: np.ndarray = np.clip(np.frexp(largest)[1], -MOST, MOST)
    return exponents
