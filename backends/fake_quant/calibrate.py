"""Post-training calibration: run the FP32 model on training examples, observe its tensors, choose their grids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from backends.adjusted import Adjustments
from backends.base import BackendError, Batch, Device
from backends.checkpoint import read_architecture
from backends.fake_quant.adjust import adjust
from backends.fake_quant.adjustments import find_corrections, find_factors
from backends.fake_quant.estimators import Histogram, find_grid, grid, most_common, moving_average, squared_error
from backends.fake_quant.observe import Observer, check_observed, observe
from backends.fake_quant.output_error import least_output_error
from backends.fake_quant.simulate import names_of, parameter_of
from backends.ranges import Ranges, TensorRange, blank_range
from backends.schemes import Scheme, get_scheme
from backends.tensor_names import source
from backends.torch_models import load_model

Array = np.ndarray[Any, Any]


def calibrate(
    checkpoint: Path, batches: Iterable[Batch], scheme_name: str, seed: int, device: Device = "cpu"
) -> Ranges:
    """Ranges of a scheme for an FP32 checkpoint folder.

    batches: of training examples, as `Session.run` takes them. Padding does not influence the ranges, unless the scheme computes
    with it. seed: with which the batches were drawn; it is only recorded. `calibration` of the result holds the number of
    samples, batches and tokens, and each tensor's signal-to-quantization-noise ratio in decibels. Raises BackendError for an
    unknown scheme, for a folder without a checkpoint, and naming the tensor whose values are all zero or not finite.
    """
    scheme, batches, architecture = get_scheme(scheme_name), list(batches), read_architecture(checkpoint)
    model = load_model(checkpoint, architecture).to(device)
    factors = find_factors(model, batches, scheme, device) if scheme.smoothing else {}
    adjust(model, Adjustments(factors))
    tensors, facts = calibrate_model(model, batches, scheme, device)
    ranges = Ranges(scheme, tensors, {**facts, "seed": seed}, Adjustments(factors))
    if scheme.bias_correction:
        corrections = find_corrections(model, batches, ranges, device)
        ranges = replace(ranges, adjustments=Adjustments(factors, corrections))
    return ranges


def calibrate_model(
    model: nn.Module, batches: Sequence[Batch], scheme: Scheme, device: Device = "cpu"
) -> tuple[dict[str, TensorRange], dict[str, Any]]:
    """The range of every tensor of a scheme, and facts: samples, batches, tokens, sqnr_db (decibels, by tensor).

    Raises BackendError as `calibrate` does.
    """
    constants = _constants(model, scheme)
    observers, counts = observe(model, batches, scheme, device)
    check_observed(observers)
    if scheme.activations.estimator == "output_error":
        computed = least_output_error(model, batches, observers, scheme, device)
    else:
        computed = {name: _from_observed(name, observer, scheme) for name, observer in observers.items()}
    tensors: dict[str, TensorRange] = {}
    for name in names_of(model, scheme):
        if name in constants:
            tensors[name] = _from_constant(name, constants[name], scheme, tensors)
        else:
            tensors[name] = computed[source(name)]
    return tensors, {**counts, "sqnr_db": _noise(constants, observers, tensors)}


def noise_of(
    model: nn.Module, batches: Sequence[Batch], ranges: Ranges, device: Device = "cpu"
) -> tuple[dict[str, float], dict[str, int]]:
    """Each tensor's signal-to-quantization-noise ratio in decibels with given ranges; and the number of samples, batches and
    tokens."""
    observers, counts = observe(model, batches, ranges.scheme, device)
    check_observed(observers)
    return _noise(_constants(model, ranges.scheme), observers, ranges.tensors), counts


def _constants(model: nn.Module, scheme: Scheme) -> dict[str, Array]:
    """Weights and biases that the scheme quantizes, one row for each scale."""
    constants: dict[str, Array] = {}
    for name in names_of(model, scheme):
        if (parameter := parameter_of(model, name)) is None:
            continue
        values: Array = parameter.detach().float().cpu().numpy()
        if not np.isfinite(values).all():
            raise BackendError(f"'{name}' holds values that are not finite; train or load the checkpoint again")
        constants[name] = values if blank_range(name, scheme).axis == 0 else values.reshape(1, -1)
    return constants


def _from_constant(name: str, values: Array, scheme: Scheme, earlier: Mapping[str, TensorRange]) -> TensorRange:
    """earlier: ranges of the tensors before this one; a bias follows its weight."""
    blank = blank_range(name, scheme)
    scale, zero_point = find_grid(values, np.ones(values.shape[1]), blank.quantizer)
    if blank.role == "bias" and not scale.any():  # zeros are exact on any grid: take the weight's
        scale = earlier[f"{name.removesuffix('.bias')}.weight"].scale.max(keepdims=True)
    return _range(name, blank, scale, zero_point)


def _from_observed(name: str, observer: Observer, scheme: Scheme) -> TensorRange:
    blank = blank_range(name, scheme)
    if blank.quantizer.estimator == "ema":
        return _range(name, blank, *grid(*moving_average(observer.extremes, blank.quantizer), blank.quantizer))
    if blank.quantizer.estimator == "mode":
        scale = np.array([most_common(observer.scales)], np.float32)
        return _range(name, blank, scale, np.zeros(1, np.int32))
    return _range(name, blank, *find_grid(*_of_histogram(observer.histogram), blank.quantizer))


def _range(name: str, blank: TensorRange, scale: Array, zero_point: Array) -> TensorRange:
    # A channel of zeros (pruned) is exact on any grid, so it takes the largest scale. A tensor of zeros has no range.
    scale = np.where(scale > 0, scale, scale.max())
    if scale.min() < np.finfo(np.float32).tiny:
        raise BackendError(f"'{name}' is zero or too small to have a range; train or load the checkpoint again")
    return replace(blank, scale=scale, zero_point=zero_point)


def _of_histogram(histogram: Histogram) -> tuple[Array, Array]:
    centres, counts = histogram.occupied()
    return centres[None], counts


def _noise(
    constants: Mapping[str, Array], observers: Mapping[str, Observer], tensors: Mapping[str, TensorRange]
) -> dict[str, float]:
    noise = {}
    for name, tensor in tensors.items():
        if name in constants:
            noise[name] = _decibels(constants[name], np.ones(constants[name].shape[1]), tensor)
        else:
            noise[name] = _decibels(*_of_histogram(observers[source(name)].histogram), tensor)
    return noise


def _decibels(values: Array, counts: Array, tensor: TensorRange) -> float:
    """Signal-to-quantization-noise ratio; 200 where rounding changes nothing."""
    signal = float((values.astype(np.float64) ** 2 @ counts).sum())
    error = float(squared_error(values, counts, tensor.scale, tensor.zero_point, tensor.quantizer).sum())
    return round(float(10 * np.log10(signal / error)), 2) if error > 0 else 200.0
