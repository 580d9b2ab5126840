"""Starts the algorithm, whichever way it was called."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
CONTAINERS = os.path.dirname(HERE)
# our own modules, also where an environment holds AWS's originals
sys.path[:] = [CONTAINERS, os.path.join(CONTAINERS, "shims")] + [
    p for p in sys.path if os.path.abspath(p or ".") != HERE
]

from algorithm_xgboost.training import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
