"""Linear read-outs and their metrics (install name `interp.probes`)."""
