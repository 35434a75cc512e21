"""The stages of a distillation as checkpoints: what each leaves behind, where the next begins, what is refused."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
from dataclasses import replace
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
from harness.plan.spec import CORPUS, CheckpointSpec, folder_of
from tasks import Shape
from tasks.sample import SAMPLE_VERSION
from tests.checkpoints.test_qat import trained_from
from tests.run.small import SIZES, ptq, sample_spec, train


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


@pytest.mark.slow
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
    described = describe_checkpoint(whole["prediction"])
    assert (described.stand_in, described.architecture["hidden_size"]) == (True, 8)
    assert described.parameters < describe_checkpoint(folder_of(TEACHER, cache)).parameters
    assert [one["stage"] for one in described.stages] == ["general", "intermediate", "prediction"]
    assert described.corpus["label"] == "sample"
    assert described.corpus["sequences"] == described.stages[0]["train_windows"] > 0
    made_of = [*whole.values(), folder_of(TEACHER, cache)]
    weights = {
        folder.name: hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() for folder in made_of
    }
    assert len(weights) == 4 and weights.items() <= described.lineage.items()
    assert described.train_seconds == sum(one["train_seconds"] for one in described.stages)


@pytest.mark.slow
def test_what_is_made_of_a_student_names_its_text(whole: dict[str, Path], cache: Path) -> None:
    student = stage("prediction", stage("intermediate", stage("general")))
    text = describe_checkpoint(whole["prediction"]).corpus
    assert text["label"] == "sample"
    trained = ensure(trained_from(student), cache)
    assert describe_checkpoint(trained).corpus == text
    assert describe_checkpoint(ensure(ptq(student, teacher=None, distill=None), cache)).corpus == text
    assert describe_checkpoint(folder_of(TEACHER, cache)).corpus == {}


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


@pytest.mark.slow
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
        inner = intermediate_loss(teacher)

        def loss(model: Any, batch: Any) -> torch.Tensor:
            nonlocal calls
            calls += 1
            if calls == 4:
                os.kill(os.getpid(), signal.SIGINT)
            return inner(model, batch)

        return loss

    with monkeypatch.context() as patch:
        patch.setattr(distill_losses, "intermediate_loss", cut)
        with pytest.raises(KeyboardInterrupt):
            ensure(spec, other)
    assert [path.name for path in (other / "checkpoints" / f".state-{spec.key}").iterdir()] == ["step-000000004"]
    assert (ensure(spec, other) / "model.safetensors").read_bytes() == expected


def test_a_stage_on_text_has_the_dropout_that_it_asks_for(cache: Path, whole: dict[str, Path]) -> None:
    asked = ensure(stage("general", train=train(max_steps=1, dropout=0.05)), cache)
    for folder, dropout in ((asked, 0.05), (whole["general"], train()["dropout"] or 0.1)):
        config = json.loads((folder / "config.json").read_text())
        assert (config["hidden_dropout_prob"], config["attention_probs_dropout_prob"]) == (dropout, dropout)


@pytest.mark.slow
def test_a_projection_begins_with_its_seeds_random_weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    class Noted(distill_losses.StudentWithProjection):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            begun.append(self.projection.weight.detach().clone())

    monkeypatch.setattr(distill_losses, "StudentWithProjection", Noted)
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


@pytest.mark.slow
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
