"""The training loop compared with transformers' own Trainer, schedules and attention."""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import (
    Trainer,
    TrainingArguments,
    optimization,
)

from harness.checkpoints.training import display
from harness.checkpoints.training.cpu import Dropout, attention, drop, register_attention, replace_dropout
from harness.checkpoints.training.loop import collate, epoch_order, learning_rate, model_loss
from harness.errors import CheckpointError
from tasks.base import Features
from tests.checkpoints.trainings import make_features, make_model, make_settings, run_training, same_weights


class InOrder(Trainer):
    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_training_equals_transformers_trainer(tmp_path: Path, schedule: str) -> None:
    """Same batches, no dropout: AdamW, decay groups, clipping, warm-up and schedule give the Trainer's weights."""
    rows = make_features()
    order = np.concatenate([epoch_order(rows.lengths, 4, 7, epoch, True) for epoch in (0, 1)])
    # With 21 rows each epoch ends with a batch of 1. The Trainer gets these batches as its rows.
    batches = [
        collate(rows, order[e * 21 + at : e * 21 + min(at + 4, 21)], "cpu") for e in (0, 1) for at in range(0, 21, 4)
    ]
    trainers_model = make_model()
    arguments = TrainingArguments(
        str(tmp_path / "trainer"),
        num_train_epochs=1,
        per_device_train_batch_size=1,
        learning_rate=1e-3,
        warmup_steps=3,
        lr_scheduler_type="constant_with_warmup" if schedule == "constant" else "linear",
        weight_decay=0.1,
        max_grad_norm=0.5,
        optim="adamw_torch",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    InOrder(trainers_model, arguments, train_dataset=batches, data_collator=lambda items: items[0]).train()
    weights, trained, _ = run_training(
        tmp_path / "states",
        rows=rows,
        warmup_ratio=0.25,  # 3 of 12 steps
        schedule=schedule,
        weight_decay=0.1,
        max_grad_norm=0.5,
    )
    assert trained.steps == len(batches) == 12
    moved = max(float((weights[name] - value).abs().max()) for name, value in make_model().state_dict().items())
    # A shift of all logits, or of all scores of a query, does not change the loss: these gradients are rounding noise, which Adam scales up.
    noise = ("qa_outputs.bias", "layer.1.output.LayerNorm.bias", "self.key.bias")
    differences = {
        name: float((weights[name] - value).abs().max())
        for name, value in trainers_model.state_dict().items()
        if not name.endswith(noise)
    }
    assert moved > 5e-3
    assert max(differences.values()) < 2e-6, max(differences.items(), key=lambda item: item[1])


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.13])
@pytest.mark.parametrize(
    ("schedule", "power", "end"),
    [("linear", 1.0, 0.0), ("polynomial", 2.0, 1e-5), ("polynomial", 0.5, 0.0), ("constant", 1.0, 0.0)],
)
def test_the_learning_rate_is_that_of_transformers_schedules(
    schedule: Any, power: float, end: float, warmup: float
) -> None:
    train_settings = make_settings(
        warmup_ratio=warmup, schedule=schedule, polynomial_power=power, end_learning_rate=end
    )
    steps, warm = 57, math.ceil(57 * warmup)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    known: Any = optimization
    scheduler = {
        "linear": lambda: known.get_linear_schedule_with_warmup(optimizer, warm, steps),
        "constant": lambda: known.get_constant_schedule_with_warmup(optimizer, warm),
        "polynomial": lambda: known.get_polynomial_decay_schedule_with_warmup(
            optimizer, warm, steps, lr_end=end, power=power
        ),
    }[schedule]()
    for step in range(1, steps + 1):
        assert learning_rate(train_settings, step, steps) == pytest.approx(
            scheduler.get_last_lr()[0], rel=1e-12, abs=1e-18
        )
        optimizer.step()
        scheduler.step()


def test_the_linear_schedule_ends_at_its_end_rate() -> None:
    train_settings = make_settings(end_learning_rate=4e-4)
    assert [learning_rate(train_settings, step, 3) for step in (1, 2, 3)] == pytest.approx([1e-3, 8e-4, 6e-4])


def test_an_epoch_has_every_row_once_and_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(10, 384, 5000)

    def padding(order: np.ndarray[Any, Any]) -> float:
        widths = [lengths[order[at : at + 16]].max() * len(order[at : at + 16]) for at in range(0, 5000, 16)]
        return float(sum(widths) / lengths.sum() - 1)

    grouped = epoch_order(lengths, 16, 1, 0, True)
    plain = epoch_order(lengths, 16, 1, 0, False)
    for order in (grouped, plain):
        assert sorted(order) == list(range(5000))
    assert padding(grouped) < 0.03 < 0.5 < padding(plain)
    assert lengths[grouped[0]] == lengths.max()
    for at in range(0, 5000, 800):  # 50 batches of 16 sorted together; the longest of all swapped to the front
        group = lengths[grouped[at : at + 800]][1:]
        assert (np.diff(group) <= 0).all()
    assert not np.array_equal(grouped, epoch_order(lengths, 16, 1, 1, True))
    assert not np.array_equal(grouped, epoch_order(lengths, 16, 2, 0, True))
    assert np.array_equal(grouped, epoch_order(lengths, 16, 1, 0, True))


def test_a_fraction_of_an_epoch_and_max_steps(tmp_path: Path) -> None:
    sizes: list[int] = []

    def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        sizes.append(len(batch["input_ids"]))
        return model_loss(model, batch)

    assert run_training(tmp_path / "a", epochs=1.5, loss=loss)[1].steps == 9
    assert sizes == [4, 4, 4, 4, 4, 1, 4, 4, 4]
    assert run_training(tmp_path / "b", epochs=1.5, max_steps=2)[1].steps == 2


def test_batches_are_padded_to_their_own_longest() -> None:
    rows = make_features()
    chosen = np.argsort(rows.lengths)[:3]
    batch = collate(rows, chosen, "cpu")
    assert batch["input_ids"].shape == (3, rows.lengths[chosen].max())
    assert batch["attention_mask"].sum(1).tolist() == rows.lengths[chosen].tolist()
    assert {value.dtype for value in batch.values()} == {torch.int64}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_with_its_probability_and_keeps_the_mean(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    values = torch.ones(1001, 997, dtype=dtype, requires_grad=True)  # no multiple of four elements
    out = drop(values, 0.1)
    torch.autograd.backward(out.sum())
    kept_share = float((out != 0).float().mean())
    assert abs(kept_share - 0.9) < 5 * math.sqrt(0.09 / 1001 / 997)
    assert len(set(out.flatten().tolist())) == 2
    assert float(out.detach().max()) == pytest.approx(1 / 0.9, rel=1e-2 if dtype == torch.bfloat16 else 1e-5)
    assert values.grad is not None
    assert torch.equal(values.grad, out.detach())
    neighbours = (out[:, 1:] != 0).float().flatten(), (out[:, :-1] != 0).float().flatten()
    assert abs(float(torch.corrcoef(torch.stack(neighbours).detach())[0, 1])) < 0.005
    assert not torch.equal(out, drop(values, 0.1))
    torch.manual_seed(0)
    assert torch.equal(out, drop(values, 0.1))


def test_every_dropout_is_replaced_and_acts_only_while_training() -> None:
    model = make_model(dropout=0.1)
    count = sum(isinstance(module, torch.nn.Dropout) for module in model.modules())
    before = set(model.state_dict())
    replace_dropout(model)
    assert sum(isinstance(module, Dropout) for module in model.modules()) == count == 7
    assert not any(isinstance(module, torch.nn.Dropout) for module in model.modules())
    assert set(model.state_dict()) == before
    assert Dropout(0.5).eval()(torch.ones(100)).sum() == 100


def test_attention_equals_transformers_eager_attention() -> None:
    batch = collate(make_features(), np.arange(8), "cpu")
    results = []
    for name in ("eager", register_attention()):
        model = make_model(attention=name).train()
        out = model(**batch)
        out.loss.backward()
        results.append([out.start_logits, *(value.grad for value in model.parameters() if value.grad is not None)])
    assert len(results[0]) == len(results[1]) > 30
    for expected, value in zip(*results, strict=True):
        assert torch.allclose(expected, value, atol=2e-6, rtol=1e-5)


def test_attention_drops_probabilities_while_training() -> None:
    model = make_model(dropout=0.5, attention=register_attention())
    layer = model.bert.encoder.layer[0].attention.self
    vectors = torch.randn(2, 4, 6, 8)
    torch.manual_seed(0)
    _, dropped = attention(layer.train(), vectors, vectors, vectors, None, dropout=0.5)
    _, plain = attention(layer.eval(), vectors, vectors, vectors, None, dropout=0.5)
    zero = dropped == 0
    assert 0.3 < zero.float().mean() < 0.7
    assert torch.allclose(dropped[~zero], 2 * plain[~zero])


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        value = model_loss(model, batch)
        calls.append(1)
        return value * float("nan") if len(calls) == 5 else value

    calls: list[int] = []
    with pytest.raises(CheckpointError, match=r"^training: the loss is nan at step 5; lower learning_rate"):
        run_training(tmp_path, loss=loss, checkpoint_every=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000004"]


def test_a_diverging_training_stops(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="at step"):
        run_training(
            tmp_path, learning_rate=1.0, max_grad_norm=0.0, loss=lambda model, batch: model_loss(model, batch) * 1e38
        )


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_learns(tmp_path: Path, precision: str) -> None:
    """The first token decides the class. fp16 has loss scaling, whose first scale overflows, so its first steps are skipped."""
    rows = make_features(64, labels=2)
    rows.input_ids[:, 1] = np.where(rows.labels["labels"] == 1, 10, 20)
    _, trained, _ = run_training(
        tmp_path, make_model(labels=2), rows=rows, precision=precision, epochs=20, batch_size=8, warmup_ratio=0.1
    )
    assert trained.precision == precision
    assert trained.curve[0][1] > 0.3
    assert sum(loss for _, loss in trained.curve[-4:]) / 4 < 0.1


def test_regression_is_trained_by_squared_error(tmp_path: Path) -> None:
    rows = make_features(40)
    targets = np.linspace(0, 5, 40).astype(np.float32)
    rows = Features(rows.input_ids, rows.token_type_ids, rows.lengths, rows.example_index, labels={"labels": targets})
    model = make_model(labels=1)
    model.config.problem_type = "regression"
    _, trained, _ = run_training(tmp_path, model, rows=rows, batch_size=40, max_steps=1, group_by_length=False)
    with torch.no_grad():
        fresh = make_model(labels=1).eval()
        scores = fresh(
            **{name: value for name, value in collate(rows, np.arange(40), "cpu").items() if name != "labels"}
        )
    expected = float(((scores.logits[:, 0].numpy() - targets) ** 2).mean())
    assert trained.curve[0][1] == pytest.approx(expected, rel=1e-5)


def test_progress_lines_have_loss_speed_and_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "LINE_SECONDS", 0.0)
    _, trained, lines = run_training(tmp_path)
    assert len(lines) == 12
    assert lines[3].startswith(f"step 4 of 12: loss {trained.curve[3][1]:.3f}, ")
    assert lines[3].endswith(" steps/s, 0:00:00 left")


def test_a_terminal_shows_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    _, _, lines = run_training(tmp_path)
    assert lines == []
    assert "12/12" in screen.getvalue()
    assert "loss" in screen.getvalue()


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"learning_rte": 1e-4}, "learning_rte"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": "1e-4"}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"epochs": True}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"warmup_ratio": 1.0}, "warmup_ratio"),
        ({"schedule": "cosine"}, "schedule"),
        ({"dropout": 1.0}, "dropout"),
        ({"keep_checkpoints": 0}, "keep_checkpoints"),
        ({"end_learning_rate": 1e-3}, ""),
        ({"polynomial_power": 2.0}, ""),
        ({"schedule": "constant", "end_learning_rate": 1e-5}, ""),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make_settings(**changes)
    assert ".".join(map(str, caught.value.errors()[0]["loc"])) == where


def test_whole_and_fractional_epochs_are_one_key() -> None:
    assert make_settings(epochs=2).model_dump() == make_settings(epochs=2.0).model_dump()


def test_a_training_stops_at_the_step_in_which_its_minutes_are_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 1 s a step: 3.5 s are over in the fourth of twelve. The weights are those that four steps of twelve give."""
    seen: list[Any] = []

    def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return model_loss(model, batch)

    run_training(tmp_path / "whole", loss=loss)
    at_the_fifth = seen[4]
    seen.clear()
    monkeypatch.setattr("harness.checkpoints.training.loop.time.monotonic", lambda: float(len(seen)))
    weights, trained, lines = run_training(tmp_path / "states", loss=loss, max_minutes=3.5 / 60)
    assert trained.steps == 4 and trained.curve[-1][0] == 4 and trained.seconds == 4
    assert same_weights(weights, at_the_fifth)
    assert lines[-1].startswith("stops at step 4 of 12: 0.0583333 minutes are over")
