"""Post-training calibration: run the FP32 model on training examples, watch its tensors, choose their grids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from backends.base import BackendError, Batch, Device
from backends.bert import read_architecture
from backends.fake_quant.estimators import Histogram, find_grid, squared_error
from backends.fake_quant.observe import histograms, source
from backends.fake_quant.output_error import least_output_error
from backends.fake_quant.schemes import Scheme, get_scheme
from backends.fake_quant.simulate import encoder_linears
from backends.ranges import Ranges, TensorRange, blank_range
from backends.torch_eager import load_model

Array = np.ndarray[Any, Any]


def calibrate(
    checkpoint: Path, batches: Iterable[Batch], scheme_name: str, seed: int, device: Device = "cpu"
) -> Ranges:
    """Ranges of a scheme for an FP32 checkpoint folder.

    batches: as `Session.run` takes them, of training examples; tokens that attention_mask hides count in no range. The
    result depends on the batches alone; `seed`, by which they were drawn, is noted. `calibration` of the result says
    how much was seen and each tensor's signal-to-quantization-noise ratio in decibels. Raises BackendError naming the
    tensor when a range is zero or not finite, and for an unknown scheme or a folder that is no BERT checkpoint.
    """
    scheme = get_scheme(scheme_name)
    model = load_model(checkpoint, read_architecture(checkpoint)).to(device)
    tensors, facts = calibrate_model(model, list(batches), scheme, device)
    return Ranges(scheme, tensors, {**facts, "seed": seed})


def calibrate_model(
    model: nn.Module, batches: Sequence[Batch], scheme: Scheme, device: Device = "cpu"
) -> tuple[dict[str, TensorRange], dict[str, Any]]:
    """The range of every tensor of a scheme, and facts: samples, batches, tokens, sqnr_db (decibels, by tensor)."""
    found, seen = histograms(model, batches, device)
    tensors: dict[str, TensorRange] = {}
    noise: dict[str, float] = {}
    for name, histogram in found.items():
        if not histogram.finite or histogram.lowest == histogram.highest == 0:
            what = "zero everywhere" if histogram.finite else "not finite"
            raise BackendError(
                f"'{name}.input' was {what} in calibration; the checkpoint is broken: train or load it again"
            )
    if scheme.activations.estimator == "output_error":
        inputs = least_output_error(model, batches, found, scheme, device)
    else:
        inputs = {
            name: _from_values(f"{name}.input", *_of_histogram(histogram), scheme) for name, histogram in found.items()
        }
    for name, linear in encoder_linears(model).items():
        values, counts = _of_weight(name, linear, scheme)
        tensors[f"{name}.weight"] = _from_values(f"{name}.weight", values, counts, scheme)
        noise[f"{name}.weight"] = _decibels(values, counts, tensors[f"{name}.weight"])
        tensors[f"{name}.input"] = inputs[source(name)]
        noise[f"{name}.input"] = _decibels(*_of_histogram(found[source(name)]), inputs[source(name)])
    return tensors, {**seen, "sqnr_db": noise}


def _of_histogram(histogram: Histogram) -> tuple[Array, Array]:
    centres, counts = histogram.occupied()
    return centres[None], counts


def _of_weight(name: str, linear: nn.Linear, scheme: Scheme) -> tuple[Array, Array]:
    weight: Array = linear.weight.detach().float().cpu().numpy()
    if not np.isfinite(weight).all():
        raise BackendError(f"'{name}.weight' holds values that are not finite; train or load the checkpoint again")
    if scheme.weights.granularity == "per_tensor":
        weight = weight.reshape(1, -1)
    return weight, np.ones(weight.shape[1])


def _from_values(name: str, values: Array, counts: Array, scheme: Scheme) -> TensorRange:
    blank = blank_range(name, scheme)
    scale, zero_point = find_grid(values, counts, blank.quantizer)
    # An output channel of zeros alone (pruned) is exact on any grid, but a tensor of zeros has no range.
    scale = np.where(scale > 0, scale, scale.max())
    if scale.min() < np.finfo(np.float32).tiny:
        raise BackendError(f"'{name}' is zero or too small to have a range; train or load the checkpoint again")
    return replace(blank, scale=scale, zero_point=zero_point)


def _decibels(values: Array, counts: Array, tensor: TensorRange) -> float:
    """Signal to quantization noise; 200 where there is no noise."""
    signal = float((values.astype(np.float64) ** 2 @ counts).sum())
    error = float(squared_error(values, counts, tensor.scale, tensor.zero_point, tensor.quantizer).sum())
    return round(float(10 * np.log10(signal / error)), 2) if error > 0 else 200.0
