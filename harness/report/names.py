"""What pages call a method: in plain words, for those who never saw an identifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backends.titles import how_it_quantizes, titles
from harness.records.schema import Record

Kind = Literal["baseline", "float", "static", "dynamic", "trained"]
"""What decides a method's colour and mark: how it came to its integers, if it has any."""

SCHEME = "engine_int8"
"""The scheme of the engines themselves, which names leave out."""


@dataclass(frozen=True)
class Name:
    """title: `ONNX Runtime INT8, static`. short: `ORT INT8 static`. how: what was done to make it."""

    title: str
    short: str
    how: str
    kind: Kind


def name_of(record: Record, model: str, *, baseline: bool) -> Name:
    """model: whose leaderboard it stands on; a QAT model's or a student's cell is a method of its ancestor's."""
    title, short = titles(record.backend)
    if baseline:
        return Name(title, short, "baseline", "baseline")
    how_quantized = how_it_quantizes(record.backend)
    trained = _is_trained(record)
    scheme = f", {record.scheme}" if record.scheme and record.scheme != SCHEME else ""
    if how_quantized == "dynamic":
        name = Name(f"{title}, dynamic", f"{short} dynamic", "quantized after training, no calibration", "dynamic")
    elif how_quantized == "static" and trained:
        name = Name(f"{title}, trained (QAT){scheme}", f"{short} QAT{scheme}", "trained with quantizers", "trained")
    elif how_quantized == "static":
        how = "quantized after training, calibrated"
        name = Name(f"{title}, static{scheme}", f"{short} static{scheme}", how, "static")
    elif trained:
        how = "trained with quantizers, run without"
        name = Name(f"{title}, QAT weights", f"{short}, QAT weights", how, "float")
    else:
        name = Name(title, short, "not quantized", "float")
    if record.model == model or trained:
        return name
    return Name(
        f"{name.title}, of {record.model}", f"{record.model}, {name.short}", f"another model; {name.how}", "trained"
    )


def _is_trained(record: Record) -> bool:
    """Whether its weights were trained with quantizers."""
    spec = record.settings.get("checkpoint")
    while isinstance(spec, dict):
        if spec.get("recipe") == "qat":
            return True
        spec = spec.get("parent")
    return bool(record.checkpoint and record.checkpoint.recipe == "qat")
