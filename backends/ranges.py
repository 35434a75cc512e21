"""`ranges.json` of a checkpoint: scale and zero point of every quantized tensor. Reading validates all of it.

    {"format": 1,
     "scheme": {"name": "engine_int8", "weights": {...}, "activations": {...}, "tensors": "encoder_linears"},
     "calibration": {"samples": 128, ...},
     "tensors": {"encoder.layer.0.attention.self.query.weight":
                   {"role": "weight", "bits": 8, "symmetric": true, "narrow": true, "rounding": "half_even", "axis": 0,
                    "scale": [one per output channel], "zero_point": [0, ...]},
                 "encoder.layer.0.attention.self.query.input":
                   {"role": "activation", ..., "axis": null, "scale": [s], "zero_point": [0]}}}

A scheme with `smoothing` adds "factors", and one with `bias_correction` "corrections": `backends.adjusted` says what they mean.

    "factors": {"encoder.layer.0.attention.self.query.input": [one per channel], ...}
    "corrections": {"encoder.layer.0.attention.self.query": [one per output], ...}

Tensors have the names of `backends.tensor_names`: a module's canonical name and `.weight`, `.bias`, `.input` or `.output`. Zero
points lie on the signed grid. Query, key and value of a layer read the same tensor, so their three entries are equal. NumPy only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from backends.adjusted import Adjustments
from backends.architecture import PROJECTION, Architecture
from backends.base import BackendError
from backends.checkpoint import read_architecture
from backends.schemes import Quantizer, Scheme
from backends.tensor_names import source, tensor_names, weight_names

FILE_NAME = "ranges.json"
_FORMAT = 1
Role = Literal["weight", "activation", "bias"]
_FIELDS = {"role", "bits", "symmetric", "narrow", "rounding", "axis", "scale", "zero_point"}

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class TensorRange:
    """The grid of one tensor.

    scale: (channels,) float32, positive. zero_point: (channels,) int32 on the signed grid. axis: of the channels; None with one
    scale for the whole tensor (channels is 1).
    """

    role: Role
    scale: Array
    zero_point: Array
    axis: int | None
    quantizer: Quantizer

    @property
    def low(self) -> int:
        """Lowest code of the signed grid."""
        return self.quantizer.low

    @property
    def high(self) -> int:
        """Highest code of the signed grid."""
        return self.quantizer.high

    def quantize(self, values: Array) -> Array:
        """float32 of any shape -> int8 codes on the signed grid, of the same shape.

        Values are multiplied by the float32 reciprocal of the scale, as PyTorch does; ONNX divides by the scale. Exporters take
        the codes of weights from here, so that every engine has exactly the integers of the simulation.
        """
        shape = [1] * values.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        steps = values.astype(np.float32) * (np.float32(1) / self.scale.reshape(shape))
        rounded = np.rint(steps) if self.quantizer.rounding == "half_even" else np.floor(steps + np.float32(0.5))
        codes: Array = np.clip(rounded + self.zero_point.reshape(shape), self.low, self.high).astype(np.int8)
        return codes

    def dequantize(self, codes: Array) -> Array:
        """Codes on the signed grid -> the float32 values that they represent, of the same shape."""
        shape = [1] * codes.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        return (codes.astype(np.int32) - self.zero_point.reshape(shape)).astype(np.float32) * self.scale.reshape(shape)


@dataclass(frozen=True, eq=False)
class Ranges:
    """What `ranges.json` holds. calibration: how the ranges were found, as plain JSON values."""

    scheme: Scheme
    tensors: Mapping[str, TensorRange]
    calibration: Mapping[str, Any] = field(default_factory=dict)
    adjustments: Adjustments = field(default_factory=Adjustments)

    def only(self, scheme: Scheme, architecture: Architecture) -> Ranges:
        """Those of a scheme that quantizes some of the layers."""
        tensors = {name: self.tensors[name] for name in tensor_names(architecture, scheme)}
        return Ranges(scheme, tensors, {}, self.adjustments.of(weight_names(architecture, scheme)))


def blank_range(name: str, scheme: Scheme) -> TensorRange:
    """The grid that a scheme gives a tensor of this name, with scale 1 and zero point 0, which calibration replaces."""
    kind = name.rpartition(".")[2]
    role: Role = "weight" if kind == "weight" else "bias" if kind == "bias" else "activation"
    quantizer = scheme.weights if role == "weight" else scheme.activations
    if role == "bias" and isinstance(scheme.biases, Quantizer):
        quantizer = scheme.biases
    if role == "weight" and name.startswith("embeddings.") and not name.startswith(PROJECTION):
        quantizer = replace(quantizer, granularity="per_tensor")  # a channel of a table would be one token's row
    axis = 0 if quantizer.granularity == "per_channel" else None
    return TensorRange(role, np.ones(1, np.float32), np.zeros(1, np.int32), axis, quantizer)


def integer_bias(bias: Array, weight: TensorRange, inputs: TensorRange) -> tuple[Array, Array]:
    """The bias of a linear layer (outputs,) -> its int32 codes, and the scale (outputs,) or (1,) of the products that they are
    added to."""
    scale = weight.scale * inputs.scale
    codes = np.clip(np.rint(bias.astype(np.float32) / scale), -(2.0**31), 2.0**31 - 128)
    return codes.astype(np.int32), scale


def write_ranges(folder: Path, ranges: Ranges) -> Path:
    """Write `ranges.json` into a checkpoint folder, whole or not at all; returns its path. Raises BackendError."""
    tensors = {}
    for name, tensor in ranges.tensors.items():
        check_range(name, tensor)
        numbers = {"scale": tensor.scale.astype(np.float32).tolist(), "zero_point": tensor.zero_point.tolist()}
        tensors[name] = _described(tensor) | numbers
    value = {
        "format": _FORMAT,
        "scheme": ranges.scheme.to_json(),
        "calibration": dict(ranges.calibration),
        "tensors": tensors,
    }
    for key, arrays in _arrays(ranges.adjustments).items():
        if arrays:
            value[key] = {name: array.astype(np.float32).tolist() for name, array in arrays.items()}
    path = folder / FILE_NAME
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BackendError(
            f"{path}: cannot be written ({error.strerror}); free some space or make the folder writable"
        ) from None


def read_ranges(folder: Path) -> Ranges:
    """The ranges of a checkpoint folder, checked against its `config.json`. Raises BackendError naming what is wrong."""
    path = folder / FILE_NAME
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BackendError(
            f"{path} is missing: calibrate the checkpoint with a post-training scheme, or train it with QAT"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BackendError(f"{path}: cannot be read ({error}); calibrate the checkpoint again") from None
    architecture = read_architecture(folder)
    try:
        return _parse(value, architecture)
    except BackendError as error:
        raise BackendError(f"{path}: {error}; calibrate the checkpoint again") from None


def _parse(value: Any, architecture: Architecture) -> Ranges:
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        raise BackendError(f"not a ranges file of format {_FORMAT}")
    tensors, calibration = value.get("tensors"), value.get("calibration", {})
    if not isinstance(tensors, dict) or not isinstance(value.get("scheme"), dict) or not isinstance(calibration, dict):
        raise BackendError("'scheme', 'calibration' and 'tensors' must be objects")
    scheme = Scheme.from_json(value["scheme"])
    names = tensor_names(architecture, scheme)
    for name in (*tensors, *names):
        if name not in names:
            raise BackendError(f"unknown tensor '{name}'")
        if name not in tensors:
            raise BackendError(f"no range for '{name}'")
    outputs = {f"{name}.weight": shape[0] for name, shape in architecture.linears().items()}
    ranges = {name: _parse_tensor(name, tensors[name], outputs.get(name, 1), scheme) for name in names}
    for name, tensor in ranges.items():
        query = source(name)
        if (*tensor.scale, *tensor.zero_point) != (*ranges[query].scale, *ranges[query].zero_point):
            raise BackendError(f"'{name}' must equal '{query}': they are the same tensor")
    return Ranges(scheme, ranges, calibration, _parse_adjustments(value, architecture, scheme))


def _arrays(adjustments: Adjustments) -> dict[str, Mapping[str, Array]]:
    return {"factors": adjustments.factors, "corrections": adjustments.corrections}


def _parse_adjustments(value: Mapping[str, Any], architecture: Architecture, scheme: Scheme) -> Adjustments:
    linears, layers = architecture.linears(), weight_names(architecture, scheme)
    inputs = {source(f"{name}.input"): linears[name][1] for name in layers}
    outputs = {name: linears[name][0] for name in layers if architecture.has_bias(name)}
    factors = _parse_arrays(value, "factors", inputs if scheme.smoothing else {})
    if any((array <= 0).any() for array in factors.values()):
        raise BackendError("'factors' must be positive")
    return Adjustments(factors, _parse_arrays(value, "corrections", outputs if scheme.bias_correction else {}))


def _parse_arrays(value: Mapping[str, Any], key: str, lengths: Mapping[str, int]) -> dict[str, Array]:
    """Lists of finite numbers, of exactly these names and lengths."""
    found = value.get(key, {})
    if not isinstance(found, dict) or set(found) != set(lengths):
        raise BackendError(f"'{key}' must hold exactly the tensors of the file's scheme")
    arrays = {}
    for name, length in lengths.items():
        numbers = found[name]
        if not isinstance(numbers, list) or any(type(item) not in (int, float) for item in numbers):
            raise BackendError(f"'{key}': '{name}' must be a list of numbers")
        array = np.array(numbers, np.float64).astype(np.float32)
        if array.shape != (length,) or not np.isfinite(array).all():
            raise BackendError(f"'{key}': '{name}' must be {length} finite numbers")
        arrays[name] = array
    return arrays


def _parse_tensor(name: str, value: Any, channels: int, scheme: Scheme) -> TensorRange:
    tensor = blank_range(name, scheme)
    if not isinstance(value, dict) or set(value) != _FIELDS:
        raise BackendError(f"'{name}' must have exactly the keys {', '.join(sorted(_FIELDS))}")
    for key, expected in _described(tensor).items():
        if type(value[key]) is not type(expected) or value[key] != expected:
            raise BackendError(f"'{name}': {key} must be {json.dumps(expected)} by the file's scheme")
    length = channels if tensor.axis is not None else 1
    for key, types in (("scale", (int, float)), ("zero_point", (int,))):
        numbers = value[key]
        if not isinstance(numbers, list) or len(numbers) != length or any(type(item) not in types for item in numbers):
            raise BackendError(f"'{name}': {key} must be a list of {length} numbers")
    try:
        with np.errstate(over="ignore", under="ignore"):
            scale = np.array(value["scale"], np.float64).astype(np.float32)
        tensor = replace(tensor, scale=scale, zero_point=np.array(value["zero_point"], np.int32))
    except OverflowError:
        raise BackendError(f"'{name}': a number is too large") from None
    check_range(name, tensor)
    return tensor


def _described(tensor: TensorRange) -> dict[str, Any]:
    """The fields of a tensor that follow from the scheme."""
    quantizer = tensor.quantizer
    described = {key: getattr(quantizer, key) for key in ("bits", "symmetric", "narrow", "rounding")}
    return {"role": tensor.role, **described, "axis": tensor.axis}


def check_range(name: str, tensor: TensorRange) -> None:
    """Raises BackendError for a scale or zero point that no grid can have."""
    # Below the smallest normal number the reciprocal overflows, and engines round the scale to zero.
    tiny = np.finfo(np.float32).tiny
    if not (np.isfinite(tensor.scale).all() and (tensor.scale >= tiny).all()):
        raise BackendError(f"'{name}': scales must be positive and finite")
    if tensor.quantizer.symmetric and (tensor.zero_point != 0).any():
        raise BackendError(f"'{name}': the zero point of a symmetric quantizer must be 0")
    if (tensor.zero_point < tensor.low).any() or (tensor.zero_point > tensor.high).any():
        raise BackendError(f"'{name}': zero points must lie in {tensor.low}..{tensor.high}")
