"""`python penstock_lambda [ARCHIVE FOLDER ...]`: unpacks layers and code, and serves until the sandbox ends."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
CONTAINERS = os.path.dirname(HERE)
# our own package under its name, and none of its modules under theirs
sys.path[:] = [CONTAINERS] + [path for path in sys.path if os.path.abspath(path or ".") not in (HERE, CONTAINERS)]

from penstock_lambda.host import main  # noqa: E402

# what else lies beside the package is no business of the function
sys.path.remove(CONTAINERS)

if __name__ == "__main__":
    main(sys.argv[1:])
