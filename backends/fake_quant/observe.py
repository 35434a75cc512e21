"""Observe a model's tensors while it runs on batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from backends.base import BackendError, Batch, Device
from backends.fake_quant.estimators import Histogram, batch_scale
from backends.fake_quant.simulate import blank_quantizers, install
from backends.schemes import Quantizer, Scheme


class Tokens:
    """Selects the values of real tokens of the batch that is being run; with `padding` those of padding too."""

    def __init__(self, *, padding: bool = False) -> None:
        self._padding = padding
        self.mask = torch.empty(0)

    def start_batch(self, attention_mask: torch.Tensor) -> None:
        self.mask = attention_mask.bool()

    def select(self, values: torch.Tensor) -> torch.Tensor:
        """values: (batch, length, width), (batch, heads, length, length), or (batch, width), one row per sequence, which is always
        selected."""
        if self._padding or values.ndim == 2:
            return values
        if values.ndim == 4:
            return values[(self.mask[:, None, :, None] & self.mask[:, None, None]).expand_as(values)]
        return values[self.mask]


class Observer(nn.Module):
    """Takes the place of a quantizer and records the values that pass: a histogram of all batches, and of each batch its extremes
    and, for the estimator `mode`, its best scale."""

    def __init__(self, tokens: Tokens, quantizer: Quantizer) -> None:
        super().__init__()
        self.histogram = Histogram()
        self.extremes: list[tuple[float, float]] = []
        self.scales: list[float] = []
        self._tokens, self._quantizer = tokens, quantizer

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        selected = self._tokens.select(values)
        extremes = self.histogram.add(selected)
        if extremes is not None:
            self.extremes.append(extremes)
            if self._quantizer.estimator == "mode" and max(-extremes[0], extremes[1]) > 0:
                batch_histogram = Histogram()
                batch_histogram.add(selected)
                self.scales.append(batch_scale(batch_histogram, self._quantizer))
        return values


def observe(
    model: nn.Module, batches: Iterable[Batch], scheme: Scheme, device: Device
) -> tuple[dict[str, Observer], dict[str, int]]:
    """Run all batches. Returns an observer for each distinct computed tensor that the scheme quantizes, and what `feed` returns."""
    tokens = Tokens(padding=scheme.computes_padding)
    observers = blank_quantizers(model, scheme, lambda _: Observer(tokens, scheme.activations))
    remove = install(model, scheme, observers)
    try:
        return observers, feed(model, batches, tokens, device)
    finally:
        remove()


def feed(model: nn.Module, batches: Iterable[Batch], tokens: Tokens, device: Device) -> dict[str, int]:
    """Run all batches without gradients. Returns the number of samples, batches and tokens (without padding). Raises BackendError
    if there are no tokens."""
    counts = {"samples": 0, "batches": 0, "tokens": 0}
    with torch.inference_mode():
        for batch in batches:
            tensors = {name: torch.from_numpy(values).to(device) for name, values in batch.items()}
            tokens.start_batch(tensors["attention_mask"])
            model(**tensors)
            counts["samples"] += len(tokens.mask)
            counts["batches"] += 1
            counts["tokens"] += int(tokens.mask.sum())
    if not counts["tokens"]:
        raise BackendError("calibration got no tokens; give it at least one batch of training examples")
    return counts


def check_observed(observers: Mapping[str, Observer]) -> None:
    """Raises BackendError naming the first tensor that can have no range: zero everywhere, or not finite."""
    for name, observer in observers.items():
        histogram = observer.histogram
        if not histogram.finite or histogram.lowest == histogram.highest == 0:
            what = "zero everywhere" if histogram.finite else "not finite"
            raise BackendError(f"'{name}' was {what} in calibration; the checkpoint is broken: train or load it again")
