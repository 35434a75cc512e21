"""The estimator `output_error`: of several clipped ranges of a tensor, the one that changes the output of its reader least.

The squared error of the values themselves is misleading in a BERT. One token ([CLS], [SEP]) has a few huge values that outweigh
all other tokens. They matter where they steer attention; they do not where they only lengthen that token's own vector, which
LayerNorm shortens again. So the error is measured at the reader, relative to each token's output: at the output of
self-attention for the input of query, key and value, and at the linear layer's output for every other input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from backends.base import Batch, Device
from backends.fake_quant.adjust import reader_name
from backends.fake_quant.estimators import Histogram, grid
from backends.fake_quant.observe import Observer, Tokens, feed
from backends.fake_quant.quantizers import FakeQuantize
from backends.fake_quant.simulate import module_of
from backends.ranges import TensorRange, blank_range
from backends.schemes import Scheme

CLIPS = tuple(0.88**step for step in range(20))
"""Candidate ranges as shares of the largest magnitude, down to 0.088."""
TOKENS = 4096
"""About so many tokens are used: enough to tell the candidates apart. Each costs every module 20 forward passes."""


def least_output_error(
    model: nn.Module, batches: Sequence[Batch], observers: Mapping[str, Observer], scheme: Scheme, device: Device
) -> dict[str, TensorRange]:
    """The range of each distinct input of a linear layer, by its name: that with the least mean over tokens of squared output
    error, relative to the token's squared output. Of equals the widest. Uses evenly spaced batches, about TOKENS tokens."""
    candidates = {name: _candidates(name, observer.histogram, scheme) for name, observer in observers.items()}
    quantizers = {
        name: [FakeQuantize(candidate).to(device) for candidate in ranges] for name, ranges in candidates.items()
    }
    errors = {name: np.zeros(len(CLIPS)) for name in candidates}
    tokens = Tokens()

    def measure(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
            exact = _first(output)[tokens.mask]
            size = exact.square().sum(-1).clamp_min(torch.finfo(exact.dtype).tiny)
            for index, quantizer in enumerate(quantizers[name]):
                rounded = _first(module.forward(quantizer(arguments[0]), *arguments[1:], **keywords))[tokens.mask]
                errors[name][index] += float(((rounded - exact).square().sum(-1) / size).double().sum())

        return hook

    readers = {name: module_of(model, reader_name(name)) for name in candidates}
    handles = [module.register_forward_hook(measure(name), with_kwargs=True) for name, module in readers.items()]
    count = sum(int(batch["attention_mask"].sum()) for batch in batches)
    try:
        feed(model, batches[:: max(1, min(len(batches), count // TOKENS))], tokens, device)
    finally:
        for handle in handles:
            handle.remove()
    return {name: candidates[name][int(errors[name].argmin())] for name in candidates}


def _candidates(name: str, histogram: Histogram, scheme: Scheme) -> list[TensorRange]:
    blank = blank_range(name, scheme)
    ends = max(-histogram.lowest, histogram.highest) * np.array(CLIPS)
    scales, zero_points = grid(
        np.maximum(histogram.lowest, -ends), np.minimum(histogram.highest, ends), blank.quantizer
    )
    return [
        replace(blank, scale=scale, zero_point=zero_point)
        for scale, zero_point in zip(scales[:, None], zero_points[:, None], strict=True)
    ]


def _first(output: Any) -> torch.Tensor:
    """A module's output. Self-attention returns its attention weights, too."""
    first: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return first
