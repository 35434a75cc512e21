"""Watching a model's tensors while batches run through it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from backends.base import BackendError, Batch, Device
from backends.fake_quant.estimators import Histogram
from backends.fake_quant.simulate import encoder_linears

Watch = Callable[[str, nn.Module, tuple[Any, ...], dict[str, Any], Any, torch.Tensor], None]
"""Called after a module with its name, itself, arguments, keywords, output, and the (batch, length) mask of real tokens."""


def source(name: str) -> str:
    """The linear layer whose input stands for this one's: query's for key and value, which read the same tensor."""
    layer, _, part = name.rpartition(".")
    return f"{layer}.query" if part in ("key", "value") else name


def readers(model: nn.Module) -> dict[str, nn.Module]:
    """Each distinct input of the encoder's linear layers, by the name of its linear -> the module that reads it as its
    first argument: the whole self-attention for query's, the linear layer itself for the others."""
    linears = encoder_linears(model)
    parents = {id(child): module for module in model.modules() for child in module.children()}
    return {
        name: parents[id(linear)] if name.endswith(".query") else linear
        for name, linear in linears.items()
        if name == source(name)
    }


def feed(
    model: nn.Module, batches: Iterable[Batch], modules: Mapping[str, nn.Module], watch: Watch, device: Device
) -> dict[str, int]:
    """Run all batches without gradients, watching the named modules. Returns what was seen: samples, batches, tokens
    (padding excluded). Raises BackendError when that is nothing."""
    mask = torch.empty(0)

    def hook(name: str) -> Callable[..., None]:
        return lambda module, arguments, keywords, output: watch(name, module, arguments, keywords, output, mask)

    handles = [module.register_forward_hook(hook(name), with_kwargs=True) for name, module in modules.items()]
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
    return seen


def histograms(
    model: nn.Module, batches: Iterable[Batch], device: Device
) -> tuple[dict[str, Histogram], dict[str, int]]:
    """A histogram of each distinct input of the encoder's linear layers, real tokens only, and what was seen."""
    modules = readers(model)
    found = {name: Histogram() for name in modules}

    def watch(name: str, _: nn.Module, arguments: tuple[Any, ...], *rest: Any) -> None:
        mask: torch.Tensor = rest[-1]
        found[name].add(arguments[0][mask])

    return found, feed(model, batches, modules, watch, device)
