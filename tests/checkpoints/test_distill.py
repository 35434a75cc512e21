"""The stages of a distillation as checkpoints: what each writes, where the next starts, what is refused."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel, AutoModelForQuestionAnswering

from harness.checkpoints.make import ensure
from harness.checkpoints.origin import describe_checkpoint
from harness.checkpoints.training import distill_losses
from harness.checkpoints.training.distill_losses import intermediate_loss
from harness.errors import CheckpointError
from harness.plan.spec import CheckpointSpec, folder_of
from tests.checkpoints.specs import TEACHER, qat_spec, stage
from tests.run.small import SIZES, ptq, sample_spec, train


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def stages(cache: Path) -> dict[str, Path]:
    """The checkpoints of a student's stages, by name."""
    spec, folders = None, {}
    for name in ("general", "intermediate", "prediction"):
        spec = stage(name, spec)
        folders[name] = ensure(spec, cache)
    return folders


@pytest.mark.slow
def test_every_stage_is_a_checkpoint_without_the_projection(stages: dict[str, Path], cache: Path) -> None:
    for name, folder in stages.items():
        with safe_open(folder / "model.safetensors", framework="np") as stored:
            names = set(stored.keys())
        assert not [tensor for tensor in names if "projection" in tensor or tensor.startswith("encoder.encoder")], name
        origin = json.loads((folder / "origin.json").read_text())
        assert (origin["recipe"], origin["settings"]["stage"]) == ("distill", name)
        assert origin["architecture"]["num_hidden_layers"] == 1
        assert origin["teacher"] == TEACHER.key
        assert origin["train_seconds"] == sum(stage["train_seconds"] for stage in origin["stages"])
    assert [stage["stage"] for stage in origin["stages"]] == ["general", "intermediate", "prediction"]
    described = describe_checkpoint(stages["prediction"])
    assert (described.stand_in, described.architecture["hidden_size"]) == (True, 8)
    assert described.parameters < describe_checkpoint(folder_of(TEACHER, cache)).parameters
    assert [stage["stage"] for stage in described.stages] == ["general", "intermediate", "prediction"]
    assert described.corpus["label"] == "sample"
    assert described.corpus["sequences"] == described.stages[0]["train_windows"] > 0
    folders = [*stages.values(), folder_of(TEACHER, cache)]
    weights = {
        folder.name: hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() for folder in folders
    }
    assert len(weights) == 4 and weights.items() <= described.lineage.items()
    assert described.train_seconds == sum(stage["train_seconds"] for stage in described.stages)


@pytest.mark.slow
def test_a_checkpoint_made_from_a_student_names_its_corpus(stages: dict[str, Path], cache: Path) -> None:
    student = stage("prediction", stage("intermediate", stage("general")))
    corpus = describe_checkpoint(stages["prediction"]).corpus
    assert corpus["label"] == "sample"
    trained = ensure(qat_spec(student), cache)
    assert describe_checkpoint(trained).corpus == corpus
    assert describe_checkpoint(ensure(ptq(student, teacher=None, distill=None), cache)).corpus == corpus
    assert describe_checkpoint(folder_of(TEACHER, cache)).corpus == {}


def test_plain_transformers_loads_every_stage(stages: dict[str, Path]) -> None:
    report = AutoModel.from_pretrained(stages["general"], output_loading_info=True)[1]
    assert {name.split(".")[0] for name in report["missing_keys"]} <= {"pooler"}
    for name in ("intermediate", "prediction"):
        _, report = AutoModelForQuestionAnswering.from_pretrained(stages[name], output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]


def test_a_stage_starts_from_the_stage_before(stages: dict[str, Path]) -> None:
    """After a few small steps its weights are close to those of the stage before, but not the same."""
    weights = [
        {name.removeprefix("bert."): value for name, value in AutoModel.from_pretrained(folder).state_dict().items()}
        for folder in stages.values()
    ]
    name = "encoder.layer.0.intermediate.dense.weight"
    for before, after in itertools.pairwise(weights):
        difference = float((before[name] - after[name]).abs().max())
        assert 0 < difference < 0.01


@pytest.mark.slow
def test_an_interrupted_stage_resumes_with_the_same_bits(
    cache: Path, stages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = stage("general")
    spec = stage("intermediate", parent, train=train(max_steps=6, checkpoint_every=2, batch_size=4))
    expected = (ensure(spec, cache) / "model.safetensors").read_bytes()
    other_cache = tmp_path / "cache"
    for needed in (parent, TEACHER):
        target = folder_of(needed, other_cache)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(folder_of(needed, cache))
    calls = 0

    def interrupted(teacher: Any) -> Any:
        plain_loss = intermediate_loss(teacher)

        def loss(model: Any, batch: Any) -> torch.Tensor:
            nonlocal calls
            calls += 1
            if calls == 4:
                os.kill(os.getpid(), signal.SIGINT)
            return plain_loss(model, batch)

        return loss

    with monkeypatch.context() as patch:
        patch.setattr(distill_losses, "intermediate_loss", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ensure(spec, other_cache)
    assert [path.name for path in (other_cache / "checkpoints" / f".state-{spec.key}").iterdir()] == ["step-000000004"]
    assert (ensure(spec, other_cache) / "model.safetensors").read_bytes() == expected


def test_a_stage_on_text_has_its_dropout(cache: Path, stages: dict[str, Path]) -> None:
    folder_of_stage = ensure(stage("general", train=train(max_steps=1, dropout=0.05)), cache)
    for folder, dropout in ((folder_of_stage, 0.05), (stages["general"], train()["dropout"] or 0.1)):
        config = json.loads((folder / "config.json").read_text())
        assert (config["hidden_dropout_prob"], config["attention_probs_dropout_prob"]) == (dropout, dropout)


@pytest.mark.slow
def test_a_projection_starts_with_the_random_weights_of_its_seed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    projections = []

    class Observed(distill_losses.StudentWithProjection):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            projections.append(self.projection.weight.detach().clone())

    monkeypatch.setattr(distill_losses, "StudentWithProjection", Observed)
    for seed in (5, 6):
        ensure(stage("intermediate", stage("general"), seed=seed, train=train(max_steps=1)), cache)
    assert not torch.equal(*projections)


def test_a_student_may_keep_layers_of_a_model(cache: Path, tmp_path: Path) -> None:
    """Of two layers it keeps the second, from which a student of one layer would learn."""
    source = ensure(TEACHER, cache)
    spec = stage(
        "prediction", None, source=str(source), architecture=None, distill={"stage": "prediction", "layers": 1},
        train=train(max_steps=1, learning_rate=1e-9),
    )  # fmt: skip
    folder = ensure(spec, cache)
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 1
    kept, weights = (AutoModelForQuestionAnswering.from_pretrained(path).state_dict() for path in (folder, source))
    name = "bert.encoder.layer.{}.output.dense.weight"
    assert torch.allclose(kept[name.format(0)], weights[name.format(1)], atol=1e-6)
    assert torch.allclose(
        kept["bert.embeddings.word_embeddings.weight"], weights["bert.embeddings.word_embeddings.weight"], atol=1e-6
    )


@pytest.mark.slow
def test_the_same_student_without_a_teacher(cache: Path, stages: dict[str, Path]) -> None:
    """Stage `labels` is fine-tuning: the same bits as recipe `finetune` from the same weights."""
    general = stage("general")
    student = ensure(stage("labels", general), cache)
    finetuned = ensure(sample_spec(model="student", architecture=None, source=str(stages["general"])), cache)
    assert (student / "model.safetensors").read_bytes() == (finetuned / "model.safetensors").read_bytes()


def fails(spec: CheckpointSpec, cache: Path, line: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        ensure(spec, cache)
    assert str(caught.value) == line
    assert not folder_of(spec, cache).exists()


@pytest.mark.slow
def test_a_teacher_that_does_not_fit_is_one_line(cache: Path, tmp_path: Path) -> None:
    fails(
        stage("intermediate", None, architecture={**SIZES, "num_hidden_layers": 3}),
        cache,
        "student: its 3 layers do not divide the teacher's 2 evenly, so layers have no uniform mapping; give the student 1 or 2 layers",
    )
    fails(
        stage("intermediate", None, architecture={**SIZES, "num_attention_heads": 4}),
        cache,
        "student: it has 4 attention heads and its teacher 2, but scores are compared head by head; give the student 2 heads",
    )


def test_a_student_must_have_its_teachers_vocabulary(cache: Path, stages: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    from tokenizers import Tokenizer

    folder = tmp_path / "other"
    shutil.copytree(stages["general"], folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    (word, number), (other_word, other_number) = list(vocabulary.items())[200:202]
    vocabulary |= {word: other_number, other_word: number}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(word) == other_number
    fails(
        stage("prediction", None, architecture=None, source=str(folder)),
        cache,
        "student: its tokenizer is not that of its teacher; start it from a model with the same vocabulary, or from 'scratch'",
    )
