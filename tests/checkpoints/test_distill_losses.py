"""TinyBERT's losses compared with values by hand and with an independent computation; layer maps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from harness.checkpoints.labels import class_columns
from harness.checkpoints.training.distill_losses import (
    StudentWithProjection,
    attention_loss,
    hidden_loss,
    intermediate_loss,
    layer_map,
    prediction_loss,
    register_scores_attention,
    run_encoder,
    soft_cross_entropy,
)
from harness.errors import CheckpointError
from tasks import DataRef, open_task


def tensor(*values: Any) -> torch.Tensor:
    return torch.tensor(values)


def test_attention_scores_are_compared_before_softmax_and_those_of_padding_are_0() -> None:
    student = tensor([[[1.0, 2.0], [-1e4, 0.5]]])  # (1, 1, 2, 2)
    teacher = tensor([[[3.0, 2.0], [-3e38, 1.5]]])
    # ((3 - 1)^2 + 0 + (0 - 0)^2 + (1.5 - 0.5)^2) / 4
    assert float(attention_loss([student], [teacher])) == pytest.approx(5 / 4)
    one_sided = tensor([[[3.0, 2.0], [-7.0, 1.5]]])
    assert float(attention_loss([student], [one_sided])) == pytest.approx((4 + 49 + 1) / 4)
    assert float(attention_loss([student, student], [teacher, one_sided])) == pytest.approx(5 / 4 + 54 / 4)


def test_hidden_states_are_compared_through_one_projection() -> None:
    projection = torch.nn.Linear(1, 2)
    with torch.no_grad():
        projection.weight.copy_(tensor([2.0], [3.0]))
        projection.bias.copy_(tensor(1.0, 0.0))
    student = [tensor([[1.0], [2.0]]), tensor([[0.0], [1.0]])]  # embeddings, one layer: (1, 2, 1)
    teacher = [tensor([[3.0, 4.0], [5.0, 6.0]]), tensor([[0.0, 0.0], [0.0, 0.0]])]
    # projected: (3, 3), (5, 6) and (1, 0), (3, 3)
    expected = (0 + 1 + 0 + 0) / 4 + (1 + 0 + 9 + 9) / 4
    assert hidden_loss(student, teacher, projection).item() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_soft_cross_entropy(temperature: float) -> None:
    student, teacher = [0.5, -1.0], [2.0, 0.0]
    target = [math.exp(value / temperature) for value in teacher]
    output = [math.exp(value / temperature) for value in student]
    expected = -sum(t / sum(target) * math.log(o / sum(output)) for t, o in zip(target, output, strict=True))
    loss = soft_cross_entropy(tensor(student, student), tensor(teacher, teacher), temperature)
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    same = soft_cross_entropy(tensor(teacher), tensor(teacher), temperature)
    entropy = -sum(t / sum(target) * math.log(t / sum(target)) for t in target)
    assert float(same) == pytest.approx(entropy, rel=1e-6)


@pytest.mark.parametrize(
    ("student", "teacher", "layers"),
    [(4, 12, (3, 6, 9, 12)), (6, 12, (2, 4, 6, 8, 10, 12)), (1, 2, (2,)), (3, 3, (1, 2, 3))],
)
def test_layers_are_mapped_evenly(student: int, teacher: int, layers: tuple[int, ...]) -> None:
    assert layer_map("s", student, teacher) == layers


def test_a_depth_mismatch_is_one_line() -> None:
    with pytest.raises(CheckpointError) as caught:
        layer_map("tiny", 5, 12)
    assert str(caught.value) == (
        "tiny: its 5 layers do not divide the teacher's 12 evenly, so layers have no uniform mapping;"
        " give the student 1, 2, 3, 4, 6 or 12 layers"
    )


def encoder(layers: int, width: int, seed: int, attention: str | None = None) -> Any:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=50, hidden_size=width, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.5,
    )  # fmt: skip
    model_class: Any = BertModel
    model: BertModel = model_class._from_config(config, attn_implementation=attention or register_scores_attention())
    return model


def batch() -> dict[str, torch.Tensor]:
    ids = torch.arange(14).reshape(2, 7) + 5
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def test_scores_and_hidden_states_are_those_of_transformers() -> None:
    """Softmax of our scores is transformers' attention probabilities; hidden states and outputs are the same."""
    model, eager_model = encoder(3, 8, 1), encoder(3, 8, 1, "eager")
    states = run_encoder(model, batch())
    expected = eager_model(**batch(), output_hidden_states=True, output_attentions=True)
    assert len(states.scores) == 3
    for scores, probabilities in zip(states.scores, expected.attentions, strict=True):
        assert torch.allclose(scores.softmax(-1), probabilities, atol=1e-6)
    assert (states.scores[0][1, :, :, 4:] < -100).all()
    assert (states.scores[0][0] > -100).all()
    for hidden, expected_hidden in zip(states.hidden, expected.hidden_states, strict=True):
        assert torch.allclose(hidden, expected_hidden, atol=1e-5)
    assert not [name for layer in model.encoder.layer for name in vars(layer.attention.self) if name == "scores"]


def test_the_intermediate_loss_compares_mapped_layers_and_embeddings() -> None:
    """The loss computed again from scores and hidden states by the paper's formulas."""
    student, teacher = encoder(2, 8, 1), encoder(4, 12, 2)
    model = StudentWithProjection(student, 12, layer_map("s", 2, 4))
    loss = intermediate_loss(teacher)(model, {**batch(), "labels": torch.zeros(2)})
    student_states, teacher_states = (run_encoder(model, batch()) for model in (student, teacher))
    expected = 0.0
    for m in (0, 1, 2):
        projected = student_states.hidden[m] @ model.projection.weight.T + model.projection.bias
        expected += ((projected - teacher_states.hidden[2 * m]) ** 2).mean().item()
    for m in (1, 2):
        scores, target = student_states.scores[m - 1].clone(), teacher_states.scores[2 * m - 1].clone()
        scores[1, :, :, 4:] = target[1, :, :, 4:] = 0
        expected += ((scores - target) ** 2).mean().item()
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    torch.autograd.backward(loss)
    without = {name for name, value in model.named_parameters() if value.grad is None}
    assert without == {"encoder.pooler.dense.weight", "encoder.pooler.dense.bias"}
    assert not any(value.requires_grad for name, value in model.named_parameters() if name in without)
    assert all(value.grad is None for value in teacher.parameters())


def test_a_student_as_wide_as_its_teacher_starts_with_the_identity_as_projection() -> None:
    same = encoder(2, 8, 1)
    model = StudentWithProjection(same, 8, (1, 2))
    assert float(intermediate_loss(encoder(2, 8, 1))(model, batch())) < 1e-9


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_teacher_runs_without_gradients_and_in_mixed_precision(
    precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs: list[tuple[torch.dtype, bool]] = []

    def keep_output(module: Any, inputs: Any, output: torch.Tensor) -> None:
        outputs.append((output.dtype, output.requires_grad))

    teacher = encoder(2, 8, 2)
    teacher.encoder.layer[0].attention.self.query.register_forward_hook(keep_output)
    model = StudentWithProjection(encoder(1, 8, 1), 8, (2,))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        loss = intermediate_loss(teacher)(model, batch())
    assert outputs == [(precision, False)]
    assert loss.dtype == torch.float32


class Task:
    def __init__(self, kind: str) -> None:
        self.kind = kind


def classifier(labels: int, seed: int) -> Any:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "num_labels": labels,
        "max_position_embeddings": 16, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.5,
    }  # fmt: skip
    config = BertConfig(**sizes)
    return BertForSequenceClassification(config)


def test_classes_are_matched_by_name_before_they_are_compared() -> None:
    student, teacher = classifier(3, 1), classifier(3, 2)
    logits, target = student(**batch()).logits, teacher(**batch()).logits
    loss = prediction_loss(teacher, Task("classification"), (2, 0, 1), 1.5)(student, batch())  # type: ignore[arg-type]
    expected = soft_cross_entropy(logits, torch.stack([target[:, 2], target[:, 0], target[:, 1]], 1), 1.5)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert float(loss) != pytest.approx(float(soft_cross_entropy(logits, target, 1.5)), rel=1e-3)


def test_a_teachers_classes_are_matched_by_name(tmp_path: Path) -> None:
    (tmp_path / "glue" / "MNLI").mkdir(parents=True)
    (tmp_path / "glue" / "MNLI" / "train.tsv").write_text("")
    task = open_task("glue/mnli", DataRef("raw", str(tmp_path)))
    for names, order in (
        (("contradiction", "entailment", "neutral"), (1, 2, 0)),
        (("entailment", "neutral", "contradiction"), (0, 1, 2)),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"id2label": dict(enumerate(names))}))
        assert class_columns(tmp_path, task) == order


def test_scores_are_compared_by_squared_error() -> None:
    student, teacher = classifier(1, 1), classifier(1, 2)
    difference = student(**batch()).logits - teacher(**batch()).logits
    loss = prediction_loss(teacher, Task("regression"), (), 1.0)(student, batch())  # type: ignore[arg-type]
    assert float(loss) == pytest.approx(float((difference**2).mean()), rel=1e-6)


def test_answers_are_compared_by_start_and_end_without_padding() -> None:
    class Heads(torch.nn.Module):
        def __init__(self, start: torch.Tensor, end: torch.Tensor) -> None:
            super().__init__()
            self.out = {"start_logits": start, "end_logits": end}

        def forward(self, **_: Any) -> dict[str, torch.Tensor]:
            return self.out

    draw = torch.Generator().manual_seed(1)
    student, teacher = (Heads(*torch.randn(2, 2, 7, generator=draw)) for _ in range(2))
    loss = prediction_loss(teacher, Task("question_answering"), (), 2.0)(student, batch())  # type: ignore[arg-type]
    expected = 0.0
    for name in ("start_logits", "end_logits"):
        for row, length in ((0, 7), (1, 4)):
            logits, target = (model.out[name][row, :length] / 2.0 for model in (student, teacher))
            expected -= float((target.softmax(0) * logits.log_softmax(0)).sum()) / 4
    assert float(loss) == pytest.approx(expected, rel=1e-5)
