"""What makes training on a CPU cheaper without changing its mathematics."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

ATTENTION = "quantboard_cpu"
"""Name of `attention` in transformers' registry."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of the GNU C library


def prepare_process(threads: int) -> None:
    """Set up a process that does nothing but train: its threads, no denormal numbers, and a malloc that keeps freed memory.

    Each step allocates and frees gigabytes in large blocks. Returning them to the kernel every time costs a tenth of the step.
    """
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


class Drop(torch.autograd.Function):
    """Dropout that needs 16 random bits an element.

    PyTorch draws a float for each element of the mask and keeps it; for attention probabilities that takes an eighth of a
    training step. With 16 bits p is rounded to a multiple of 1/65536, and the scale with it.
    """

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, p: float) -> torch.Tensor:
        dropped = round(p * 65536)
        words = torch.empty((values.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: values.numel()].view(values.shape)
        keep = bits >= dropped - 32768
        ctx.scale = 65536 / (65536 - dropped)
        ctx.save_for_backward(keep)
        return torch.where(keep, values, 0).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (keep,) = ctx.saved_tensors
        return torch.where(keep, gradients[0], 0).mul_(ctx.scale), None


def drop(values: torch.Tensor, p: float) -> torch.Tensor:
    """Dropout by `Drop`; p: probability of an element to become 0."""
    dropped: torch.Tensor = Drop.apply(values, p) if p > 0 else values  # type: ignore[no-untyped-call]
    return dropped


class Dropout(nn.Module):
    """`nn.Dropout` by `Drop`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return drop(values, self.p) if self.training else values


def replace_dropout(model: nn.Module) -> None:
    """Put a `Dropout` in place of every `nn.Dropout` of a model. Neither has weights, so saved files stay the same."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, Dropout(child.p))


def attention_scores(
    query: torch.Tensor, key: torch.Tensor, attention_mask: torch.Tensor | None, scaling: float | None
) -> torch.Tensor:
    """Scores before the softmax, (batch, heads, length, length), with the additive mask."""
    scores = torch.matmul(query * (scaling or query.size(-1) ** -0.5), key.transpose(2, 3))
    return scores if attention_mask is None else scores + attention_mask


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """transformers' eager attention with `drop` for its probabilities. PyTorch's fused attention has a slow backward pass on
    CPUs, above all in bf16.

    query, key, value: (batch, heads, length, head width). Returns the context, (batch, length, heads, head width), and the
    probabilities, (batch, heads, length, length).
    """
    scores = attention_scores(query, key, attention_mask, scaling)
    probabilities = drop(scores.softmax(-1), dropout if module.training else 0.0)
    return torch.matmul(probabilities, value).transpose(1, 2).contiguous(), probabilities


def register_attention(name: str = ATTENTION, function: Callable[..., Any] = attention) -> str:
    """Register an attention function with an additive mask in transformers; returns the name to load models with."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, eager_mask)
    return name
