"""Made-up features, for tests of what feeds features to a session."""

from __future__ import annotations

import numpy as np

from tasks import Features

PAD = 7


def make_features(count: int = 64, longest: int = 40) -> Features:
    """Seeded; 5 to `longest` tokens, never the pad id, which is not 0."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, longest + 1, count)
    lengths[0] = longest
    inside = np.arange(longest) < lengths[:, None]
    ids = np.where(inside, rng.integers(10, 99, (count, longest)), PAD).astype(np.int32)
    types = (inside & (np.arange(longest) >= 4)).astype(np.int32)
    return Features(ids, types, lengths, np.arange(count))
