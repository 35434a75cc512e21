"""Masked language models (Devlin et al. 2019, arXiv 1810.04805): predict tokens that are masked in a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from backends.torch_models import family_of
from harness.checkpoints.training.loop import Loss
from tasks.tokens import mask_id, special_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel


MASKED_SHARE = 0.15
"""Share of a sequence's tokens that are predicted; at least one token."""


class MaskedLM(nn.Module):
    """A masked language model that computes logits at the chosen positions only: a row of logits is as long as the vocabulary."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, torch.Tensor], chosen: torch.Tensor) -> torch.Tensor:
        """chosen: (batch, length) bool with n true values. Returns logits, (n, vocabulary)."""
        base: Any = self.model.base_model
        values: torch.Tensor = base(**inputs).last_hidden_state[chosen]
        for name in family_of(self.model).masked_lm:
            values = self.model.get_submodule(name)(values)
        return values


def masked_lm_loss(tokenizer: Tokenizer) -> Loss:
    """Cross-entropy at the chosen positions, averaged over each sequence and then over the sequences. Of the chosen tokens 80%
    are masked, 10% replaced by a random token and 10% left as they are (arXiv 1810.04805, section 3.1).

    Raises TaskError where the vocabulary has no [MASK].
    """
    mask, vocabulary = mask_id(tokenizer), tokenizer.get_vocab_size()
    around = sorted(special_tokens(tokenizer).ids)

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        ids, real = batch["input_ids"], batch["attention_mask"] == 1
        text = real & ~torch.isin(ids, torch.tensor(around, device=ids.device))
        count = (text.sum(1, keepdim=True) * MASKED_SHARE).round().clamp(min=1)
        priority = torch.rand(ids.shape, device=ids.device).masked_fill(~text, 2.0)
        chosen = (priority.argsort(1).argsort(1) < count) & text
        draw = torch.rand(ids.shape, device=ids.device)
        masked = torch.where(chosen & (draw < 0.8), mask, ids)
        masked = torch.where(chosen & (draw >= 0.9), torch.randint_like(ids, vocabulary), masked)
        inputs = {name: batch[name] for name in ("attention_mask", "token_type_ids")} | {"input_ids": masked}
        token_losses = cross_entropy(model(inputs, chosen).float(), ids[chosen], reduction="none")
        token_weights = (chosen / chosen.sum(1, keepdim=True).clamp(min=1))[chosen]
        return (token_losses * token_weights).sum() / len(ids)

    return loss
