"""Reports: what was found, as one HTML file to send.

    from interp.report import Section, report
    page = report("What was found", [Section("A neuron", figures=(figure,), rows=rows)], [run])

The file stands alone: data and plotly are in it, it fetches nothing, every browser opens it.
"""

from .document import report
from .section import Section

__all__ = ["Section", "report"]
