"""Trained quantizers: gradients against PyTorch's learnable operators and finite differences, averages by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from backends.fake_quant.quantizers import BLOCK, FakeQuantize
from backends.fake_quant.training import (
    RANGE_RATE,
    THRESHOLD_RATE,
    FollowingActivation,
    FollowingWeight,
    Learned,
    LearnedFakeQuantize,
    TrainedQuantizer,
    backward_at_once,
    backward_in_blocks,
)
from backends.ranges import TensorRange
from backends.schemes import Quantizer

BLOCKS = 2 * BLOCK * torch.get_num_threads() + 7


def start(scale: Any, quantizer: Quantizer, zero_point: int = 0, axis: int | None = None) -> TensorRange:
    scales = np.atleast_1d(np.array(scale, np.float32))
    role: Any = "activation" if axis is None else "weight"
    return TensorRange(role, scales, np.full(scales.shape, zero_point, np.int32), axis, quantizer)


def learnable(values: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, low: int, high: int) -> torch.Tensor:
    operator: Any = torch._fake_quantize_learnable_per_tensor_affine
    out: torch.Tensor = operator(values, scale, zero_point, low, high, 1.0)
    return out


def gradients(out: torch.Tensor, incoming: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(out, inputs, incoming)


def ours(
    values: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, low: int, high: int, *, up: bool = False
) -> torch.Tensor:
    out: torch.Tensor = LearnedFakeQuantize.apply(values, scale, zero_point, low, high, up)  # type: ignore[no-untyped-call]
    return out


@pytest.mark.parametrize("elements", [1000, BLOCKS])
@pytest.mark.parametrize(("low", "high", "zero"), [(-128, 127, 0), (-127, 127, 0), (0, 255, 68), (-8, 7, 3)])
def test_gradients_are_those_of_pytorchs_learnable_operator(low: int, high: int, zero: int, elements: int) -> None:
    """Without negative zero points, which PyTorch's backward pass rounds wrongly (-60 becomes -59)."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(elements, generator=generator) * 0.03 * (high - low)
    values[: elements // 2] *= 0.1  # of the blocks that are rounded together, some then have nothing to clamp
    incoming = torch.randn(elements, generator=generator)
    results = []
    operators: tuple[Any, ...] = (ours, learnable)
    for operator in operators:
        inputs = [values.clone(), torch.tensor([0.05]), torch.tensor([float(zero)])]
        for tensor in inputs:
            tensor.requires_grad_(True)
        out = operator(*inputs, low, high)
        results.append((out.detach(), *gradients(out, incoming, *inputs)))
    (out, of_values, of_scale, of_zero), theirs = results
    assert torch.equal(out, theirs[0])
    assert torch.equal(of_values, theirs[1])
    assert 0.02 < float((of_values == 0).float().mean()) < 0.9  # some are clamped, and most are not
    assert torch.allclose(of_scale, theirs[2], rtol=1e-4, atol=1e-3)
    assert torch.allclose(of_zero, theirs[3], rtol=1e-4, atol=1e-3)


def test_gradients_by_channel_are_those_of_pytorchs_learnable_operator() -> None:
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(6, 400, generator=generator)
    incoming = torch.randn(6, 400, generator=generator)
    scale = torch.rand(6, generator=generator) * 0.02 + 0.005
    mine, mine_scale = values.clone().requires_grad_(), scale[:, None].clone().requires_grad_()
    out = ours(mine, mine_scale, torch.zeros(1), -127, 127)
    of_values, of_scale = gradients(out, incoming, mine, mine_scale)
    theirs, their_scale = values.clone().requires_grad_(), scale.clone().requires_grad_()
    operator: Any = torch._fake_quantize_learnable_per_channel_affine
    expected = operator(theirs, their_scale, torch.zeros(6, requires_grad=True), 0, -127, 127, 1.0)
    their_values, their_scales = gradients(expected, incoming, theirs, their_scale)
    assert torch.equal(out, expected)
    assert torch.equal(of_values, their_values)
    assert torch.allclose(of_scale[:, 0], their_scales, rtol=1e-4, atol=1e-4)


def test_ties_go_up_in_training_too() -> None:
    values = torch.tensor([-1.25, -0.75, 0.25, 1.25])
    assert ours(values, torch.tensor([0.5]), torch.zeros(1), -128, 127, up=True).tolist() == [-1.0, -0.5, 0.5, 1.5]


def test_ties_at_the_ends_of_the_grid() -> None:
    """To even, as PyTorch's operator rounds them, and up: -2.5 to -2, the lowest, and 1.5 to 2, beyond the highest."""
    values = (torch.tensor([-129.5, -128.5, -127.5, 126.5, 127.5, 128.5]) * 0.5).requires_grad_()
    scale, zero = torch.tensor([0.5], requires_grad=True), torch.tensor([0.0], requires_grad=True)
    mine, theirs = (operator(values, scale, zero, -128, 127) for operator in (ours, learnable))
    assert torch.equal(mine, theirs)
    both = (gradients(out, torch.ones(6), values, scale, zero) for out in (mine, theirs))
    for mine_gradient, their_gradient in zip(*both, strict=True):
        assert torch.equal(mine_gradient, their_gradient)
    up = (torch.tensor([-3.0, -2.5, 0.5, 1.0, 1.5]) * 0.5).requires_grad_()
    out = ours(up, scale, zero, -2, 1, up=True)
    of_values, of_scale, of_zero = gradients(out, torch.arange(1.0, 6.0), up, scale, zero)
    assert out.tolist() == [-1, -1, 0.5, 0.5, 0.5]
    assert of_values.tolist() == [0, 2, 3, 4, 0]
    assert float(of_scale) == 1 * -2 + 2 * 0.5 + 3 * 0.5 + 4 * 0 + 5 * 1
    assert float(of_zero) == -0.5 * (1 + 5)


@pytest.mark.parametrize("up", [False, True])
def test_gradients_in_blocks_equal_those_of_whole_tensors(up: bool) -> None:
    """On a GPU tensors are rounded as a whole; the same code runs here on the CPU."""
    generator = torch.Generator().manual_seed(6)
    incoming, values = (torch.randn(BLOCKS, generator=generator) for _ in range(2))
    given = (incoming, values, torch.tensor([0.012]), torch.tensor([-133.0]), torch.tensor([122.0]), up)
    blocks, whole = backward_in_blocks(*given), backward_at_once(*given)
    assert torch.equal(blocks[0], whole[0])
    assert torch.allclose(blocks[1], whole[1], rtol=1e-4)
    assert torch.allclose(blocks[2], whole[2], rtol=1e-4)


def test_half_precision_is_rounded_in_full() -> None:
    """Values and gradients in bf16, as under autocast, give the same results as in float32, cast at the end."""
    generator = torch.Generator().manual_seed(7)
    values, incoming = (torch.randn(BLOCKS, generator=generator).bfloat16() for _ in range(2))
    results = []
    for kind in (torch.bfloat16, torch.float32):
        inputs = values.to(kind), torch.tensor([0.012]), torch.tensor([5.0])
        for tensor in inputs:
            tensor.requires_grad_(True)
        out = ours(*inputs, -128, 127)
        results.append((out.detach(), *gradients(out, incoming.to(kind), *inputs)))
    half, full = results
    assert half[0].dtype == half[1].dtype == torch.bfloat16
    assert torch.equal(half[0], full[0].bfloat16())
    assert torch.equal(half[1], full[1].bfloat16())
    assert torch.allclose(half[2], full[2], rtol=1e-5)
    assert torch.allclose(half[3], full[3], rtol=1e-5)


def test_the_learned_scale_of_clipped_values_by_finite_differences() -> None:
    """Values beyond the grid become its ends, which are smooth in the parameter, so that differences give the gradient."""
    quantizer = Learned(start(0.1, Quantizer()))
    values = torch.tensor([20.0, 30.0, -40.0, 13.0, 14.0])
    quantizer(values).sum().backward()
    assert quantizer.amount.grad is not None
    step = 1e-5
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            quantizer.amount.fill_(sign * step)
            ends.append(float(quantizer(values).double().sum()))
    slope = (ends[0] - ends[1]) / (2 * step)
    assert float(quantizer.amount.grad) == pytest.approx(slope, rel=2e-3)


def test_the_learned_ends_of_an_asymmetric_range_by_finite_differences() -> None:
    """Without rounding, a value above the range becomes its upper end and a value below it its lower end; no other value depends on
    the ends."""
    made = start(0.1, Quantizer(symmetric=False), zero_point=-28)
    quantizer = Learned(made)
    low, high = (end * 0.1 for end in (-128 + 28, 127 + 28))
    values = torch.tensor([50.0, 60.0, 70.0, -30.0])
    (quantizer(values) * torch.tensor([1.0, 1.0, 1.0, 5.0])).sum().backward()
    assert quantizer.amount.grad is not None

    def clipped(ends: Any) -> float:
        return float((np.clip(values.double().numpy(), *ends) * np.array([1, 1, 1, 5])).sum())

    step = 1e-6 * (high - low)
    slopes = [
        (clipped((low + step, high)) - clipped((low - step, high))) / (2 * step),
        (clipped((low, high + step)) - clipped((low, high - step))) / (2 * step),
    ]
    assert slopes == pytest.approx([5, 3])
    expected = [slope * (high - low) * RANGE_RATE for slope in slopes]
    assert quantizer.amount.grad.tolist() == pytest.approx(expected, rel=1e-4)


def test_the_gradient_of_a_power_of_two_threshold_is_tqts() -> None:
    """Jain et al., equation 6: the scale's gradient times the scale and ln 2."""
    values = torch.randn(500, generator=torch.Generator().manual_seed(3)) * 8
    quantizer = Learned(start(0.125, Quantizer(power_of_two=True)))
    quantizer(values).sum().backward()
    assert quantizer.amount.grad is not None
    scale = torch.tensor([0.125], requires_grad=True)
    (of_scale,) = gradients(
        learnable(values, scale, torch.zeros(1, requires_grad=True), -128, 127), torch.ones(500), scale
    )
    expected = float(of_scale) * 0.125 * np.log(2) * THRESHOLD_RATE
    assert float(quantizer.amount.grad) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("made", "dimensions"),
    [
        (start(0.1, Quantizer()), 1),
        (start(0.1, Quantizer(narrow=True)), 1),
        (start(0.25, Quantizer(power_of_two=True, rounding="half_up")), 1),
        (start(0.1, Quantizer(symmetric=False), zero_point=-28), 1),
        (start([0.1, 0.2, 0.3], Quantizer(narrow=True, granularity="per_channel"), axis=0), 2),
    ],
)
def test_an_untrained_quantizer_equals_its_start(made: TensorRange, dimensions: int) -> None:
    """And it rounds exactly as the range that it reports."""
    values = torch.randn(3, 300, generator=torch.Generator().manual_seed(4)) * 9
    quantizer = Learned(made, dimensions)
    assert torch.allclose(quantizer(values), FakeQuantize(made, dimensions)(values), atol=1e-5)
    with torch.no_grad():
        quantizer.amount.add_(torch.linspace(0.003, 0.007, quantizer.amount.numel()).reshape(quantizer.amount.shape))
    moved = quantizer.tensor_range()
    assert (moved.scale > made.scale).all()
    assert torch.equal(quantizer(values), FakeQuantize(moved, dimensions)(values))
    if made.quantizer.power_of_two:
        assert moved.scale[0] == 0.25 * 2 ** np.ceil(THRESHOLD_RATE * 0.003 - 0.5)


def test_a_scale_learns_to_fit_its_values() -> None:
    """Gradient descent on the squared error finds about the scale that a search over scales finds, from either side."""
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(5))
    quantizer = Quantizer(bits=4)

    def error(scale: float) -> float:
        return float((torch.fake_quantize_per_tensor_affine(values, scale, 0, -8, 7) - values).square().sum())

    best = min((0.01 * step for step in range(10, 80)), key=error)
    for first in (best / 2, best * 2):
        learned = Learned(start(first, quantizer))
        optimizer = torch.optim.Adam(learned.parameters(), lr=5e-4)
        for _ in range(150):
            optimizer.zero_grad()
            (learned(values) - values).square().sum().backward()
            optimizer.step()
        assert float(learned.tensor_range().scale[0]) == pytest.approx(best, rel=0.06)


def test_a_followed_activation_is_q8berts_average() -> None:
    """Symmetric: the max-abs of every training batch moves the threshold by 1 - decay; evaluation does not move it."""
    quantizer = FollowingActivation(start(1 / 127, Quantizer(narrow=True, ema_decay=0.9, training="follow")))
    quantizer.train()
    quantizer(torch.tensor([0.5, -3.0]))
    quantizer(torch.tensor([2.0, 1.0]))
    threshold = (1 * 0.9 + 3 * 0.1) * 0.9 + 2 * 0.1
    assert float(quantizer.tensor_range().scale[0]) * 127 == pytest.approx(threshold)
    quantizer.eval()
    quantizer(torch.tensor([50.0]))
    assert float(quantizer.tensor_range().scale[0]) * 127 == pytest.approx(threshold)
    asymmetric = FollowingActivation(start(0.1, Quantizer(symmetric=False, ema_decay=0.5), zero_point=-28))
    asymmetric.train()
    asymmetric(torch.tensor([-2.0, 31.0]))
    made = asymmetric.tensor_range()
    assert float(made.scale[0]) * 255 == pytest.approx((15.5 + 31) / 2 + (10 + 2) / 2)


@pytest.mark.parametrize("rows", [0, 3])
def test_a_followed_weight_is_its_largest_magnitude_now(rows: int) -> None:
    weight = torch.nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 0.25], [0.0, 0.0]]))
    narrow = Quantizer(narrow=True, granularity="per_channel" if rows else "per_tensor", training="follow")
    quantizer = FollowingWeight(start([1.0] * max(rows, 1), narrow, axis=0 if rows else None), 2 if rows else 1, weight)
    assert (quantizer.tensor_range().scale * 127).tolist() == pytest.approx([2, 0.5, 2] if rows else [2])
    with torch.no_grad():
        weight[0, 1] = -4
    assert (quantizer.tensor_range().scale * 127).tolist() == pytest.approx([4, 0.5, 4] if rows else [4])
    incoming = torch.randn(3, 2)
    (of_weight,) = gradients(quantizer(weight), incoming, weight)
    assert torch.equal(of_weight, incoming)  # passed on unchanged, at the ends of the grid too


def test_following_quantizers_have_no_parameters() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    quantizers: list[TrainedQuantizer] = [
        FollowingWeight(start(1.0, Quantizer()), 1, weight),
        FollowingActivation(start(1.0, Quantizer())),
    ]
    assert not [name for quantizer in quantizers for name, _ in quantizer.named_parameters()]


def test_values_and_gradients_are_aimets_given_the_same_range() -> None:
    """AIMET's quantizer with trained minimum and maximum. Its package needs its own CUDA build of torch, so it is no
    dependency; run where it is installed. A value on a boundary may be rounded to its other side."""
    affine = pytest.importorskip("aimet_torch.quantization.affine", exc_type=ImportError)
    generator = torch.Generator().manual_seed(3)
    for symmetric, scale, zero in ((True, 0.25, 0), (True, 1 / 3, 0), (False, 0.1, -128), (False, 0.0173, 55)):
        begun = start(scale, Quantizer(symmetric=symmetric, training="learn"), zero)
        low, high = ((end - zero) * float(begun.scale[0]) for end in (-128, 127))
        theirs = affine.QuantizeDequantize(shape=(), bitwidth=8, symmetric=symmetric)
        theirs.set_range(torch.tensor(low), torch.tensor(high))
        values = torch.randn(100_000, generator=generator) * 60 * scale
        incoming = torch.randn(100_000, generator=generator)
        apart = (FakeQuantize(begun)(values) - theirs(values)).detach().abs() / scale
        assert int((apart > 0.5).sum()) <= 2
        assert float(apart[apart <= 0.5].max()) < 1e-4
        if symmetric:
            continue
        ours_, theirs_ = Learned(begun), values.clone().requires_grad_()
        given = values.clone().requires_grad_()
        (theirs(theirs_) * incoming).sum().backward()
        (ours_(given) * incoming).sum().backward()
        ends = torch.stack([theirs.min.grad, theirs.max.grad])
        assert given.grad is not None and theirs_.grad is not None and ours_.amount.grad is not None
        assert int(torch.ne(given.grad, theirs_.grad).sum()) <= 2
        assert torch.allclose(ours_.amount.grad / (RANGE_RATE * (high - low)), ends, rtol=1e-3)
