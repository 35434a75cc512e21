"""Masked language models: which tokens are predicted, and the loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from harness.checkpoints.make import ensure
from harness.checkpoints.training.masked_lm import MaskedLM, masked_lm_loss
from harness.checkpoints.training.states import Progress, Training
from tests.checkpoints.texts import MASKED_LM, TOKENIZER, token_id
from tests.run.small import SIZES, train


class UniformModel(torch.nn.Module):
    """Stands for a model: keeps its inputs and gives every token the same probability."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.inputs: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, inputs: dict[str, torch.Tensor], chosen: torch.Tensor) -> torch.Tensor:
        self.inputs.append((inputs["input_ids"], chosen))
        return torch.zeros(int(chosen.sum()), self.size)


def test_fifteen_percent_of_the_tokens_are_chosen_and_most_of_them_masked() -> None:
    model = UniformModel(TOKENIZER.get_vocab_size())
    ids = torch.randint(100, 400, (400, 42))
    ids[:, 0], ids[:, -1] = token_id("[CLS]"), token_id("[SEP]")
    mask = torch.ones_like(ids)
    ids[0, 3:], mask[0, 3:] = 0, 0
    torch.manual_seed(0)
    loss = masked_lm_loss(TOKENIZER)(
        model, {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    )
    assert float(loss) == pytest.approx(np.log(TOKENIZER.get_vocab_size()), rel=1e-5)
    input_ids, chosen = model.inputs[0]
    assert chosen[1:].sum(1).tolist() == [6] * 399
    assert chosen[0].sum() == 1
    assert not chosen[0, 3:].any()
    assert not chosen[:, 0].any() and not chosen[:, -1].any()
    masked = torch.eq(input_ids[chosen], token_id("[MASK]"))
    unchanged = torch.eq(input_ids[chosen], ids[chosen])
    assert 0.77 < masked.float().mean() < 0.83
    assert 0.08 < unchanged.float().mean() < 0.12
    assert (input_ids[~chosen] == ids[~chosen]).all()


def test_every_sequence_has_the_same_weight_in_the_loss() -> None:
    """So that processes that share a batch can average their losses."""

    class KnowsFirstSequence(UniformModel):
        def forward(self, inputs: dict[str, torch.Tensor], chosen: torch.Tensor) -> torch.Tensor:
            logits = super().forward(inputs, chosen)
            rows = chosen.nonzero()[:, 0]
            logits[rows == 0] += torch.nn.functional.one_hot(ids[0, 1], self.size) * 5.0
            return logits

    ids = torch.full((2, 42), 300)
    mask = torch.ones_like(ids)
    mask[1, 8:] = 0
    size = TOKENIZER.get_vocab_size()
    loss = masked_lm_loss(TOKENIZER)(
        KnowsFirstSequence(size), {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    )
    loss_of_first = np.log(np.exp(5) + size - 1) - 5
    assert float(loss) == pytest.approx((loss_of_first + np.log(size)) / 2, rel=1e-4)


def test_logits_are_those_of_transformers() -> None:
    torch.manual_seed(0)
    model: Any = BertForMaskedLM(BertConfig(vocab_size=60, **SIZES)).train(False)
    inputs = {
        "input_ids": torch.randint(0, 60, (3, 9)),
        "attention_mask": torch.ones(3, 9, dtype=torch.long),
        "token_type_ids": torch.zeros(3, 9, dtype=torch.long),
    }
    chosen = torch.rand(3, 9) < 0.3
    assert torch.allclose(MaskedLM(model)(inputs, chosen), model(**inputs).logits[chosen], atol=1e-6)


def test_states_keep_tied_weights(tmp_path: Path) -> None:
    """A masked language model's output weights are its embeddings: shared memory, which safetensors refuses to write twice."""
    settings = {"max_steps": 4, "epochs": 1}
    without = ensure(replace(MASKED_LM, train=train(**settings)), tmp_path / "without")
    with_states = ensure(replace(MASKED_LM, train=train(**settings, checkpoint_every=2)), tmp_path / "with")
    assert (without / "model.safetensors").read_bytes() == (with_states / "model.safetensors").read_bytes()
    model = MaskedLM(BertForMaskedLM.from_pretrained(without))
    training = Training(model, torch.optim.AdamW(model.parameters()), torch.amp.GradScaler(enabled=False))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training.save(tmp_path / "state", Progress(3), 1)
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
    assert training.resume(tmp_path / "state", print).step == 3
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
