"""What was compared, and what differed."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Record = dict[str, Any]
EXACT = 1e-9  # relative, or absolute below 1: float64 sums in another order


class Tally:
    """Comparisons by kind: how many, which of them differ, the largest difference."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.largest: dict[str, float] = {}
        self.bounds: dict[str, str] = {}
        self.mismatches: dict[str, list[str]] = defaultdict(list)
        self.left_out: Counter[str] = Counter()

    def compare(self, kind: str, where: str, stored: float | None, ours: float | None, bound: float = EXACT) -> None:
        """Two values that have to be equal within `bound`, relative where they are above 1; null equals null alone."""
        if stored is None or ours is None:
            difference = 0.0 if stored is None and ours is None else float("inf")
        else:
            difference = abs(float(stored) - float(ours)) / max(1.0, abs(float(ours)))
        self.add(kind, where, difference, bound, f"stored {stored}, recomputed {ours}", f"{bound:g}")

    def add(self, kind: str, where: str, difference: float, bound: float, what: str, unit: str) -> None:
        self.count[kind] += 1
        self.largest[kind] = max(self.largest.get(kind, 0.0), difference)
        self.bounds[kind] = unit
        if not difference <= bound:  # NaN is a mismatch
            self.mismatches[kind].append(f"{where}: {what}")

    def fail(self, kind: str, where: str, what: str) -> None:
        self.add(kind, where, float("inf"), 0.0, what, self.bounds.get(kind, "0"))

    def report(self) -> bool:
        """Print the table and the mismatches; true if there are none."""
        print(f"{'figure':58} {'count':>6} {'mismatches':>10} {'largest':>9}  bound")
        for kind, count in self.count.items():
            wrong = len(self.mismatches[kind])
            print(f"{kind:58} {count:6} {wrong:10} {self.largest[kind]:9.2g}  {self.bounds[kind]}")
        total = sum(map(len, self.mismatches.values()))
        for kind, lines in self.mismatches.items():
            for line in lines:
                print(f"MISMATCH {kind}: {line}")
        for kind, count in self.left_out.items():
            print(f"not recomputed, because the record does not hold what it was made from: {kind} ({count})")
        print(f"{sum(self.count.values())} figures, {total} mismatches")
        return total == 0
