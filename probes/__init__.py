"""Linear read-outs with the scikit-learn contract, and their metrics (`interp.probes`)."""

from .linear import LinearProbe
from .metrics import Detections, detections, fvu

__all__ = ["Detections", "LinearProbe", "detections", "fvu"]
