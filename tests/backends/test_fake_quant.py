"""Quantizers against PyTorch's own, estimators against brute force over the raw values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from backends.fake_quant.estimators import BINS, Histogram, find_grid, least_divergence, most_common, moving_average
from backends.fake_quant.modules import FakeQuantLinear
from backends.fake_quant.quantizers import BLOCK, FakeQuantize
from backends.ranges import TensorRange
from backends.schemes import Estimator, Quantizer

Array = np.ndarray[Any, Any]


def activation(scale: float, quantizer: Quantizer, zero_point: int = 0) -> TensorRange:
    return TensorRange("activation", np.array([scale], np.float32), np.array([zero_point], np.int32), None, quantizer)


def values_near_ties(scale: float, seed: int) -> torch.Tensor:
    """Random values, exact ties, their neighbours in float32, and values far outside."""
    generator = torch.Generator().manual_seed(seed)
    ties = (torch.arange(-140, 140) + 0.5) * scale
    spread = torch.randn(20_000, generator=generator) * 60 * scale
    infinity = torch.tensor(torch.inf)
    return torch.cat([spread, ties, torch.nextafter(ties, infinity), torch.nextafter(ties, -infinity), ties * 1e6])


@pytest.mark.parametrize("scale", [0.5, 0.1, 1 / 3, 0.0123, 7.7e-6, 3.1e5])
@pytest.mark.parametrize(
    ("quantizer", "zero_point"),
    [
        (Quantizer(), 0),
        (Quantizer(narrow=True), 0),
        (Quantizer(bits=4), 0),
        (Quantizer(symmetric=False), -117),
        (Quantizer(symmetric=False), 127),
    ],
)
def test_per_tensor_equals_pytorch_bit_for_bit(scale: float, quantizer: Quantizer, zero_point: int) -> None:
    tensor = activation(scale, quantizer, zero_point)
    values = values_near_ties(scale, 1)
    expected = torch.fake_quantize_per_tensor_affine(
        values, float(tensor.scale[0]), zero_point, quantizer.low, quantizer.high
    )
    before = values.clone()
    assert torch.equal(FakeQuantize(tensor)(values), expected)
    assert torch.equal(values, before)
    assert np.array_equal(tensor.dequantize(tensor.quantize(values.numpy())), expected.numpy())


def test_blocks_and_memory_order_change_nothing() -> None:
    whole = values_near_ties(0.1, 2).repeat(30 * torch.get_num_threads())
    values = whole[: whole.numel() // 6 * 6].reshape(-1, 6).T
    assert values.numel() > 4 * BLOCK * torch.get_num_threads()
    quantizer = Quantizer(symmetric=False)
    tensor = activation(0.1, quantizer, -117)
    expected = torch.fake_quantize_per_tensor_affine(
        values, float(tensor.scale[0]), -117, quantizer.low, quantizer.high
    )
    assert torch.equal(FakeQuantize(tensor)(values), expected)


def test_per_channel_equals_pytorch_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(2)
    scale = torch.rand(16, generator=generator) * 0.1 + 1e-4
    weight = torch.randn(16, 999, generator=generator) * scale[:, None] * 60
    quantizer = Quantizer(narrow=True, granularity="per_channel")
    tensor = TensorRange("weight", scale.numpy(), np.zeros(16, np.int32), 0, quantizer)
    expected = torch.fake_quantize_per_channel_affine(weight, scale, torch.zeros(16, dtype=torch.int32), 0, -127, 127)
    assert torch.equal(FakeQuantize(tensor, 2)(weight), expected)
    assert np.array_equal(tensor.dequantize(tensor.quantize(weight.numpy())), expected.numpy())


def test_multiplying_by_the_reciprocal_differs_from_dividing_at_near_ties_only() -> None:
    """ONNX divides. Away from ties the integers are the same; at ties they differ by one step at most."""
    for scale in (0.1, 1 / 3, 0.0123):
        tensor = activation(scale, Quantizer())
        values = values_near_ties(scale, 3).numpy()
        steps = values / tensor.scale
        divided = np.clip(np.rint(steps), -128, 127).astype(np.int64)
        apart = np.abs(tensor.quantize(values) - divided)
        assert apart.max() <= 1
        tie = np.abs(steps - np.floor(steps) - 0.5) < 1e-4
        assert not apart[~tie].any()
        assert not tie[:20_000].all()


def test_ties_go_up_where_the_hardware_does_so() -> None:
    quantize = FakeQuantize(activation(0.5, Quantizer(rounding="half_up")))
    values = torch.tensor([-1.25, -0.75, -0.25, 0.25, 0.75, 1.25])
    assert quantize(values).tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5]


def test_nan_stays_nan() -> None:
    assert FakeQuantize(activation(0.5, Quantizer()))(torch.tensor([torch.nan])).isnan().all()


def test_a_linear_layer_rounds_tensors_with_a_quantizer() -> None:
    """Weight by channel, input, bias and output, each by itself and all together."""
    weight = TensorRange(
        "weight", np.array([0.1, 0.2], np.float32), np.zeros(2, np.int32), 0, Quantizer(granularity="per_channel")
    )
    linear = torch.nn.Linear(3, 2)
    values, on_grid = torch.tensor([[0.3, -1.1, 200.0]]), torch.tensor([[0.5, -1.0, 63.5]])
    rounded = torch.from_numpy(weight.dequantize(weight.quantize(linear.weight.detach().numpy())))
    given = {
        "x.weight": FakeQuantize(weight, 2),
        "x.input": FakeQuantize(activation(0.5, Quantizer())),
        "x.bias": FakeQuantize(activation(0.25, Quantizer())),
        "x.output": FakeQuantize(activation(2.0, Quantizer())),
    }
    two = {name: given[name] for name in ("x.weight", "x.input")}
    plain = torch.nn.functional.linear(on_grid, rounded, linear.bias)
    assert torch.equal(FakeQuantLinear(linear, "x", two)(values), plain)
    assert torch.equal(FakeQuantLinear(linear, "x", {})(values), linear(values))
    assert torch.equal(
        FakeQuantLinear(linear, "x", given, shared_input=True)(on_grid), FakeQuantLinear(linear, "x", given)(values)
    )
    bias = torch.round(linear.bias * 4) / 4
    whole = torch.round(torch.nn.functional.linear(on_grid, rounded, bias) / 2) * 2
    assert torch.equal(FakeQuantLinear(linear, "x", given)(values), whole)


def skewed(seed: int, size: int = 300_000) -> Array:
    """Like the input of BERT's second feed-forward layer: GELU's floor of -0.17, and a long tail."""
    rng = np.random.default_rng(seed)
    values = torch.nn.functional.gelu(torch.from_numpy(rng.standard_t(4, size).astype(np.float32))).numpy()
    values[:20] *= 15
    return np.asarray(values)


def histogram_of(values: Array, parts: int = 7) -> Histogram:
    histogram = Histogram()
    for part in np.array_split(values, parts):
        histogram.add(torch.from_numpy(part))
    return histogram


def test_a_histogram_equals_numpys_in_any_order() -> None:
    values = np.concatenate([skewed(1) * 1e-3, skewed(2)])
    histogram = histogram_of(values)
    assert histogram.limit / 2 <= np.abs(values).max() < histogram.limit
    expected, _ = np.histogram(values.astype(np.float64), BINS, (-histogram.limit, histogram.limit))
    assert np.array_equal(histogram.counts.numpy(), expected)
    reversed_order = histogram_of(values[::-1].copy(), 3)
    assert np.array_equal(reversed_order.counts.numpy(), expected)
    assert (reversed_order.lowest, reversed_order.highest) == (values.min(), values.max())
    centres, counts = histogram.occupied()
    assert counts.sum() == len(values)
    assert values.min() <= centres.min() <= centres.max() <= values.max()


def test_infinities_are_noticed() -> None:
    for bad in (np.inf, -np.inf, np.nan):
        assert not histogram_of(np.array([1, bad, 2], np.float32), 1).finite
    assert histogram_of(np.array([1, 2], np.float32)).finite


def grid_of(values: Array, quantizer: Quantizer) -> tuple[float, int, float]:
    """(scale, zero point, bin width)"""
    histogram = histogram_of(values)
    centres, counts = histogram.occupied()
    scale, zero_point = find_grid(centres[None], counts, quantizer)
    return float(scale[0]), int(zero_point[0]), 2 * histogram.limit / BINS


def test_min_max_by_hand() -> None:
    """Symmetric: the largest magnitude is 127 steps. Asymmetric: 255 steps from lowest to highest, zero on the grid."""
    values = np.array([-2, 0.5, 10], np.float32)
    scale, zero_point, width = grid_of(values, Quantizer())
    assert abs(scale * 127 - 10) <= width
    assert zero_point == 0
    scale, zero_point, width = grid_of(values, Quantizer(symmetric=False))
    assert abs(scale * 255 - 12) <= 2 * width
    assert zero_point == -128 + round(2 / (12 / 255))
    scale, zero_point, width = grid_of(np.array([3, 10], np.float32), Quantizer(symmetric=False))
    assert abs(scale * 255 - 10) <= width
    assert zero_point == -128


@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.99])
def test_percentiles_are_numpys(percentile: float) -> None:
    values = skewed(3)
    scale, _, width = grid_of(values, Quantizer(estimator="percentile", percentile=percentile))
    assert abs(scale * 127 - np.percentile(np.abs(values), percentile, method="inverted_cdf")) <= width
    scale, zero_point, width = grid_of(
        values, Quantizer(symmetric=False, estimator="percentile", percentile=percentile)
    )
    half = (100 - percentile) / 2
    low, high = np.percentile(values, [half, 100 - half], method="inverted_cdf")
    assert abs(scale * 255 - (high - low)) <= 2 * width
    assert abs(zero_point - (-128 - low / scale)) <= 0.5 + width / scale


def true_error(values: Array, scale: float, zero_point: int, quantizer: Quantizer) -> float:
    double = values.astype(np.float64)
    codes = np.clip(np.rint(double / scale) + zero_point, quantizer.low, quantizer.high)
    return float((((codes - zero_point) * scale - double) ** 2).sum())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_mse_is_as_good_as_brute_force_over_the_raw_values(bits: int, symmetric: bool) -> None:
    values = skewed(4, 20_000)
    quantizer = Quantizer(bits=bits, symmetric=symmetric, estimator="mse")
    scale, zero_point, _ = grid_of(values, quantizer)
    best = np.inf
    for end in np.linspace(0.2, 1.001 * np.abs(values).max(), 400):
        low = 0.0 if symmetric else max(float(values.min()), -end)
        step = end / quantizer.high if symmetric else (end - low) / (2**bits - 1)
        zero = 0 if symmetric else round(quantizer.low - low / step)
        best = min(best, true_error(values, step, zero, quantizer))
    error = true_error(values, scale, zero_point, quantizer)
    everything = grid_of(values, Quantizer(bits=bits, symmetric=symmetric))
    assert error <= 1.02 * best
    assert error < (0.7 if bits == 4 else 1) * true_error(values, everything[0], everything[1], quantizer)


def test_rows_have_ranges_of_their_own() -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(6, 500)).astype(np.float32) * np.array([[1], [2], [0.1], [5], [1e-4], [30]], np.float32)
    estimators: tuple[Estimator, ...] = ("min_max", "mse", "percentile")
    for estimator in estimators:
        quantizer = Quantizer(narrow=True, granularity="per_channel", estimator=estimator, percentile=99.5)
        scales, _ = find_grid(rows, np.ones(500), quantizer)
        alone = [find_grid(row[None], np.ones(500), quantizer)[0][0] for row in rows]
        assert np.array_equal(scales, alone)
    scales, _ = find_grid(rows, np.ones(500), Quantizer(narrow=True, granularity="per_channel"))
    assert np.allclose(scales * 127, np.abs(rows).max(1), rtol=1e-6)


@pytest.mark.parametrize("estimator", ["min_max", "mse"])
def test_powers_of_two(estimator: Any) -> None:
    values = skewed(6, 20_000)
    quantizer = Quantizer(power_of_two=True, estimator=estimator)
    scale, _, _ = grid_of(values, quantizer)
    assert np.log2(scale) == round(np.log2(scale))
    if estimator == "min_max":
        assert scale * 127 >= np.abs(values).max() > scale / 2 * 127
    else:
        errors = {2.0**power: true_error(values, 2.0**power, 0, quantizer) for power in range(-12, 4)}
        assert scale == min(errors, key=lambda candidate: errors[candidate])


def test_a_moving_average_by_hand() -> None:
    """The plain mean of the first four batches; with decay 0.75 each later batch then has a weight of a quarter."""
    batches = [(-2.0, 4.0), (-6.0, 1.0), (2.0, 8.0)]
    low, high = moving_average(batches, Quantizer(symmetric=False, estimator="ema", ema_decay=0.75))
    assert low[0] == pytest.approx((-2 - 6 + 0) / 3)  # zero is always part of a range
    assert high[0] == pytest.approx((4 + 1 + 8) / 3)
    low, high = moving_average([*batches, (0.0, 3.0), (0.0, 12.0)], Quantizer(estimator="ema", ema_decay=0.75))
    assert high[0] == -low[0] == pytest.approx(((4 + 6 + 8 + 3) / 4) * 0.75 + 12 * 0.25)
    low, high = moving_average(batches * 30, Quantizer(estimator="ema"))
    assert high[0] == pytest.approx(6)  # Q8BERT's decay is for thousands of steps: for ninety batches it is their mean


def test_the_most_common_power_of_two_wins_and_of_equals_the_largest() -> None:
    assert most_common([0.5, 0.25, 0.25, 0.125]) == 0.25
    assert most_common([0.5, 0.25, 0.25, 0.5]) == 0.5


def slow_divergence(bins: Array, levels: int) -> list[float]:
    """The divergence for each number of kept bins, element by element as in NVIDIA's pytorch-quantization."""
    bins = bins.astype(float).copy()
    bins[0] = bins[1]
    divergences = []
    for kept in range(levels, len(bins) + 1):
        edges = np.linspace(0, kept, levels + 1)
        level = np.digitize(np.arange(kept), edges) - 1
        merged = np.zeros(kept)
        for number in range(levels):
            members = [index for index in range(kept) if level[index] == number and bins[index] > 0]
            for index in members:
                merged[index] = sum(bins[same] for same in members) / len(members)
        clipped = bins[:kept].copy()
        clipped[-1] += bins[kept:].sum()
        divergences.append(float(entropy(clipped, merged)))
    return divergences


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_entropy_is_least_divergence(seed: int) -> None:
    values = np.abs(skewed(seed, 4000))
    bins, _ = np.histogram(values, 96, (0, values.max()))
    slow = slow_divergence(bins, 16)
    kept = least_divergence(bins, 16)
    assert slow[kept - 16] == pytest.approx(min(slow), abs=1e-12)
    assert kept < 96


def test_entropy_clips_a_long_tail_and_keeps_an_even_spread() -> None:
    even = np.random.default_rng(1).uniform(-3, 3, 100_000).astype(np.float32)
    scale, _, _ = grid_of(even, Quantizer(estimator="entropy"))
    assert scale * 127 == pytest.approx(3, rel=0.02)
    long = skewed(2, 100_000)
    scale, _, _ = grid_of(long, Quantizer(estimator="entropy"))
    assert scale * 127 < 0.7 * np.abs(long).max()
    scale, zero_point, _ = grid_of(long, Quantizer(symmetric=False, estimator="entropy"))
    assert (zero_point + 128) * scale == pytest.approx(-long.min(), abs=scale)


@pytest.mark.slow
def test_an_independent_implementation_agrees() -> None:
    """NVIDIA Model Optimizer, which has symmetric quantizers only, and largest magnitudes instead of scales."""
    pytest.importorskip("modelopt")
    from modelopt.torch.quantization.calib.histogram import _compute_amax_entropy
    from modelopt.torch.quantization.config import QuantizerAttributeConfig
    from modelopt.torch.quantization.nn import TensorQuantizer

    for narrow in (False, True):
        for scale in (0.25, 0.1, 1 / 3):  # exactly equal for a power of two, otherwise up to the last bit of a product
            theirs = TensorQuantizer(QuantizerAttributeConfig(num_bits=8, narrow_range=narrow))
            tensor = activation(scale, Quantizer(narrow=narrow))
            theirs.amax = torch.tensor(127 * float(tensor.scale[0]))
            values = torch.randn(20_000, generator=torch.Generator().manual_seed(3)) * 60 * scale
            apart = (FakeQuantize(tensor)(values) - theirs(values)).abs()
            assert float(apart.max()) <= (0 if scale == 0.25 else 127 * scale * 2e-7)
    channels = torch.tensor([0.1, 0.5, 2.0])
    weight = torch.randn(3, 500, generator=torch.Generator().manual_seed(4)) * 60 * channels[:, None]
    theirs = TensorQuantizer(QuantizerAttributeConfig(num_bits=8, axis=0, narrow_range=True))
    theirs.amax = 127 * channels[:, None]
    tensor = TensorRange(
        "weight", channels.numpy(), np.zeros(3, np.int32), 0, Quantizer(narrow=True, granularity="per_channel")
    )
    assert torch.allclose(FakeQuantize(tensor, 2)(weight), theirs(weight), rtol=1e-6, atol=0)

    seen = np.abs(skewed(5, 20_000))
    bins, edges = np.histogram(seen, 256, (0.0, float(seen.max())))
    amax = _compute_amax_entropy(bins.copy(), edges, 8, False)
    assert float(amax) == pytest.approx(edges[least_divergence(bins, 128)])
