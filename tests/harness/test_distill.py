"""TinyBERT's losses against hand-computed values and an independent computation; layer maps; what a stage leaves behind."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, AutoModelForQuestionAnswering, BertConfig, BertForSequenceClassification, BertModel

from harness.cells import CORPUS, CheckpointSpec, folder_of
from harness.checkpoint import ensure
from harness.errors import CheckpointError
from harness.labels import columns_of
from harness.origin import describe
from harness.training import distill
from harness.training.distill import (
    Mimic,
    attention_loss,
    hidden_loss,
    intermediate,
    layer_map,
    look_inside,
    prediction,
    register_scores,
    soft_cross_entropy,
)
from tasks import DataRef, Shape, open_task
from tasks.sample import SAMPLE_VERSION
from tests.harness.small import SIZES, sample_spec, train


def tensor(*values: Any) -> torch.Tensor:
    return torch.tensor(values)


def test_attention_scores_are_compared_before_softmax_and_padding_counts_as_nothing() -> None:
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
    wanted = [math.exp(value / temperature) for value in teacher]
    given = [math.exp(value / temperature) for value in student]
    expected = -sum(w / sum(wanted) * math.log(g / sum(given)) for w, g in zip(wanted, given, strict=True))
    rows = soft_cross_entropy(tensor(student, student), tensor(teacher, teacher), temperature)
    assert float(rows) == pytest.approx(expected, rel=1e-6)
    same = soft_cross_entropy(tensor(teacher), tensor(teacher), temperature)
    entropy = -sum(w / sum(wanted) * math.log(w / sum(wanted)) for w in wanted)
    assert float(same) == pytest.approx(entropy, rel=1e-6)


@pytest.mark.parametrize(
    ("student", "teacher", "layers"),
    [(4, 12, (3, 6, 9, 12)), (6, 12, (2, 4, 6, 8, 10, 12)), (1, 2, (2,)), (3, 3, (1, 2, 3))],
)
def test_any_uniform_map(student: int, teacher: int, layers: tuple[int, ...]) -> None:
    assert layer_map("s", student, teacher) == layers


def test_no_uniform_map_is_one_line() -> None:
    with pytest.raises(CheckpointError) as caught:
        layer_map("tiny", 5, 12)
    assert str(caught.value) == (
        "tiny: its 5 layers do not divide the teacher's 12, so no uniform map of layers fits;"
        " give the student one of 1, 2, 3, 4, 6, 12 layers"
    )


def encoder(layers: int, width: int, seed: int, attention: str | None = None) -> Any:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=50, hidden_size=width, num_hidden_layers=layers, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.5,
    )  # fmt: skip
    factory: Any = BertModel
    model: BertModel = factory._from_config(config, attn_implementation=attention or register_scores())
    return model


def batch() -> dict[str, torch.Tensor]:
    ids = torch.arange(14).reshape(2, 7) + 5
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def test_what_goes_on_inside_is_what_transformers_tells() -> None:
    """Softmax of our scores is transformers' attention probabilities; hidden states and outputs are the same."""
    ours, theirs = encoder(3, 8, 1), encoder(3, 8, 1, "eager")
    seen = look_inside(ours, batch())
    told = theirs(**batch(), output_hidden_states=True, output_attentions=True)
    assert len(seen.scores) == 3
    for mine, other in zip(seen.scores, told.attentions, strict=True):
        assert torch.allclose(mine.softmax(-1), other, atol=1e-6)
    assert (seen.scores[0][1, :, :, 4:] < -100).all()
    assert (seen.scores[0][0] > -100).all()
    for mine, other in zip(seen.hidden, told.hidden_states, strict=True):
        assert torch.allclose(mine, other, atol=1e-5)
    assert not [name for layer in ours.encoder.layer for name in vars(layer.attention.self) if name == "scores"]


def test_a_mimic_maps_its_layers_and_its_embeddings() -> None:
    """The loss, put together once more from transformers' own outputs and the paper's formulas."""
    student, teacher = encoder(2, 8, 1), encoder(4, 12, 2)
    model = Mimic(student, 12, layer_map("s", 2, 4))
    loss = intermediate(teacher)(model, {**batch(), "labels": torch.zeros(2)})
    inside = [look_inside(one, batch()) for one in (student, teacher)]
    expected = 0.0
    for m in (0, 1, 2):
        mine = inside[0].hidden[m] @ model.projection.weight.T + model.projection.bias
        expected += ((mine - inside[1].hidden[2 * m]) ** 2).mean().item()
    for m in (1, 2):
        mine, theirs = inside[0].scores[m - 1].clone(), inside[1].scores[2 * m - 1].clone()
        mine[1, :, :, 4:] = theirs[1, :, :, 4:] = 0
        expected += ((mine - theirs) ** 2).mean().item()
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    torch.autograd.backward(loss)
    without = {name for name, value in model.named_parameters() if value.grad is None}
    assert without == {"encoder.pooler.dense.weight", "encoder.pooler.dense.bias"}
    assert not any(value.requires_grad for name, value in model.named_parameters() if name in without)
    assert all(value.grad is None for value in teacher.parameters())


def test_a_student_as_wide_as_its_teacher_begins_with_no_projection() -> None:
    same = encoder(2, 8, 1)
    model = Mimic(same, 8, (1, 2))
    assert float(intermediate(encoder(2, 8, 1))(model, batch())) < 1e-9


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_teacher_runs_without_gradients_and_in_mixed_precision(
    precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[torch.dtype, bool]] = []

    def note(module: Any, inputs: Any, output: torch.Tensor) -> None:
        found.append((output.dtype, output.requires_grad))

    teacher = encoder(2, 8, 2)
    teacher.encoder.layer[0].attention.self.query.register_forward_hook(note)
    model = Mimic(encoder(1, 8, 1), 8, (2,))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        loss = intermediate(teacher)(model, batch())
    assert found == [(precision, False)]
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
    mine, theirs = student(**batch()).logits, teacher(**batch()).logits
    found = prediction(teacher, Task("classification"), (2, 0, 1), 1.5)(student, batch())  # type: ignore[arg-type]
    expected = soft_cross_entropy(mine, torch.stack([theirs[:, 2], theirs[:, 0], theirs[:, 1]], 1), 1.5)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    assert float(found) != pytest.approx(float(soft_cross_entropy(mine, theirs, 1.5)), rel=1e-3)


def test_the_order_of_a_teachers_classes_is_told_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "glue" / "MNLI").mkdir(parents=True)
    (tmp_path / "glue" / "MNLI" / "train.tsv").write_text("")
    task = open_task("glue/mnli", DataRef("raw", str(tmp_path)))
    for names, order in (
        (("contradiction", "entailment", "neutral"), (1, 2, 0)),
        (("entailment", "neutral", "contradiction"), (0, 1, 2)),
    ):
        (tmp_path / "config.json").write_text(json.dumps({"id2label": dict(enumerate(names))}))
        assert columns_of(tmp_path, task) == order


def test_scores_are_compared_by_squared_error() -> None:
    student, teacher = classifier(1, 1), classifier(1, 2)
    difference = student(**batch()).logits - teacher(**batch()).logits
    found = prediction(teacher, Task("regression"), (), 1.0)(student, batch())  # type: ignore[arg-type]
    assert float(found) == pytest.approx(float((difference**2).mean()), rel=1e-6)


def test_answers_are_compared_by_start_and_end_without_padding() -> None:
    class Heads(torch.nn.Module):
        def __init__(self, start: torch.Tensor, end: torch.Tensor) -> None:
            super().__init__()
            self.out = {"start_logits": start, "end_logits": end}

        def forward(self, **_: Any) -> dict[str, torch.Tensor]:
            return self.out

    draw = torch.Generator().manual_seed(1)
    student, teacher = (Heads(*torch.randn(2, 2, 7, generator=draw)) for _ in range(2))
    found = prediction(teacher, Task("question_answering"), (), 2.0)(student, batch())  # type: ignore[arg-type]
    expected = 0.0
    for name in ("start_logits", "end_logits"):
        for row, length in ((0, 7), (1, 4)):
            mine, theirs = (one.out[name][row, :length] / 2.0 for one in (student, teacher))
            expected -= float((theirs.softmax(0) * mine.log_softmax(0)).sum()) / 4
    assert float(found) == pytest.approx(expected, rel=1e-5)


# -- the stages as checkpoints


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


TEACHER = sample_spec(architecture={**SIZES, "num_hidden_layers": 2}, train=train(max_steps=2))


def stage(name: str, parent: CheckpointSpec | None = None, **changes: Any) -> CheckpointSpec:
    """A stage of a student half as deep and half as wide as its teacher."""
    base = sample_spec(
        model="student",
        recipe="distill",
        architecture=None if parent else {**SIZES, "hidden_size": 8},
        parent=parent,
        teacher=TEACHER,
        distill={"stage": name},
        **(
            {"task": CORPUS, "shape": Shape(48), "identity": {"corpus": f"sample {SAMPLE_VERSION}"}}
            if name == "general"
            else {}
        ),
    )
    return replace(base, **changes)


@pytest.fixture(scope="module")
def whole(cache: Path) -> dict[str, Path]:
    """A student's stages, one after the other."""
    spec, made = None, {}
    for name in ("general", "intermediate", "prediction"):
        spec = stage(name, spec)
        made[name] = ensure(spec, cache)
    return made


def test_every_stage_is_a_checkpoint_and_keeps_no_projection(whole: dict[str, Path], cache: Path) -> None:
    for name, folder in whole.items():
        with safe_open(folder / "model.safetensors", framework="np") as stored:
            names = set(stored.keys())
        assert not [one for one in names if "projection" in one or one.startswith("encoder.encoder")], name
        origin = json.loads((folder / "origin.json").read_text())
        assert (origin["recipe"], origin["settings"]["stage"]) == ("distill", name)
        assert origin["architecture"]["num_hidden_layers"] == 1
        assert origin["teacher"] == TEACHER.key
        assert origin["train_seconds"] == sum(one["train_seconds"] for one in origin["stages"])
    assert [one["stage"] for one in origin["stages"]] == ["general", "intermediate", "prediction"]
    described = describe(whole["prediction"])
    assert (described.stand_in, described.architecture["hidden_size"]) == (True, 8)
    assert described.parameters < describe(folder_of(TEACHER, cache)).parameters
    assert [one["stage"] for one in described.stages] == ["general", "intermediate", "prediction"]
    assert described.corpus["label"] == "sample"
    assert described.corpus["sequences"] == described.stages[0]["train_windows"] > 0
    made_of = [*whole.values(), folder_of(TEACHER, cache)]
    weights = {
        folder.name: hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() for folder in made_of
    }
    assert len(weights) == 4 and weights.items() <= described.lineage.items()
    assert described.train_seconds == sum(one["train_seconds"] for one in described.stages)


def test_plain_transformers_loads_every_stage(whole: dict[str, Path]) -> None:
    found = AutoModel.from_pretrained(whole["general"], output_loading_info=True)[1]
    assert {name.split(".")[0] for name in found["missing_keys"]} <= {"pooler"}
    for name in ("intermediate", "prediction"):
        _, found = AutoModelForQuestionAnswering.from_pretrained(whole[name], output_loading_info=True)
        assert not found["missing_keys"]
        assert not found["unexpected_keys"]


def test_a_stage_begins_where_the_one_before_ended(whole: dict[str, Path]) -> None:
    """After a few small steps weights are near those of the stage before and no longer the same."""
    weights = [
        {name.removeprefix("bert."): value for name, value in AutoModel.from_pretrained(folder).state_dict().items()}
        for folder in whole.values()
    ]
    name = "encoder.layer.0.intermediate.dense.weight"
    for before, after in itertools.pairwise(weights):
        apart = float((before[name] - after[name]).abs().max())
        assert 0 < apart < 0.01


def test_a_killed_stage_resumes_with_the_same_bits(
    cache: Path, whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = stage("general")
    spec = stage("intermediate", parent, train=train(max_steps=6, checkpoint_every=2, batch_size=4))
    expected = (ensure(spec, cache) / "model.safetensors").read_bytes()
    other = tmp_path / "cache"
    for one in (parent, TEACHER):
        target = folder_of(one, other)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(folder_of(one, cache))
    calls = 0

    def cut(teacher: Any) -> Any:
        inner = intermediate(teacher)

        def loss(model: Any, batch: Any) -> torch.Tensor:
            nonlocal calls
            calls += 1
            if calls == 4:
                os.kill(os.getpid(), signal.SIGINT)
            return inner(model, batch)

        return loss

    with monkeypatch.context() as patch:
        patch.setattr(distill, "intermediate", cut)
        with pytest.raises(KeyboardInterrupt):
            ensure(spec, other)
    assert [path.name for path in (other / "checkpoints" / f".state-{spec.key}").iterdir()] == ["step-000000004"]
    assert (ensure(spec, other) / "model.safetensors").read_bytes() == expected


def test_a_stage_on_text_has_the_dropout_that_it_asks_for(cache: Path, whole: dict[str, Path]) -> None:
    asked = ensure(stage("general", train=train(max_steps=1, dropout=0.05)), cache)
    for folder, dropout in ((asked, 0.05), (whole["general"], train()["dropout"] or 0.1)):
        config = json.loads((folder / "config.json").read_text())
        assert (config["hidden_dropout_prob"], config["attention_probs_dropout_prob"]) == (dropout, dropout)


def test_a_projection_begins_with_its_seeds_random_weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    class Noted(distill.Mimic):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            begun.append(self.projection.weight.detach().clone())

    monkeypatch.setattr(distill, "Mimic", Noted)
    for seed in (5, 6):
        ensure(stage("intermediate", stage("general"), seed=seed, train=train(max_steps=1)), cache)
    assert not torch.equal(*begun)


def test_a_student_may_keep_layers_of_a_model(cache: Path, tmp_path: Path) -> None:
    """Of two layers the second: what a student of one layer is made like."""
    source = ensure(TEACHER, cache)
    spec = stage(
        "prediction", None, source=str(source), architecture=None, distill={"stage": "prediction", "layers": 1},
        train=train(max_steps=1, learning_rate=1e-9),
    )  # fmt: skip
    made = ensure(spec, cache)
    assert json.loads((made / "config.json").read_text())["num_hidden_layers"] == 1
    kept, theirs = (AutoModelForQuestionAnswering.from_pretrained(folder).state_dict() for folder in (made, source))
    name = "bert.encoder.layer.{}.output.dense.weight"
    assert torch.allclose(kept[name.format(0)], theirs[name.format(1)], atol=1e-6)
    assert torch.allclose(
        kept["bert.embeddings.word_embeddings.weight"], theirs["bert.embeddings.word_embeddings.weight"], atol=1e-6
    )


def test_the_same_student_without_a_teacher(cache: Path, whole: dict[str, Path]) -> None:
    """Stage `labels` is fine-tuning: the same bits as recipe `finetune` from the same weights."""
    general = stage("general")
    alone = ensure(stage("labels", general), cache)
    tuned = ensure(sample_spec(model="student", architecture=None, source=str(whole["general"])), cache)
    assert (alone / "model.safetensors").read_bytes() == (tuned / "model.safetensors").read_bytes()


def fails(spec: CheckpointSpec, cache: Path, line: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        ensure(spec, cache)
    assert str(caught.value) == line
    assert not folder_of(spec, cache).exists()


def test_a_teacher_that_does_not_fit_is_one_line(cache: Path, tmp_path: Path) -> None:
    fails(
        stage("intermediate", None, architecture={**SIZES, "num_hidden_layers": 3}),
        cache,
        "student: its 3 layers do not divide the teacher's 2, so no uniform map of layers fits; give the student one of 1, 2 layers",
    )
    fails(
        stage("intermediate", None, architecture={**SIZES, "num_attention_heads": 4}),
        cache,
        "student: it has 4 attention heads and its teacher 2, whose scores are compared one by one; give it 2",
    )


def test_a_student_reads_its_teachers_words(cache: Path, whole: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    from tokenizers import Tokenizer

    folder = tmp_path / "other"
    shutil.copytree(whole["general"], folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    (one, first), (two, second) = list(vocabulary.items())[200:202]
    vocabulary |= {one: second, two: first}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(one) == second
    fails(
        stage("prediction", None, architecture=None, source=str(folder)),
        cache,
        "student: its tokenizer is not that of its teacher; start it from a model with the same vocabulary, or from 'scratch'",
    )
