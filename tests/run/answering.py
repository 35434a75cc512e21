"""A process that answers every question with the next of the answers in its job file, and then ends badly."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from harness.machine.processes import REPLIES

if __name__ == "__main__":
    with os.fdopen(int(os.environ[REPLIES]), "w", buffering=1) as replies:
        for _, answer in zip(sys.stdin, json.loads(Path(sys.argv[1]).read_text()), strict=False):
            print(json.dumps(answer), file=replies, flush=True)
    sys.exit(3)
