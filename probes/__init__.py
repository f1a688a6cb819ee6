"""Linear read-outs with the scikit-learn contract, and their metrics (`interp.probes`)."""

from .linear import LinearProbe
from .metrics import Detections, Interval, bootstrap, detections, fvu

__all__ = ["Detections", "Interval", "LinearProbe", "bootstrap", "detections", "fvu"]
