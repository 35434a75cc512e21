"""The estimator `output_error`: of some clipped ranges of an input, the one that disturbs the output of its reader least.

Squared error of the values themselves misjudges a BERT's tensors: a few huge values of one token ([CLS], [SEP]) outweigh
all other tokens, and they must be kept where they steer attention, but not where they only lengthen that token's own
vector, which LayerNorm shortens again. So the error is measured where the values go, and relative to each token's output:
the attention's context for the input of query, key and value, the linear layer's output for every other input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from backends.base import Batch, Device
from backends.fake_quant.estimators import Histogram, grid
from backends.fake_quant.observe import Observer, Tokens, feed
from backends.fake_quant.quantizers import FakeQuantize
from backends.fake_quant.simulate import module_of
from backends.ranges import TensorRange, blank_range
from backends.schemes import Scheme

CLIPS = tuple(0.88**step for step in range(20))
"""Candidate ranges as shares of the largest magnitude seen, down to 0.088."""
TOKENS = 4096
"""About so many tokens are enough to tell candidates apart; each costs every module 20 forward passes."""


def least_output_error(
    model: nn.Module, batches: Sequence[Batch], found: Mapping[str, Observer], scheme: Scheme, device: Device
) -> dict[str, TensorRange]:
    """The range of each distinct input of a linear layer, by its name: least mean over tokens of squared output error relative
    to the token's squared output. Looks at evenly spaced batches, about TOKENS tokens. Ties go to the wider range."""
    candidates = {name: _candidates(name, observer.histogram, scheme) for name, observer in found.items()}
    quantizers = {name: [FakeQuantize(one).to(device) for one in ranges] for name, ranges in candidates.items()}
    errors = {name: np.zeros(len(CLIPS)) for name in candidates}
    running = Tokens()

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
            right = _first(output)[running.mask]
            size = right.square().sum(-1).clamp_min(torch.finfo(right.dtype).tiny)
            for index, quantizer in enumerate(quantizers[name]):
                wrong = _first(module.forward(quantizer(arguments[0]), *arguments[1:], **keywords))[running.mask]
                errors[name][index] += float(((wrong - right).square().sum(-1) / size).double().sum())

        return hook

    readers = {name: _reader(model, name) for name in candidates}
    handles = [module.register_forward_hook(watch(name), with_kwargs=True) for name, module in readers.items()]
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    try:
        feed(model, batches[:: max(1, min(len(batches), tokens // TOKENS))], running, device)
    finally:
        for handle in handles:
            handle.remove()
    return {name: candidates[name][int(errors[name].argmin())] for name in candidates}


def _reader(model: nn.Module, name: str) -> nn.Module:
    """What reads a tensor as its first argument: the whole self-attention for query's input, else the linear layer itself."""
    module: nn.Module = module_of(model, name.removesuffix(".input").removesuffix(".query"))
    return module


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
    """Attention returns its context and its weights."""
    found: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return found
