"""Post-training calibration: run the FP32 model on training examples, watch its tensors, choose their grids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from backends.base import BackendError, Batch, Device
from backends.bert import read_architecture
from backends.fake_quant.estimators import Histogram, find_grid, squared_error
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
    histograms, seen = observe(model, batches, device)
    tensors, noise = choose(model, histograms, scheme)
    return Ranges(scheme, tensors, {**seen, "seed": seed, "sqnr_db": noise})


def observe(model: nn.Module, batches: Iterable[Batch], device: Device) -> tuple[dict[str, Histogram], dict[str, int]]:
    """One histogram an encoder linear's input (query, key and value share theirs), and what was seen: samples, batches,
    tokens (padding excluded)."""
    mask = torch.empty(0)
    histograms: dict[str, Histogram] = {}
    handles = []

    def watch(name: str, linear: nn.Module) -> None:
        histogram = histograms[name] = Histogram()

        def hook(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            histogram.add(inputs[0][mask])

        handles.append(linear.register_forward_pre_hook(hook))

    for name, linear in encoder_linears(model).items():
        if name.endswith(("self.key", "self.value")):
            histograms[name] = histograms[f"{name.rpartition('.')[0]}.query"]
        else:
            watch(name, linear)
    seen = {"samples": 0, "batches": 0, "tokens": 0}
    try:
        with torch.inference_mode():
            for batch in batches:
                tensors = {name: torch.from_numpy(values).to(device) for name, values in batch.items()}
                mask = tensors["attention_mask"].bool()
                model(**tensors)
                seen["samples"] += len(mask)
                seen["batches"] += 1
                seen["tokens"] += int(mask.sum())
    finally:
        for handle in handles:
            handle.remove()
    if not seen["tokens"]:
        raise BackendError("calibration saw no tokens; hand in at least one batch of training examples")
    return histograms, seen


def choose(
    model: nn.Module, histograms: dict[str, Histogram], scheme: Scheme
) -> tuple[dict[str, TensorRange], dict[str, float]]:
    """The range of every tensor of a scheme, and its signal-to-quantization-noise ratio in decibels."""
    tensors: dict[str, TensorRange] = {}
    noise: dict[str, float] = {}
    for name, linear in encoder_linears(model).items():
        weight = linear.weight.detach().float().cpu().numpy()
        if not np.isfinite(weight).all():
            raise BackendError(f"'{name}.weight' holds values that are not finite; train or load the checkpoint again")
        if not histograms[name].finite:
            raise BackendError(
                f"'{name}.input' was not finite on a calibration batch; the checkpoint overflows or is broken"
            )
        rows = weight if scheme.weights.granularity == "per_channel" else weight.reshape(1, -1)
        for tensor, values, counts in (
            (f"{name}.weight", rows, np.ones(rows.shape[1])),
            (f"{name}.input", *histograms[name].occupied()),
        ):
            tensors[tensor], noise[tensor] = _choose(tensor, np.atleast_2d(values), counts, scheme)
    return tensors, noise


def _choose(name: str, values: Array, counts: Array, scheme: Scheme) -> tuple[TensorRange, float]:
    blank = blank_range(name, scheme)
    scale, zero_point = find_grid(values, counts, blank.quantizer)
    # An output channel of zeros alone (pruned) is exact on any grid, but a tensor of zeros has no range.
    scale = np.where(scale > 0, scale, scale.max())
    if not (np.isfinite(scale).all() and (scale >= np.finfo(np.float32).tiny).all()):
        raise BackendError(
            f"'{name}' has no usable range (largest scale {scale.max()}): it is zero, tiny or not finite"
        )
    signal = float((values.astype(np.float64) ** 2 @ counts).sum())
    error = float(squared_error(values, counts, scale, zero_point, blank.quantizer).sum())
    decibels = 10 * np.log10(signal / error) if error > 0 else 200.0
    return replace(blank, scale=scale, zero_point=zero_point), round(float(decibels), 2)
