"""The small language of quantizer choices, and the named schemes that suites use. Imports in milliseconds.

A quantizer maps a float x to an integer q = clamp(round(x / scale) + zero_point, low, high) and stands for
(q - zero_point) * scale. Grids are signed (8 bits: -128..127); engines that want unsigned integers add 128 to both.
The vocabulary follows Nagel et al., "A White Paper on Neural Network Quantization" (arXiv 2106.08295).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from backends.base import BackendError

Granularity = Literal["per_tensor", "per_channel"]
Rounding = Literal["half_even", "half_up"]
Estimator = Literal["min_max", "percentile", "mse", "output_error"]
Tensors = Literal["encoder_linears"]


@dataclass(frozen=True)
class Quantizer:
    """How one kind of tensor becomes integers.

    symmetric: zero point 0. narrow: the grid loses its lowest value (8 bits: -127..127), so that it is symmetric too.
    granularity: one scale a tensor, or one an output channel (weights only). power_of_two: scales are powers of two.
    rounding: of ties, to the even neighbour (every engine's way) or up (Vitis's fixed-point hardware).
    estimator: how calibration finds the range. `min_max`: all that was seen. `percentile`: what `percentile` percent of
    the values lie in. `mse`: least squared error of the values seen. `output_error` (activations only): least relative
    error, averaged over tokens, of the output of what reads the tensor.
    """

    bits: int = 8
    symmetric: bool = True
    narrow: bool = False
    granularity: Granularity = "per_tensor"
    power_of_two: bool = False
    rounding: Rounding = "half_even"
    estimator: Estimator = "min_max"
    percentile: float = 100.0

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise BackendError(f"bits must be 2 to 8, not {self.bits}")
        for name, choices in (("granularity", Granularity), ("rounding", Rounding), ("estimator", Estimator)):
            if getattr(self, name) not in get_args(choices):
                raise BackendError(f"{name} must be one of {', '.join(get_args(choices))}, not '{getattr(self, name)}'")
        if self.narrow and not self.symmetric:
            raise BackendError("a narrow grid is for symmetric quantizers; drop narrow or make it symmetric")
        if not 50 < self.percentile <= 100:
            raise BackendError(f"percentile must be above 50 and at most 100, not {self.percentile}")

    @property
    def low(self) -> int:
        """Lowest integer of the signed grid."""
        return -(1 << (self.bits - 1)) + (1 if self.narrow else 0)

    @property
    def high(self) -> int:
        """Highest integer of the signed grid."""
        return (1 << (self.bits - 1)) - 1


@dataclass(frozen=True)
class Scheme:
    """Which tensors are quantized, and how. tensors `encoder_linears`: input and weight of every linear layer of the
    encoder; embeddings, attention products, softmax, GELU, LayerNorm, residual sums, biases and the head stay float."""

    name: str
    weights: Quantizer
    activations: Quantizer
    tensors: Tensors = "encoder_linears"

    def __post_init__(self) -> None:
        if self.activations.granularity != "per_tensor":
            raise BackendError(f"scheme '{self.name}': activations can only be quantized per_tensor")
        if self.weights.estimator == "output_error":
            raise BackendError(f"scheme '{self.name}': output_error is an estimator for activations only")
        if self.tensors not in get_args(Tensors):
            raise BackendError(
                f"scheme '{self.name}': tensors must be one of {', '.join(get_args(Tensors))}, not '{self.tensors}'"
            )

    @property
    def activation_symmetric(self) -> bool:
        """True when engines that know no zero points (TensorRT) can take it."""
        return self.activations.symmetric

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scheme:
        """The scheme that `to_json` wrote. Raises BackendError for unknown keys and impossible values."""
        try:
            parts = {name: Quantizer(**value[name]) for name in ("weights", "activations")}
            return cls(**{**value, **parts})
        except (TypeError, KeyError) as error:
            raise BackendError(f"not a quantization scheme: {error}") from None


# Measured on MiniLM's six layers with windows of SQuAD's training text (signal-to-noise of the last hidden states, dB):
# activations by min_max 12.7, percentile 99.99 8.8, 99.999 16.1, mse 12.2, output_error 18.1; asymmetric ones by min_max
# 17.0, mse 16.0, output_error 19.8. The [CLS] token's outliers must be kept where attention reads them and cut before
# the second feed-forward layer, which no rule on the values alone finds out. Weights: mse is no better than min_max.
_WEIGHTS = Quantizer(narrow=True, granularity="per_channel")

_SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("engine_int8", _WEIGHTS, Quantizer(estimator="output_error")),
        Scheme("engine_int8_asymmetric", _WEIGHTS, Quantizer(symmetric=False, estimator="output_error")),
    )
}


def scheme_names() -> list[str]:
    """All scheme names that a suite may use."""
    return list(_SCHEMES)


def get_scheme(name: str) -> Scheme:
    """The scheme of that name. Raises BackendError with a suggestion for an unknown one."""
    if name not in _SCHEMES:
        near = difflib.get_close_matches(name, _SCHEMES, 1)
        raise BackendError(
            f"unknown scheme '{name}'" + (f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(_SCHEMES)}")
        )
    return _SCHEMES[name]
