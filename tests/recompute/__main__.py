"""The command: see `tests.recompute`."""

import sys
from pathlib import Path

from tests.recompute.records import recompute

if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit("name a folder of records: python -m tests.recompute results/")
    sys.exit(0 if recompute(Path(sys.argv[1])).report() else 1)
