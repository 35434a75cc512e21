"""Watching a model's tensors while batches run through it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from backends.base import BackendError, Batch, Device
from backends.fake_quant.estimators import Histogram, batch_scale
from backends.fake_quant.simulate import blank_quantizers, install
from backends.schemes import Quantizer, Scheme


class Tokens:
    """Which positions of the batch that runs count. padding: those that attention_mask hides count too."""

    def __init__(self, *, padding: bool = False) -> None:
        self._padding = padding
        self.mask = torch.empty(0)

    def begin(self, attention_mask: torch.Tensor) -> None:
        self.mask = attention_mask.bool()

    def of(self, values: torch.Tensor) -> torch.Tensor:
        """values (batch, length, width), (batch, heads, length, length), or (batch, width) of whole sequences."""
        if self._padding or values.ndim == 2:
            return values
        if values.ndim == 4:
            return values[(self.mask[:, None, :, None] & self.mask[:, None, None]).expand_as(values)]
        return values[self.mask]


class Observer(nn.Module):
    """Stands where a quantizer is to stand and notes what passes: a histogram of everything, and of each batch the extremes
    and (estimator `mode`) the scale that suits it best."""

    def __init__(self, tokens: Tokens, quantizer: Quantizer) -> None:
        super().__init__()
        self.histogram = Histogram()
        self.extremes: list[tuple[float, float]] = []
        self.scales: list[float] = []
        self._tokens, self._quantizer = tokens, quantizer

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        chosen = self._tokens.of(values)
        extremes = self.histogram.add(chosen)
        if extremes is not None:
            self.extremes.append(extremes)
            if self._quantizer.estimator == "mode" and max(-extremes[0], extremes[1]) > 0:
                alone = Histogram()
                alone.add(chosen)
                self.scales.append(batch_scale(alone, self._quantizer))
        return values


def observe(
    model: nn.Module, batches: Iterable[Batch], scheme: Scheme, device: Device
) -> tuple[dict[str, Observer], dict[str, int]]:
    """An observer of each distinct tensor that a scheme names and that is computed, after all batches; and what was seen."""
    tokens = Tokens(padding=scheme.computes_padding)
    found = blank_quantizers(model, scheme, lambda _: Observer(tokens, scheme.activations))
    remove = install(model, scheme, found)
    try:
        return found, feed(model, batches, tokens, device)
    finally:
        remove()


def feed(model: nn.Module, batches: Iterable[Batch], tokens: Tokens, device: Device) -> dict[str, int]:
    """Run all batches without gradients. Returns what was seen: samples, batches, tokens (padding excluded). Raises
    BackendError when that is nothing."""
    seen = {"samples": 0, "batches": 0, "tokens": 0}
    with torch.inference_mode():
        for batch in batches:
            tensors = {name: torch.from_numpy(values).to(device) for name, values in batch.items()}
            tokens.begin(tensors["attention_mask"])
            model(**tensors)
            seen["samples"] += len(tokens.mask)
            seen["batches"] += 1
            seen["tokens"] += int(tokens.mask.sum())
    if not seen["tokens"]:
        raise BackendError("calibration saw no tokens; hand in at least one batch of training examples")
    return seen


def check_observed(found: Mapping[str, Observer]) -> None:
    """Raises BackendError naming the first tensor that has no range: zero everywhere, or not finite."""
    for name, observer in found.items():
        histogram = observer.histogram
        if not histogram.finite or histogram.lowest == histogram.highest == 0:
            what = "zero everywhere" if histogram.finite else "not finite"
            raise BackendError(f"'{name}' was {what} in calibration; the checkpoint is broken: train or load it again")
