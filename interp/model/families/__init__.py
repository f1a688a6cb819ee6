"""Model families: the only place that knows what an architecture calls its parts.

`table` lists them, one declarative `Family` each (`family` says what an entry says), `wrappers` the
models with a text model inside; `spec` reads sizes from a config.json; `names` finds the
parts in files and in memory; `outside` takes in the families of other packages.
"""

from .family import Experts, Family, Part, Variant
from .names import Names
from .spec import ModelSpec, read_spec
from .table import FAMILIES, UNFIT
from .wrappers import WRAPPERS, Wrapper

__all__ = [
    "FAMILIES",
    "UNFIT",
    "WRAPPERS",
    "Experts",
    "Family",
    "ModelSpec",
    "Names",
    "Part",
    "Variant",
    "Wrapper",
    "read_spec",
]
