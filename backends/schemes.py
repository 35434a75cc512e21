"""Quantizers, schemes (which tensors get which quantizer), and the named schemes that suites use. Imports in milliseconds.

A quantizer maps a float x to an integer code q = clamp(round(x / scale) + zero_point, low, high), which represents
(q - zero_point) * scale. Grids are signed (8 bits: -128..127); engines with unsigned integers add 128 to codes and zero points.
The vocabulary follows Nagel et al., "A White Paper on Neural Network Quantization" (arXiv 2106.08295).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import Any, Literal, get_args

from backends.base import BackendError

Granularity = Literal["per_tensor", "per_channel"]
Rounding = Literal["half_even", "half_up"]
Estimator = Literal["min_max", "percentile", "mse", "output_error", "ema", "entropy", "mode"]
Training = Literal["learn", "follow"]
Tensors = Literal["encoder_linears", "linears", "op_outputs"]
Padding = Literal["longest", "max_length"]
_WEIGHT_ESTIMATORS = ("min_max", "percentile", "mse")


@dataclass(frozen=True)
class Quantizer:
    """How one kind of tensor becomes integers.

    symmetric: the zero point is 0.
    narrow: the grid has no lowest value (8 bits: -127..127), so that it is symmetric as well.
    granularity: one scale per tensor, or one per output channel (weights only).
    power_of_two: scales are powers of two.
    rounding: of ties, to the even neighbour (as all engines do) or up (as Vitis's fixed-point hardware does).
    estimator: how calibration finds the range.
      `min_max`: all observed values. `percentile`: `percentile` percent of them. `mse`: the least squared error of the values.
      For activations only: `output_error`: the least relative error of the output of the module that reads the tensor, averaged
      over tokens. `ema`: the mean of the batches' extremes, and after 1 / (1 - `ema_decay`) batches a moving average of them.
      `entropy`: the least Kullback-Leibler divergence between the original and the rounded distribution (TensorRT's calibrator).
      `mode`: the power of two that `mse` finds in most batches (Vitis).
    training: how quantization-aware training changes the calibrated range.
      `learn`: by gradients: scales as in LSQ (arXiv 1902.08153), thresholds of powers of two as in TQT (arXiv 1903.08066), both
      ends of an asymmetric range as in AIMET.
      `follow`: the range of a weight is its minimum and maximum in every step, that of an activation a moving average over steps,
      which includes padding as in Q8BERT's code (calibration does not).
    """

    bits: int = 8
    symmetric: bool = True
    narrow: bool = False
    granularity: Granularity = "per_tensor"
    power_of_two: bool = False
    rounding: Rounding = "half_even"
    estimator: Estimator = "min_max"
    percentile: float = 100.0
    ema_decay: float = 0.9999
    training: Training = "learn"

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise BackendError(f"bits must be 2 to 8, not {self.bits}")
        choices_of = {"granularity": Granularity, "rounding": Rounding, "estimator": Estimator, "training": Training}
        for name, choices in choices_of.items():
            if getattr(self, name) not in get_args(choices):
                raise BackendError(f"{name} must be one of {', '.join(get_args(choices))}, not '{getattr(self, name)}'")
        if self.narrow and not self.symmetric:
            raise BackendError("a narrow grid is for symmetric quantizers only; remove narrow or set symmetric")
        if not 50 < self.percentile <= 100:
            raise BackendError(f"percentile must be above 50 and at most 100, not {self.percentile}")
        if not 0 <= self.ema_decay < 1:
            raise BackendError(f"ema_decay must be at least 0 and below 1, not {self.ema_decay}")
        if self.power_of_two and not self.symmetric:
            raise BackendError(
                "a power-of-two scale is for symmetric quantizers only; remove power_of_two or set symmetric"
            )
        if self.estimator == "mode" and not self.power_of_two:
            raise BackendError("estimator mode counts powers of two; set power_of_two")

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
    """Which tensors are quantized, and how.

    tensors: `encoder_linears`: input and weight of every linear layer of the encoder. `linears`: the same, with those of the
      pooler and the head. `op_outputs`: weights of all linear layers, and the output of every operator of the model (a table's
      look-up only moves values, so it is none). All other tensors stay float.
    embeddings: the embedding tables as well, each with one scale.
    biases: `int32`, at the scale of the products that they are added to, so that they need no range; or a quantizer.
    mask: number that is added to the attention scores of padding, instead of one so low that their softmax is 0. With it, the
      sum of scores and mask is quantized as an operator's output; without it, no 8-bit grid could represent that sum.
    padding: `max_length` if padding influences what a model computes, as it does with a mask of -6.
    keep_float: linear layers whose weight and input stay float: patterns of `fnmatch` for canonical names, such as
      `encoder.layer.0.*` or `*.output.dense`. Query, key and value of a layer read one tensor, so that one of them keeps all three.
    smoothing: migration strength of SmoothQuant (Xiao et al. 2023, arXiv 2211.10438), between 0 and 1: each channel of a linear
      layer's input is divided by a factor, and the weights that read it are multiplied by it, which changes nothing in float.
    bias_correction: biases absorb what quantization shifts each output by on calibration data (Nagel et al. 2019, arXiv 1906.04721,
      section 4.2, the empirical way), with each token's shift relative to its output, so that a clipped outlier moves no other token.
    """

    name: str
    weights: Quantizer
    activations: Quantizer
    tensors: Tensors = "encoder_linears"
    embeddings: bool = False
    biases: Quantizer | Literal["int32"] | None = None
    mask: float | None = None
    padding: Padding = "longest"
    keep_float: tuple[str, ...] = ()
    smoothing: float | None = None
    bias_correction: bool = False

    def __post_init__(self) -> None:
        at = f"scheme '{self.name}': "
        for key, kind in (("tensors", Tensors), ("padding", Padding)):
            if getattr(self, key) not in get_args(kind):
                raise BackendError(f"{at}{key} must be one of {', '.join(get_args(kind))}, not '{getattr(self, key)}'")
        if self.activations.granularity != "per_tensor":
            raise BackendError(f"{at}activations can only be quantized per_tensor; change their granularity")
        constants = [self.weights, *([self.biases] if isinstance(self.biases, Quantizer) else [])]
        for quantizer in constants:
            if quantizer.estimator not in _WEIGHT_ESTIMATORS:
                raise BackendError(
                    f"{at}{quantizer.estimator} is an estimator for activations only; for weights take one of {', '.join(_WEIGHT_ESTIMATORS)}"
                )
            if not quantizer.symmetric:
                raise BackendError(f"{at}weights and biases must be symmetric")
        if self.activations.estimator == "output_error" and self.tensors != "encoder_linears":
            raise BackendError(f"{at}output_error works with tensors = 'encoder_linears' only")
        if isinstance(self.biases, Quantizer) and self.biases.granularity != "per_tensor":
            raise BackendError(f"{at}biases can only be quantized per_tensor; change their granularity")
        if self.biases == "int32" and self.tensors == "op_outputs":
            raise BackendError(
                f"{at}int32 biases need quantized inputs of linear layers; op_outputs quantizes their outputs"
            )
        for key in ("keep_float", "smoothing", "bias_correction"):
            if getattr(self, key) and self.tensors == "op_outputs":
                raise BackendError(f"{at}{key} needs a base that quantizes linear layers only, such as engine_int8")
        if self.smoothing is not None and not 0 < self.smoothing < 1:
            raise BackendError(f"{at}smoothing must be above 0 and below 1, not {self.smoothing}; 0.5 is usual")
        if self.mask is not None and not (self.tensors == "op_outputs" and self.mask < 0):
            raise BackendError(f"{at}mask must be negative, and needs tensors = 'op_outputs'")

    @property
    def activation_symmetric(self) -> bool:
        """True if engines without zero points (TensorRT) can run it."""
        return self.activations.symmetric

    @property
    def computes_padding(self) -> bool:
        """True if padding influences what a model computes, so that every sequence is padded to the maximum."""
        return self.padding == "max_length"

    @property
    def simulation_only(self) -> str:
        """Why no engine can run the scheme; empty if engines can."""
        if {self.activations.rounding, self.weights.rounding} != {"half_even"}:
            return "it rounds ties up, where engines round them to even"
        return ""

    def to_json(self) -> dict[str, Any]:
        """As JSON values. Fields that were added later are left out at their default, so that older files stay the same."""
        value = _without_defaults(asdict(self), self, _LATER)
        for name in ("weights", "activations", "biases"):
            if isinstance(value.get(name), dict):
                value[name] = _without_defaults(value[name], getattr(self, name), ("ema_decay", "training"))
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scheme:
        """The scheme that `to_json` wrote. Raises BackendError for unknown keys and invalid values."""
        try:
            parts: dict[str, Any] = {name: Quantizer(**value[name]) for name in ("weights", "activations")}
            if isinstance(value.get("biases"), Mapping):
                parts["biases"] = Quantizer(**value["biases"])
            elif value.get("biases") not in (None, "int32"):
                raise BackendError(f"biases must be null, 'int32' or a quantizer, not {value['biases']!r}")
            kept = {"keep_float": tuple(value["keep_float"])} if "keep_float" in value else {}
            return cls(**{**value, **parts, **kept})
        except (TypeError, KeyError) as error:
            raise BackendError(f"not a quantization scheme: {error}") from None


def _without_defaults(value: dict[str, Any], instance: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """`value` without those of the named fields that have their default in `instance`."""
    default = {field.name: field.default for field in fields(instance)}
    return {key: item for key, item in value.items() if key not in names or getattr(instance, key) != default[key]}


# Measured on MiniLM's six layers with windows of SQuAD's training text (signal-to-noise ratio of the last hidden states, dB):
# activations by min_max 12.7, percentile 99.99 8.8, 99.999 16.1, mse 12.2, output_error 18.1; asymmetric ones by min_max
# 17.0, mse 16.0, output_error 19.8. Outliers of [CLS] must be kept where attention reads them and clipped before the second
# feed-forward layer; the values alone do not show where. For weights, mse is no better than min_max.
_WEIGHTS = Quantizer(narrow=True, granularity="per_channel")

_SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("engine_int8", _WEIGHTS, Quantizer(estimator="output_error")),
        Scheme("engine_int8_asymmetric", _WEIGHTS, Quantizer(symmetric=False, estimator="output_error")),
        # Zafrir et al., "Q8BERT" (arXiv 1910.06188) and its code in nlp-architect.
        Scheme(
            "q8bert",
            Quantizer(narrow=True, training="follow"),
            Quantizer(narrow=True, estimator="ema", training="follow"),
            tensors="linears",
            embeddings=True,
            biases="int32",
        ),
        # Bondarenko et al. (arXiv 2109.12948) and AIMET's model zoo. The weights of LayerNorm stay float here.
        Scheme(
            "aimet_w8a8",
            Quantizer(estimator="mse"),
            Quantizer(symmetric=False),
            tensors="op_outputs",
            embeddings=True,
            mask=-6.0,
            padding="max_length",
        ),
        # Vitis AI's quantizer. Its published tables do not say which tensors; these are what its documents call activations.
        Scheme(
            "vitis_pof2",
            Quantizer(power_of_two=True, estimator="mse"),
            Quantizer(power_of_two=True, rounding="half_up", estimator="mode"),
            tensors="op_outputs",
            embeddings=True,
            biases=Quantizer(power_of_two=True, estimator="mse"),
        ),
    )
}


SUMMARIES = {
    "engine_int8": "what engines run: static INT8 for the products of the encoder, symmetric; the default",
    "engine_int8_asymmetric": "the same with zero points for activations, which is closer; not for TensorRT",
    "q8bert": "Q8BERT (arXiv 1910.06188): embeddings, pooler and head as well, ranges by moving averages",
    "aimet_w8a8": "AIMET's model zoo (arXiv 2109.12948): the output of every operator",
    "vitis_pof2": "Vitis AI: scales are powers of two, as its fixed-point hardware has them",
}
"""What each scheme is, on one line."""

_LATER = ("embeddings", "biases", "mask", "padding", "keep_float", "smoothing", "bias_correction")
"""Fields of a scheme that files have only where they are not at their default."""
PLAIN_CHANGES = ("keep_float", "smoothing", "bias_correction")
"""What a scheme of a user's own may change of the scheme itself."""
CHANGES: Mapping[str, tuple[str, ...]] = {
    "weights": ("granularity", "estimator", "percentile"),
    "activations": ("symmetric", "estimator", "percentile"),
}
"""What it may change of its quantizers."""
_WITH, _AND, _IS = " with ", "; ", " = "


def scheme_names() -> list[str]:
    """All scheme names that a suite may use without declaring them."""
    return list(_SCHEMES)


def changed_scheme(base: str, changes: Mapping[str, Any]) -> str:
    """The name of a scheme that is another one with changes. The name says them, so that `get_scheme` needs nothing else, whichever
    process or record it is in.

    changes: of CHANGES by table, and PLAIN_CHANGES. Such as `engine_int8 with activations.symmetric = false`. Raises BackendError for
    an unknown base and for changes that make no scheme.
    """
    flat = {
        f"{table}.{key}" if key else table: value
        for table, content in changes.items()
        for key, value in (content.items() if isinstance(content, Mapping) else [("", content)])
    }
    get_scheme(base)
    if not flat:
        return base
    name = base + _WITH + _AND.join(f"{key}{_IS}{json.dumps(flat[key])}" for key in sorted(flat))
    get_scheme(name)
    return name


def changes_of(name: str) -> tuple[str, dict[str, Any]]:
    """The base of a scheme's name, and the changes that the name says, as `changed_scheme` takes them."""
    base, changed, changes = name.partition(_WITH)
    pairs = (change.partition(_IS) for change in changes.split(_AND)) if changed else ()
    return base, {key: json.loads(value) for key, _, value in pairs}


@cache
def get_scheme(name: str) -> Scheme:
    """The scheme of that name, or of a name that `changed_scheme` made. Raises BackendError for an unknown name, with the nearest
    known one."""
    base, changed, changes = name.partition(_WITH)
    if base not in _SCHEMES:
        near = difflib.get_close_matches(base, _SCHEMES, 1)
        raise BackendError(
            f"unknown scheme '{base}'" + (f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(_SCHEMES)}")
        )
    return _changed(name, _SCHEMES[base], changes) if changed else _SCHEMES[base]


def _changed(name: str, scheme: Scheme, changes: str) -> Scheme:
    """A scheme with the changes that its name says."""
    parts: dict[str, dict[str, Any]] = {"weights": {}, "activations": {}}
    plain: dict[str, Any] = {}
    try:
        for change in changes.split(_AND):
            key, _, text = change.partition(_IS)
            table, _, field = key.partition(".")
            if key == "keep_float":
                plain[key] = tuple(map(str, json.loads(text)))
            elif key in PLAIN_CHANGES:
                plain[key] = _typed(key, json.loads(text))
            elif field in CHANGES.get(table, ()):
                parts[table][field] = json.loads(text)
            else:
                raise ValueError(f"'{key}' cannot be changed")
        if parts["activations"].get("symmetric") is False:
            parts["activations"]["narrow"] = False
        weights = replace(scheme.weights, **parts["weights"])
        activations = replace(scheme.activations, **parts["activations"])
        return replace(scheme, name=name, weights=weights, activations=activations, **plain)
    except (ValueError, TypeError) as error:
        raise BackendError(f"scheme '{name}': {error}; declare it in [schemes.NAME] of the suite") from None


def _typed(key: str, value: Any) -> float | bool:
    """Raises ValueError for a value of another type than the scheme's field."""
    wanted: Any = bool if key == "bias_correction" else (int, float)
    if not isinstance(value, wanted) or (key == "smoothing" and isinstance(value, bool)):
        raise ValueError(f"{key} must be {'true or false' if key == 'bias_correction' else 'a number'}, not {value!r}")
    found: float | bool = value
    return found


def describe(scheme: Scheme) -> dict[str, str]:
    """What a scheme does, in words, for lists of schemes."""
    weights, activations = scheme.weights, scheme.activations
    tensors = {
        "encoder_linears": "linear layers of the encoder",
        "linears": "linear layers, with pooler and head",
        "op_outputs": "weights of linear layers and the output of every operator",
    }[scheme.tensors]
    return {
        "tensors": tensors + (", embeddings" if scheme.embeddings else ""),
        "weights": _in_words(weights) + f", {weights.granularity.replace('_', ' ')}",
        "activations": _in_words(activations),
        "biases": "float"
        if scheme.biases is None
        else "int32"
        if scheme.biases == "int32"
        else _in_words(scheme.biases),
        "keep_float": ", ".join(scheme.keep_float),
        "smoothing": f"SmoothQuant, strength {scheme.smoothing:g}" if scheme.smoothing else "",
        "bias_correction": "yes" if scheme.bias_correction else "",
        "runs": "simulation only: " + scheme.simulation_only if scheme.simulation_only else "engines and simulation",
    }


def _in_words(quantizer: Quantizer) -> str:
    sign = "symmetric" if quantizer.symmetric else "asymmetric"
    share = f" {quantizer.percentile:g}" if quantizer.estimator == "percentile" else ""
    power = ", powers of two" if quantizer.power_of_two else ""
    return f"{quantizer.bits} bits, {sign}, {quantizer.estimator}{share}{power}"
