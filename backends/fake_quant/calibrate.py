"""Post-training calibration: run the FP32 model on training examples, watch its tensors, choose their grids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from backends.base import BackendError, Batch, Device
from backends.checkpoint import read_architecture
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

    batches: as `Session.run` takes them, of training examples; tokens that attention_mask hides count in no range, unless the
    scheme pads to the maximum. The result depends on the batches alone; `seed`, by which they were drawn, is noted.
    `calibration` of the result says how much was seen and each tensor's signal-to-quantization-noise ratio in decibels.
    Raises BackendError naming the tensor when a range is zero or not finite, and for an unknown scheme or a folder that is no
    BERT checkpoint.
    """
    scheme = get_scheme(scheme_name)
    model = load_model(checkpoint, read_architecture(checkpoint)).to(device)
    tensors, facts = calibrate_model(model, list(batches), scheme, device)
    return Ranges(scheme, tensors, {**facts, "seed": seed})


def calibrate_model(
    model: nn.Module, batches: Sequence[Batch], scheme: Scheme, device: Device = "cpu"
) -> tuple[dict[str, TensorRange], dict[str, Any]]:
    """The range of every tensor of a scheme, and facts: samples, batches, tokens, sqnr_db (decibels, by tensor)."""
    constants = _constants(model, scheme)
    found, seen = observe(model, batches, scheme, device)
    check_observed(found)
    if scheme.activations.estimator == "output_error":
        computed = least_output_error(model, batches, found, scheme, device)
    else:
        computed = {name: _from_observed(name, observer, scheme) for name, observer in found.items()}
    tensors: dict[str, TensorRange] = {}
    for name in names_of(model, scheme):
        if name in constants:
            tensors[name] = _from_constant(name, constants[name], scheme, tensors)
        else:
            tensors[name] = computed[source(name)]
    return tensors, {**seen, "sqnr_db": _noise(constants, found, tensors)}


def noise_of(
    model: nn.Module, batches: Sequence[Batch], ranges: Ranges, device: Device = "cpu"
) -> tuple[dict[str, float], dict[str, int]]:
    """Each tensor's signal-to-quantization-noise ratio in decibels with ranges that are there already, and what was seen."""
    found, seen = observe(model, batches, ranges.scheme, device)
    check_observed(found)
    return _noise(_constants(model, ranges.scheme), found, ranges.tensors), seen


def _constants(model: nn.Module, scheme: Scheme) -> dict[str, Array]:
    """Weights and biases that the scheme names, one row for each range that they get."""
    found: dict[str, Array] = {}
    for name in names_of(model, scheme):
        if (parameter := parameter_of(model, name)) is None:
            continue
        values: Array = parameter.detach().float().cpu().numpy()
        if not np.isfinite(values).all():
            raise BackendError(f"'{name}' holds values that are not finite; train or load the checkpoint again")
        found[name] = values if blank_range(name, scheme).axis == 0 else values.reshape(1, -1)
    return found


def _from_constant(name: str, values: Array, scheme: Scheme, before: Mapping[str, TensorRange]) -> TensorRange:
    blank = blank_range(name, scheme)
    scale, zero_point = find_grid(values, np.ones(values.shape[1]), blank.quantizer)
    if blank.role == "bias" and not scale.any():  # zeros are exact on any grid: the weight's will do
        scale = before[f"{name.removesuffix('.bias')}.weight"].scale.max(keepdims=True)
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
    # An output channel of zeros alone (pruned) is exact on any grid, but a tensor of zeros has no range.
    scale = np.where(scale > 0, scale, scale.max())
    if scale.min() < np.finfo(np.float32).tiny:
        raise BackendError(f"'{name}' is zero or too small to have a range; train or load the checkpoint again")
    return replace(blank, scale=scale, zero_point=zero_point)


def _of_histogram(histogram: Histogram) -> tuple[Array, Array]:
    centres, counts = histogram.occupied()
    return centres[None], counts


def _noise(
    constants: Mapping[str, Array], found: Mapping[str, Observer], tensors: Mapping[str, TensorRange]
) -> dict[str, float]:
    noise = {}
    for name, tensor in tensors.items():
        if name in constants:
            noise[name] = _decibels(constants[name], np.ones(constants[name].shape[1]), tensor)
        else:
            noise[name] = _decibels(*_of_histogram(found[source(name)].histogram), tensor)
    return noise


def _decibels(values: Array, counts: Array, tensor: TensorRange) -> float:
    """Signal to quantization noise; 200 where there is no noise."""
    signal = float((values.astype(np.float64) ** 2 @ counts).sum())
    error = float(squared_error(values, counts, tensor.scale, tensor.zero_point, tensor.quantizer).sum())
    return round(float(10 * np.log10(signal / error)), 2) if error > 0 else 200.0
