"""A process begun by a test in this folder has it on its import path, where transformers would take
`kernels/` for the package of that name, and look through all that is installed for its version."""

import sys

sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
