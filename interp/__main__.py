"""`python -m interp`."""

import sys

from .launch import main

if not sys.flags.safe_path:
    del sys.path[0]  # the current folder: a torch.py that lies there is not run
sys.exit(main())
