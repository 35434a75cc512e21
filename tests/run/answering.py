"""A process that answers questions with the answers in its job file, one after the other, and then ends with exit code 3. It sleeps
before an answer that has `sleep`."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from harness.machine.processes import REPLIES

if __name__ == "__main__":
    with os.fdopen(int(os.environ[REPLIES]), "w", buffering=1) as replies:
        for _, answer in zip(sys.stdin, json.loads(Path(sys.argv[1]).read_text()), strict=False):
            time.sleep(answer.get("sleep", 0))
            print(json.dumps(answer), file=replies, flush=True)
    sys.exit(3)
