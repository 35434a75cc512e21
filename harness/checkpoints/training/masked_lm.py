"""Masked language models (BERT, arXiv 1810.04805): trained to fill in words, asked for words that fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from harness.checkpoints.training.loop import Loss
from tasks.tokens import special_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel


SHARE = 0.15
"""Of a sequence's tokens that are asked for; at least one."""


class Blanks(nn.Module):
    """A BertForMaskedLM that puts out logits of the chosen places alone: a vocabulary is wide."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, torch.Tensor], chosen: torch.Tensor) -> torch.Tensor:
        """chosen: (batch, length) bool, n true. Returns (n, vocabulary)."""
        hidden = self.model.base_model(**inputs).last_hidden_state
        model: Any = self.model
        logits: torch.Tensor = model.cls(hidden[chosen])
        return logits


def blanks_loss(tokenizer: Tokenizer) -> Loss:
    """Cross-entropy of the chosen tokens: the mean of each sequence, and of those the mean. Of the chosen, 80% are masked,
    10% exchanged for any token and 10% left as they are."""
    special, mask, size = special_ids(tokenizer), mask_id(tokenizer), tokenizer.get_vocab_size()

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        ids, inside = batch["input_ids"], batch["attention_mask"] == 1
        text = inside & (ids != special.cls) & (ids != special.sep)
        wanted = (text.sum(1, keepdim=True) * SHARE).round().clamp(min=1)
        chance = torch.rand(ids.shape, device=ids.device).masked_fill(~text, 2.0)
        chosen = (chance.argsort(1).argsort(1) < wanted) & text
        how = torch.rand(ids.shape, device=ids.device)
        shown = torch.where(chosen & (how < 0.8), mask, ids)
        shown = torch.where(chosen & (how >= 0.9), torch.randint_like(ids, size), shown)
        logits = model({**_inputs(batch), "input_ids": shown}, chosen)
        each = cross_entropy(logits.float(), ids[chosen], reduction="none")
        share = (chosen / chosen.sum(1, keepdim=True).clamp(min=1))[chosen]
        return (each * share).sum() / len(ids)

    return loss


def _inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}


def mask_id(tokenizer: Tokenizer) -> int:
    """Raises TaskError where the vocabulary has no [MASK]."""
    from tasks import TaskError

    found = tokenizer.token_to_id("[MASK]")
    if found is None:
        raise TaskError("the tokenizer's vocabulary has no [MASK]; use a masked language model's own")
    return int(found)
