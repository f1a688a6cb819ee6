"""Linear read-outs, their metrics, and the SAE adapter (install name `interp.probes`)."""

from .linear import LinearProbe
from .metrics import Detections, Interval, bootstrap, detections, fvu
from .sae import Sae, SaeSplit, load_sae, pretrained_sae, wrap

__all__ = [
    "Detections",
    "Interval",
    "LinearProbe",
    "Sae",
    "SaeSplit",
    "bootstrap",
    "detections",
    "fvu",
    "load_sae",
    "pretrained_sae",
    "wrap",
]
