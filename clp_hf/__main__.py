"""`python -m clp_hf` is the command `clp-hf`, of the Python that is named."""

import sys

from .cli import app

if __name__ == "__main__":
    sys.argv[0] = "clp-hf"  # as which it is recorded
    app(prog_name="clp-hf")
