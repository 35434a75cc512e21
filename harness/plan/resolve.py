"""How a model of a suite is made for one task, all overrides applied: on real data as the suite says, on the sample by its
stand-in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.suite.tables import Architecture, Model, Sample, ShapeTable, StandIn, Suite, TaskOverride
from harness.suite.train import TrainSettings
from tasks import Shape, task_facts


@dataclass(frozen=True)
class ResolvedModel:
    """train: settings in full, None for recipe `load`. stages: of recipe `distill` by name, each in full. common_length:
    tokens of a sequence where no task is involved. augment: None for question answering, whose answers it would move.
    augment_architecture: of a masked LM with random weights."""

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


def resolve_model(suite: Suite, name: str, task: str, on_sample: bool) -> ResolvedModel:
    """On the sample a root model (and any that is fine-tuned) is the stand-in, trained from random weights; QAT models and
    students are made of stand-ins as the suite makes them of the models."""
    model, sample = suite.models[name], suite.sample
    if on_sample and sample:
        return _on_sample(model, sample, sample.models.get(name, StandIn()), task)
    override = model.task.get(task)
    own = override.distill if override else {}
    stages = {}
    if model.recipe == "distill" and model.distill:
        common = _merged(model.train, {})  # the general stage is the same for all tasks
        base = _merged(model.train, override.train if override else {})
        stages = {
            stage: _full((common if stage == "general" else base) | changes | own.get(stage, {}))  # type: ignore[call-overload]
            for stage, changes in model.distill.stages.items()
        }
    augment = _augment(model, task)
    if augment and "train" in augment:
        augment["train"] = _full(augment["train"])
    return ResolvedModel(
        recipe=model.recipe,
        source=model.source,
        shape=_shape(suite.shape, override),
        common_length=suite.shape.max_length,
        teacher=model.teacher,
        scheme=model.scheme,
        architecture=_sizes(model.architecture),
        train=_full(_merged(model.train, override.train if override else {})) if model.recipe != "load" else None,
        stages=stages,
        layers=model.distill.layers if model.distill else None,
        temperature=model.distill.temperature if model.distill else 1.0,
        augment=augment,
    )


def _on_sample(model: Model, sample: Sample, own: StandIn, task: str) -> ResolvedModel:
    override = sample.task.get(task)
    base = _merged(sample.train, override.train if override else {}) | own.train
    shape = _shape(sample, override)
    if model.recipe == "qat":
        return ResolvedModel("qat", model.source, shape, sample.max_length, scheme=model.scheme, train=_full(base))
    sizes = _sizes(own.architecture or sample.model)
    if model.recipe != "distill" or not model.distill:
        return ResolvedModel("finetune", "scratch", shape, sample.max_length, architecture=sizes, train=_full(base))
    changes: Mapping[str, dict[str, Any]] = own.distill  # type: ignore[assignment]
    common = _merged(sample.train, {}) | own.train
    stages = {
        stage: _full((common if stage == "general" else base) | changes.get(stage, {}))
        for stage in model.distill.stages
    }
    augment = _augment(model, task)
    if augment:
        augment |= changes.get("augment", {})
        augment.pop("glove", None)
        augment["train"] = _full(_merged(sample.train, augment.get("train", {})))
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


def _augment(model: Model, task: str) -> dict[str, Any] | None:
    facts = task_facts(task)
    if model.distill is None or model.distill.augment is None or (facts and facts.kind == "question_answering"):
        return None
    own = model.task[task].augment.model_dump(exclude_none=True) if task in model.task else {}
    return model.distill.augment.model_dump(exclude_none=True) | own


def _merged(train: TrainSettings | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    return {**(train.model_dump(exclude_unset=True) if train else {}), **changes}


def _full(settings: Mapping[str, Any]) -> dict[str, Any]:
    return TrainSettings.model_validate(dict(settings)).model_dump()


def _sizes(architecture: Architecture | None) -> dict[str, int] | None:
    return architecture.model_dump() if architecture else None


def _shape(common: ShapeTable | Sample, override: TaskOverride | None) -> Shape:
    merged = {name: getattr(common, name) for name in ("max_length", "doc_stride", "max_query_length")}
    return Shape(**merged | (override.shape.model_dump(exclude_none=True) if override else {}))
