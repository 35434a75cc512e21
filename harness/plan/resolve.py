"""How a model of a suite is made for one task, with all overrides applied: on real data as the suite says, on the sample with
its stand-in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.suite.tables import Architecture, Model, Sample, ShapeTable, StandIn, Suite, TaskOverride
from harness.suite.train import TrainSettings
from tasks import Shape


@dataclass(frozen=True)
class ResolvedModel:
    """train: all settings with their defaults, None for a recipe that does not train. stages: of recipe `distill`, by name, each with all
    settings. common_length: max_length where no task is involved. augment: None for question answering, since it would shift
    answers. augment_architecture: of a masked language model with random weights. labels: names of the model's outputs that
    replace its own."""

    recipe: str
    source: str
    shape: Shape
    common_length: int
    teacher: str | None = None
    scheme: str | None = None
    architecture: Mapping[str, int] | None = None
    train: dict[str, Any] | None = None
    stages: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    layers: int | None = None
    temperature: float = 1.0
    augment: Mapping[str, Any] | None = None
    augment_architecture: Mapping[str, int] | None = None
    labels: tuple[str, ...] = ()


def resolve_model(suite: Suite, name: str, task: str, on_sample: bool) -> ResolvedModel:
    """How a suite makes the model `name` for a task. On the sample, models that are loaded or fine-tuned are replaced by a
    stand-in that starts from random weights, and QAT models and students are made from stand-ins."""
    model, sample = suite.models[name], suite.sample
    if on_sample and sample:
        return _on_sample(suite, model, sample, sample.models.get(name, StandIn()), task)
    override = model.task.get(task)
    train = _merged(model.train, override.train if override else {})
    stages = {}
    if model.recipe == "distill" and model.distill:
        own: Mapping[str, dict[str, Any]] = override.distill if override else {}  # type: ignore[assignment]
        common = _merged(model.train, {})  # the general stage is the same for all tasks
        stages = {
            stage: _complete((common if stage == "general" else train) | changes | own.get(stage, {}))
            for stage, changes in model.distill.stages.items()
        }
    augment = _augment(suite, model, task)
    if augment and "train" in augment:
        augment["train"] = _complete(augment["train"])
    return ResolvedModel(
        recipe=model.recipe,
        source=model.source,
        shape=_shape(suite.shape, override),
        common_length=suite.shape.max_length,
        teacher=model.teacher,
        scheme=model.scheme and suite.scheme_name(model.scheme),
        architecture=_sizes(model.architecture),
        train=None if model.recipe in ("load", "random") else _complete(train),
        stages=stages,
        layers=model.distill.layers if model.distill else None,
        temperature=model.distill.temperature if model.distill else 1.0,
        augment=augment,
        labels=model.labels,
    )


def _on_sample(suite: Suite, model: Model, sample: Sample, own: StandIn, task: str) -> ResolvedModel:
    override = sample.task.get(task)
    train = _merged(sample.train, override.train if override else {}) | own.train
    shape = _shape(sample, override)
    if model.recipe == "qat":
        return ResolvedModel(
            "qat",
            model.source,
            shape,
            sample.max_length,
            scheme=model.scheme and suite.scheme_name(model.scheme),
            train=_complete(train),
        )
    sizes = _sizes(own.architecture or sample.model)
    if model.recipe == "random":
        return ResolvedModel("random", "scratch", shape, sample.max_length, architecture=sizes)
    if model.recipe != "distill" or not model.distill:
        return ResolvedModel(
            "finetune", "scratch", shape, sample.max_length, architecture=sizes, train=_complete(train)
        )
    changes: Mapping[str, dict[str, Any]] = own.distill  # type: ignore[assignment]
    common = _merged(sample.train, {}) | own.train
    stages = {
        stage: _complete((common if stage == "general" else train) | changes.get(stage, {}))
        for stage in model.distill.stages
    }
    augment = _augment(suite, model, task)
    if augment:
        augment |= changes.get("augment", {})
        augment.pop("glove", None)
        augment["train"] = _complete(_merged(sample.train, augment.get("train", {})))
    return ResolvedModel(
        recipe="distill",
        source="scratch",
        shape=shape,
        common_length=sample.max_length,
        teacher=model.teacher,
        architecture=sizes,
        stages=stages,
        temperature=model.distill.temperature,
        augment=augment,
        augment_architecture=_sizes(sample.model),
    )


def _augment(suite: Suite, model: Model, task: str) -> dict[str, Any] | None:
    facts = suite.facts(task)
    if model.distill is None or model.distill.augment is None or (facts and facts.kind == "question_answering"):
        return None
    own = model.task[task].augment.model_dump(exclude_none=True) if task in model.task else {}
    return model.distill.augment.model_dump(exclude_none=True) | own


def _merged(train: TrainSettings | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a suite file gives, with changes."""
    return {**(train.model_dump(exclude_unset=True) if train else {}), **changes}


def _complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    """All training settings, with the defaults of those that are not given."""
    return TrainSettings.model_validate(dict(settings)).to_json()


def _sizes(architecture: Architecture | None) -> dict[str, int] | None:
    return architecture.model_dump() if architecture else None


def _shape(common: ShapeTable | Sample, override: TaskOverride | None) -> Shape:
    merged = {name: getattr(common, name) for name in ("max_length", "doc_stride", "max_query_length")}
    return Shape(**merged | (override.shape.model_dump(exclude_none=True) if override else {}))
