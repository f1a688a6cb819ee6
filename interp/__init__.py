"""A mechanistic interpretability workbench: everything it finds is a direction at a site.

`import interp` is all that a notebook needs: `interp.open_subject`, `interp.Site`,
`interp.Directions`, `interp.edits`, `interp.run_or_load` and the config of every study,
`interp.AtlasConfig`. Each is imported when it is first used.
"""

from typing import TYPE_CHECKING

from . import analyses as _registry  # it tells the stored runs what their studies' types are
from .lazy import lazy

if TYPE_CHECKING:
    from .directions import Directions, open_directions
    from .directions.collections import open_collection
    from .directions.keeping import keep
    from .errors import UserError
    from .model import edits
    from .model.network import open_network
    from .model.site import Site
    from .model.subject import open_subject
    from .model.weights import open_weights
    from .runs.store import Store, open_run
    from .runs.study import run_or_load
    from .saes import open_saes

__version__ = "0.1.0"
__all__ = [
    "Directions",
    "Site",
    "Store",
    "UserError",
    "edits",
    "keep",
    "open_collection",
    "open_directions",
    "open_network",
    "open_run",
    "open_saes",
    "open_subject",
    "open_weights",
    "run_or_load",
]


def _public() -> dict[str, str]:
    """The module of every public name; the studies' configs are those of the registry."""
    entries = _registry.analyses().values()
    configs = (where.partition(":") for entry in entries for where in entry.studies)
    return {name: module for module, _, name in configs} | {
        "Directions": ".directions",
        "Site": ".model.site",
        "Store": ".runs.store",
        "UserError": ".errors",
        "edits": ".model.edits",
        "keep": ".directions.keeping",
        "open_collection": ".directions.collections",
        "open_directions": ".directions",
        "open_network": ".model.network",
        "open_run": ".runs.store",
        "open_saes": ".saes",
        "open_subject": ".model.subject",
        "open_weights": ".model.weights",
        "run_or_load": ".runs.study",
    }


__getattr__, __dir__ = lazy(__name__, _public)
