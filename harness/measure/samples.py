"""The sequences that a measurement draws from, as arrays in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from harness.measure.inference import make_batch
from tasks import Features

Item = TypeVar("Item")


@dataclass(frozen=True)
class Samples:
    """What a scenario draws from. The arrays are in memory before any clock starts.

    arrays: a session's three inputs, each (count, width) int64. lengths: (count,) true lengths, by which offline sorts.
    widths: (count,) what each sequence is padded to on its own: its length, or max_length under `fixed` load and where
    padding changes what the model computes.
    """

    arrays: Mapping[str, np.ndarray[Any, Any]]
    lengths: Sequence[int]
    widths: Sequence[int]

    def batch(self, rows: Sequence[int]) -> dict[str, np.ndarray[Any, Any]]:
        width = max(self.widths[row] for row in rows)
        return {name: np.ascontiguousarray(values[rows, :width]) for name, values in self.arrays.items()}

    def __len__(self) -> int:
        return len(self.lengths)


def make_samples(
    features: Features,
    *,
    load: Literal["fixed", "real"] | str,
    max_length: int,
    count: int,
    seed: int,
    padded: bool = False,
) -> Samples:
    """A seeded draw of at most `count` sequences. Load `fixed` offers each at max_length with its padding masked, as a
    fixed-shape deployment would; `real` offers each at its own length. padded: at max_length under either load."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(features))[:count])
    lengths = [int(length) for length in features.lengths[chosen]]
    widths = [max_length] * len(lengths) if padded or load == "fixed" else lengths
    return Samples(make_batch(features, chosen, max(widths)), lengths, widths)


def batches(items: Iterable[Item], size: int, length: Callable[[Item], int]) -> list[list[Item]]:
    """Batches of `size` items, longest first; the last has what is left."""
    ordered = sorted(items, key=length, reverse=True)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]
