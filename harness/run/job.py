"""What a cell's process is asked to do, as a JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from harness.plan.spec import Cell


@dataclass(frozen=True)
class Job:
    mode: str
    """`build`, `accuracy`, `speed` or `turns`; see `harness.run.cell`."""
    cell: Cell
    checkpoint: Path
    cache: Path
    out: Path
    """Where the process writes its results, as JSON."""
    scores: Path
    """NPZ of per-example scores, written by `accuracy`."""
    samples: Path
    """NPZ of the sequences that speed rounds offer, written by `accuracy`."""
    started: float
    """time.time() when the process was started."""
    threads: int
    number: int = 0
    """The number of the speed round, from 1."""

    def write(self, path: Path) -> None:
        content = {name: str(value) if isinstance(value, Path) else value for name, value in vars(self).items()}
        path.write_text(json.dumps(content | {"cell": self.cell.to_json()}))

    @classmethod
    def read(cls, path: Path) -> Job:
        content = json.loads(path.read_text())
        for name in ("checkpoint", "cache", "out", "scores", "samples"):
            content[name] = Path(content[name])
        return cls(**content | {"cell": Cell.from_json(content["cell"])})
