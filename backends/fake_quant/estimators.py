"""Quantization ranges from observed values: streaming histograms, and the estimators that `schemes.Quantizer` names.

An estimator gets `values` (rows, n) and `counts` (n,), and finds one range per row. For a weight the rows are its output channels
and all counts are 1. For an activation there is one row: the centres of its histogram's bins, with their counts. Candidates are
ranges clipped to [-t, t], for asymmetric grids too. `ema` and `mode` use values per batch. `output_error` needs the model and is
in `output_error.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from backends.schemes import Quantizer

Array = np.ndarray[Any, Any]
BINS = 1 << 16
ENTROPY_BINS = 2048


class Histogram:
    """Counts of a stream of values in bounded memory: BINS equal bins over [-limit, limit).

    limit is a power of two. When a value is outside, limit doubles and neighbouring bins merge, so that the counts are those of
    one pass with the final limit. A bin is at most 1/16384 of the largest magnitude wide: a step of an 8-bit grid has several
    bins even if clipping outliers leaves a fiftieth of the range.
    """

    def __init__(self) -> None:
        self.limit = 2.0**-40
        self.counts = torch.zeros(BINS, dtype=torch.int64)
        self.lowest, self.highest = np.inf, -np.inf
        self.finite = True

    def add(self, values: torch.Tensor) -> tuple[float, float] | None:
        """Count float32 values of any shape; returns the lowest and the highest. None for no values, and for values with a NaN or
        an infinity among them, which are not counted and set `finite` to False."""
        if not values.numel():
            return None
        lowest, highest = (float(extreme) for extreme in values.aminmax())
        if not np.isfinite([lowest, highest]).all():
            self.finite = False
            return None
        self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)
        while max(-lowest, highest) >= self.limit:
            merged = torch.zeros_like(self.counts)
            merged[BINS // 4 : -BINS // 4] = self.counts.view(-1, 2).sum(1)
            self.counts, self.limit = merged, 2 * self.limit
        # Scaling by a power of two is exact, so that no value is counted in a neighbouring bin.
        bins = values.flatten().float().mul(BINS / 2 / self.limit).floor_().int().add_(BINS // 2)
        bins.clamp_(min=0)  # -limit itself is inside; nothing else is below 0
        self.counts += torch.bincount(bins, minlength=BINS).cpu()
        return lowest, highest

    def occupied(self) -> tuple[Array, Array]:
        """Centres (n,) and counts (n,) of the bins that are not empty, both float64. No centre is beyond the extremes."""
        counts = self.counts.numpy()
        (index,) = counts.nonzero()
        centres = (index + 0.5 - BINS / 2) * (2 * self.limit / BINS)
        return np.clip(centres, self.lowest, self.highest), counts[index].astype(np.float64)


def grid(low: Array, high: Array, quantizer: Quantizer) -> tuple[Array, Array]:
    """Scales (float32) and zero points (int32) of the grids from low to high, always with zero. All have the shape of low."""
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    if quantizer.symmetric:
        scale = np.maximum(-low, high) / quantizer.high
    else:
        scale = (high - low) / (quantizer.high - quantizer.low)
    if quantizer.power_of_two:
        with np.errstate(divide="ignore"):
            scale = np.exp2(np.ceil(np.log2(scale)))
    scale = scale.astype(np.float32)
    if quantizer.symmetric:
        return scale, np.zeros(scale.shape, np.int32)
    zero_point = np.rint(quantizer.low - low / np.where(scale > 0, scale, 1))
    return scale, np.clip(zero_point, quantizer.low, quantizer.high).astype(np.int32)


def squared_error(values: Array, counts: Array, scale: Array, zero_point: Array, quantizer: Quantizer) -> Array:
    """(rows,) sum of squared differences between values and their rounded values; the rounding of ties does not matter."""
    scale, zero_point = scale[:, None].astype(values.dtype), zero_point[:, None]
    codes = np.rint(values / scale)
    np.clip(codes, quantizer.low - zero_point, quantizer.high - zero_point, out=codes)
    codes *= scale
    codes -= values
    codes *= codes
    error: Array = codes @ counts.astype(values.dtype)
    return error


def find_grid(values: Array, counts: Array, quantizer: Quantizer) -> tuple[Array, Array]:
    """values (rows, n), counts (n,) -> scale (rows,) float32 and zero point (rows,) int32, by the quantizer's estimator. A row of
    zeros gets scale 0. Not for `ema`, `mode` and `output_error`."""
    low, high = _ESTIMATORS[quantizer.estimator](values, counts, quantizer)
    return grid(low, high, quantizer)


def _min_max(values: Array, counts: Array, quantizer: Quantizer) -> tuple[Array, Array]:
    return values.min(1), values.max(1)


def _percentile(values: Array, counts: Array, quantizer: Quantizer) -> tuple[Array, Array]:
    """Symmetric: the percentile of the magnitudes. Asymmetric: each tail loses half of what is cut."""
    if quantizer.symmetric:
        high = _quantile(np.abs(values), counts, quantizer.percentile / 100)
        return -high, high
    cut = (100 - quantizer.percentile) / 200
    return -_quantile(-values, counts, 1 - cut), _quantile(values, counts, 1 - cut)


def _quantile(values: Array, counts: Array, share: float) -> Array:
    """(rows,) the smallest value v such that at least `share` of the row's counts are of values <= v."""
    order = values.argsort(1)
    below = counts[order].cumsum(1)
    first = (below < share * counts.sum()).sum(1, keepdims=True).clip(max=values.shape[1] - 1)
    return np.take_along_axis(np.take_along_axis(values, order, 1), first, 1)[:, 0]


def _mse(values: Array, counts: Array, quantizer: Quantizer) -> tuple[Array, Array]:
    """The clipped range with the least squared error, of those from all values down to their root mean square in steps of 2% (or
    from one power of two to the next)."""
    low, high = _min_max(values, counts, quantizer)
    root_mean_square = np.sqrt((values.astype(np.float64) ** 2 @ counts) / counts.sum())
    best, least = (low, high), np.full(low.shape, np.inf)
    end = np.maximum(-low, high)
    while (end > root_mean_square).any():
        clipped = np.maximum(low, -end), np.minimum(high, end)
        scale, zero_point = grid(*clipped, quantizer)
        error = squared_error(values, counts, np.where(scale > 0, scale, 1), zero_point, quantizer)
        better = error < least
        best = np.where(better, clipped[0], best[0]), np.where(better, clipped[1], best[1])
        least = np.minimum(error, least)
        end = end * (0.5 if quantizer.power_of_two else 0.98)
    return best


def _entropy(values: Array, counts: Array, quantizer: Quantizer) -> tuple[Array, Array]:
    """TensorRT's calibrator (Migacz, "8-bit Inference with TensorRT", GTC 2017; NVIDIA's pytorch-quantization): the clipped range
    that `least_divergence` finds in a histogram of the magnitudes with 2048 bins."""
    low, high = _min_max(values, counts, quantizer)
    ends = []
    for row in np.abs(values):
        bins, edges = np.histogram(row, ENTROPY_BINS, (0, row.max() or 1), weights=counts)
        ends.append(edges[least_divergence(bins, quantizer.high + 1)])
    return np.maximum(low, -np.array(ends)), np.minimum(high, np.array(ends))


def least_divergence(bins: Array, levels: int) -> int:
    """How many bins of a histogram of magnitudes to keep: those whose distribution loses least information (Kullback-Leibler
    divergence) when they are merged into `levels` bins. Of equals the widest.

    Values in the first bin are exact on any grid, so its count is replaced by its neighbour's."""
    bins = np.concatenate((bins[1:2], bins[1:])).astype(np.float64)
    divergences = [_divergence(bins, kept, levels) for kept in range(levels, len(bins) + 1)]
    return len(bins) - int(np.argmin(divergences[::-1]))


def _divergence(bins: Array, kept: int, levels: int) -> float:
    """Divergence of two distributions over the first `kept` bins: the histogram, with all higher values in the last bin, and the
    same merged into `levels` and spread again over each level's bins that are not empty. Infinite if the second has a zero where
    the first has none."""
    inside = bins[:kept]
    filled = inside > 0
    level = np.arange(kept) * levels // kept
    share = np.bincount(level, inside, levels) / np.maximum(np.bincount(level, filled, levels), 1)
    merged = share[level] * filled
    clipped = inside.copy()
    clipped[-1] += bins[kept:].sum()
    used = clipped > 0
    if (merged[used] == 0).any():
        return np.inf
    p, q = clipped[used] / clipped.sum(), merged[used] / merged.sum()
    return float((p * np.log(p / q)).sum())


def moving_average(extremes: Sequence[tuple[float, float]], quantizer: Quantizer) -> tuple[Array, Array]:
    """`ema`: low (1,) and high (1,), moving averages of the batches' extremes; of a symmetric grid, of their largest magnitude.

    The weight of batch number n is 1 / n, but at least 1 - `ema_decay`: first a plain mean, then a moving average. With a constant
    weight, a decay that was chosen for a whole training would leave the average of a few batches near the first."""
    average: Array | None = None
    for number, (low, high) in enumerate(extremes, 1):
        ends = np.array([min(low, 0.0), max(high, 0.0)])
        if quantizer.symmetric:
            ends = np.abs(ends).max() * np.array([-1.0, 1.0])
        average = ends if average is None else average + max(1 / number, 1 - quantizer.ema_decay) * (ends - average)
    if average is None:
        average = np.zeros(2)
    return average[:1], average[1:]


def batch_scale(histogram: Histogram, quantizer: Quantizer) -> float:
    """For `mode`: the power of two with the least squared error on one batch."""
    centres, counts = histogram.occupied()
    return float(find_grid(centres[None], counts, replace(quantizer, estimator="mse"))[0][0])


def most_common(scales: Sequence[float]) -> float:
    """`mode`: the most common scale; of equally common ones the largest, which clips least."""
    counts = Counter(scales)
    return max(counts, key=lambda scale: (counts[scale], scale))


_ESTIMATORS: dict[str, Callable[[Array, Array, Quantizer], tuple[Array, Array]]] = {
    "min_max": _min_max,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}
