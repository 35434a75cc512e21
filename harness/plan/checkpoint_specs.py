"""Which checkpoints a model of a suite needs for a task, and why one of them cannot be made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.machine.digests import file_hash
from harness.plan.data import TaskData
from harness.plan.fit import Wanted, has_unnamed_classes, why_no_masked_lm, why_not_trained, why_unfit
from harness.plan.resolve import ResolvedModel, resolve_model
from harness.plan.sources import (
    HEADS,
    Source,
    corpus_identity,
    depth_of,
    folder_of_source,
    local_folder,
    look_up,
    pooling_hash,
    ranges_of,
    sizes_of,
)
from harness.plan.spec import CORPUS, Blocked, CheckpointSpec
from harness.suite.parsed import referenced_model
from harness.suite.train import depth_mismatch, head_mismatch
from tasks import Shape


def checkpoint_spec(task_data: TaskData, model: str, seed: int) -> tuple[CheckpointSpec, Blocked]:
    """A model's own checkpoint, before any post-training quantization, and why it cannot be made."""
    resolved = resolve_model(task_data.suite, model, task_data.task, task_data.on_sample)
    if resolved.recipe == "distill":
        return _student(task_data, resolved, model, seed)
    start = _start(task_data, resolved, model, seed)
    blocked, identity, scheme, calibration = start.blocked, start.identity, None, None
    if resolved.recipe == "load":
        scheme, ranges, unreadable = ranges_of(start.source)
        identity, blocked = identity | ranges | _pooling(task_data, start.source), blocked or unreadable
    elif resolved.recipe != "random":
        identity = identity | task_data.train_identity
    if resolved.recipe == "qat":
        scheme, calibration = resolved.scheme, _calibration(task_data, model)
    spec = CheckpointSpec(
        model=model,
        task=task_data.task,
        recipe=resolved.recipe,
        source=start.source,
        seed=0 if resolved.recipe == "load" else seed,
        shape=resolved.shape,
        data=task_data.data,
        architecture=resolved.architecture,
        train=resolved.train,
        scheme=scheme,
        calibration=calibration,
        parent=start.parent,
        identity=identity,
        labels=start.labels,
    )
    return spec, blocked


def _pooling(task_data: TaskData, source: str) -> dict[str, str]:
    """How a similarity makes one vector of a text: `mean` or `cls`, or `own` and a hash of what the model's folder says."""
    facts = task_data.suite.facts(task_data.task)
    if facts is None or facts.kind != "similarity":
        return {}
    declaration = task_data.suite.declaration(task_data.task)
    if declaration and declaration.pooling:
        return {"pooling": declaration.pooling}
    return {"pooling": f"own {pooling_hash(source)}"}


def calibrated(task_data: TaskData, base: CheckpointSpec, scheme: str, seed: int) -> CheckpointSpec:
    """A checkpoint with ranges for a post-training scheme."""
    return replace(
        base,
        recipe="ptq",
        seed=seed,
        architecture=None,
        train=None,
        scheme=scheme,
        calibration=_calibration(task_data),
        parent=base,
        teacher=None,
        distill=None,
        masked_lm=None,
        labels=None,
        identity=task_data.train_identity,
    )


def _calibration(task_data: TaskData, model: str | None = None) -> dict[str, int]:
    """Settings of calibration: those of a QAT model, or of post-training schemes."""
    suite = task_data.suite
    settings = suite.calibration.model_dump()
    if model and (own := suite.models[model].calibration):
        settings |= own.model_dump(exclude_unset=True)
    if task_data.on_sample and suite.sample:
        settings |= suite.sample.calibration.model_dump(exclude_unset=True)
    return settings


@dataclass(frozen=True)
class _Start:
    """What a model is made from: a source with its identity, and for `model:NAME` the checkpoint of that model. labels: the
    names of its classes that replace its own."""

    source: str
    identity: dict[str, str] = field(default_factory=dict)
    parent: CheckpointSpec | None = None
    blocked: Blocked = None
    labels: tuple[str, ...] | None = None


def _start(task_data: TaskData, resolved: ResolvedModel, model: str, seed: int) -> _Start:
    if name := referenced_model(resolved.source):
        parent, blocked = checkpoint_spec(task_data, name, seed)
        return _Start(resolved.source, parent=parent, blocked=blocked or _not_trained(model, parent))
    if resolved.source == "scratch":
        return _Start(resolved.source, blocked=_too_few_words(task_data, resolved, model))
    blocked = None
    if task_data.on_sample and not task_data.suite.sample and resolved.recipe != "random":
        blocked = "the suite names no stand-in model for sample data", "add a [sample] table, or give --data DIR"
    source = _look_up(task_data, resolved.source)
    labels = _labels(task_data, resolved, source)
    blocked = blocked or source.blocked or _unfit(task_data, resolved, model, source, labels or ())
    return _Start(source.source, source.identity, blocked=blocked, labels=labels)


def _not_trained(model: str, start: CheckpointSpec, *, scores: bool = False, kept: bool = False) -> Blocked:
    """Why a model cannot be trained from or by a checkpoint, as far as its source is on this machine."""
    folder = local_folder(start.root.source)
    why = why_not_trained(folder, scores=scores, kept=kept) if folder else None
    return why and (f"{model}: {start.model}: {why[0]}", why[1])


def _too_few_words(task_data: TaskData, resolved: ResolvedModel, model: str) -> Blocked:
    if resolved.recipe != "finetune" or task_data.missing or task_data.data.kind == "sample":
        return None
    return (
        f"{model}: source 'scratch' has the sample's vocabulary, which holds few words of real data",
        "start from a pretrained encoder (hub:ID, package:NAME/FOLDER or a folder)",
    )


def _labels(task_data: TaskData, resolved: ResolvedModel, source: Source) -> tuple[str, ...] | None:
    """The names of a loaded model's classes where they replace its own: those of the model's table, or where its author gave none,
    those of the declared task's table."""
    if resolved.recipe != "load":
        return None
    declared = task_data.suite.task.get(task_data.task)
    folder = folder_of_source(source)
    if not resolved.labels and declared and declared.labels and folder and has_unnamed_classes(folder):
        return declared.labels
    return resolved.labels or None


def _look_up(task_data: TaskData, name: str) -> Source:
    revision = task_data.revisions.get(name)
    return look_up(name, task_data.suite.folder, hub=task_data.hub, revision=revision)


def _unfit(task_data: TaskData, resolved: ResolvedModel, model: str, source: Source, labels: Sequence[str]) -> Blocked:
    """Why a model's files do not fit the task, as far as they are on this machine."""
    folder = folder_of_source(source)
    if folder is None or task_data.missing:
        return None
    facts = task_data.suite.facts(task_data.task)
    kind = facts.kind if facts else None
    wanted = Wanted(task_data.task, kind, task_data.definition if kind else None, resolved.shape)
    unfit = why_unfit(folder, wanted, loads=resolved.recipe == "load", labels=labels)
    return unfit and (f"{model}: {resolved.source} does not fit {task_data.task}: {unfit[0]}", unfit[1])


def _student(task_data: TaskData, resolved: ResolvedModel, model: str, seed: int) -> tuple[CheckpointSpec, Blocked]:
    """Recipe `distill`: a checkpoint for each stage, made from the one before. The general stage knows no task and has the
    suite's first seed, so that all tasks and seeds share it."""
    teacher_name, first_seed = referenced_model(resolved.teacher) or "", task_data.suite.seeds[0]
    teacher, blocked = checkpoint_spec(task_data, teacher_name, seed)
    start = _start(task_data, resolved, model, seed)
    blocked = blocked or start.blocked
    masked_lm, glove = None, dict[str, str]()
    if resolved.augment:
        masked_lm, glove, missing = _masked_lm(task_data, resolved)
        blocked = blocked or missing
    spec = start.parent
    for stage, train in resolved.stages.items():
        first = spec is start.parent
        identity = start.identity if first else {}
        common = CheckpointSpec(
            model=model,
            task=task_data.task,
            recipe="distill",
            source=start.source,
            seed=seed,
            shape=resolved.shape,
            data=task_data.data,
            architecture=resolved.architecture if first else None,
            train=train,
            parent=spec,
            teacher=teacher,
            distill={"stage": stage} | ({"layers": resolved.layers} if first and resolved.layers else {}),
        )
        if stage == "general":
            corpus, missing = corpus_identity(task_data.data)
            blocked = blocked or missing
            spec = replace(
                common,
                task=CORPUS,
                seed=first_seed,
                shape=Shape(resolved.common_length),
                teacher=_as_pretrained(checkpoint_spec(task_data, teacher_name, first_seed)[0]),
                identity={**identity, **corpus},
            )
        else:
            spec = replace(
                common,
                identity={**identity, **glove, **task_data.train_identity},
                distill={**(common.distill or {}), **_task_stage_settings(task_data, resolved, stage)},
                masked_lm=masked_lm,
            )
    assert spec is not None
    return spec, blocked or _student_mismatch(resolved, spec, teacher)


def _task_stage_settings(task_data: TaskData, resolved: ResolvedModel, stage: str) -> dict[str, Any]:
    """What a stage on the task needs beside its training settings."""
    settings: dict[str, Any] = {"temperature": resolved.temperature} if stage == "prediction" else {}
    if resolved.augment:
        augment = {name: value for name, value in resolved.augment.items() if name not in ("masked_lm", "train")}
        if glove := augment.get("glove"):
            augment["glove"] = str((task_data.suite.folder / str(glove)).resolve())
        settings["augment"] = augment
    return settings


def _masked_lm(task_data: TaskData, resolved: ResolvedModel) -> tuple[CheckpointSpec, dict[str, str], Blocked]:
    """The model that proposes words for augmentation, the identity of the file of word vectors, and why one of the two is
    missing."""
    augment = resolved.augment or {}
    source, identity, blocked = "scratch", dict[str, str](), None
    if not (task_data.on_sample and task_data.suite.sample):
        found = _look_up(task_data, str(augment["masked_lm"]))
        source, identity, blocked = found.source, found.identity, found.blocked
        folder = None if augment.get("train") else folder_of_source(found)
        if not blocked and folder and (why := why_no_masked_lm(folder)):
            blocked = f"augment.masked_lm: {why[0]}", why[1]
    glove: dict[str, str] = {}
    if augment.get("glove"):
        path = task_data.suite.folder / str(augment["glove"])
        if path.is_file():
            glove["glove"] = file_hash(path)
        else:
            blocked = blocked or (f"{augment['glove']}: no such file", "download GloVe vectors, or delete key glove")
    train = augment.get("train")
    if train:
        corpus, missing = corpus_identity(task_data.data)
        identity, blocked = identity | corpus, blocked or missing
    spec = CheckpointSpec(
        model="masked-lm",
        task=CORPUS,
        recipe="masked_lm" if train else "pretrained",
        source=source,
        seed=task_data.suite.seeds[0] if train else 0,
        shape=Shape(resolved.common_length),
        data=task_data.data,
        architecture=resolved.augment_architecture if source == "scratch" else None,
        train=train,
        identity=identity,
    )
    return spec, glove, blocked


def _as_pretrained(teacher: CheckpointSpec) -> CheckpointSpec:
    """A teacher before it was fine-tuned on its task; a teacher that started from random weights as it is."""
    root = teacher.root
    if root.source == "scratch":
        return teacher
    return CheckpointSpec(
        model=root.model,
        task=CORPUS,
        recipe="pretrained",
        source=root.source,
        seed=0,
        shape=Shape(0),
        data=root.data,
        identity=_without_data(root.identity),
    )


def _without_data(identity: Mapping[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in (identity or {}).items() if name not in ("train", "data")}


def _student_mismatch(resolved: ResolvedModel, student: CheckpointSpec, teacher: CheckpointSpec) -> Blocked:
    """Why a student's layers or heads do not fit those of its teacher, or the layers that it keeps those of its source, as far
    as these numbers are known before anything is downloaded or trained."""
    first = student
    while first.parent and first.parent.distill and first.parent.model == student.model:
        first = first.parent
    source_depth = depth_of(first.parent or replace(first, distill=None))
    if resolved.layers and source_depth and source_depth % resolved.layers:
        return depth_mismatch(student.model, resolved.layers, source_depth, "its source's")
    scores = bool({"general", "intermediate"} & set(resolved.stages))
    for spec in (teacher, student):
        if why := _not_trained(student.model, spec, scores=scores, kept=spec is student and bool(resolved.layers)):
            return why
    if not scores:
        return None
    depth, teacher_depth = resolved.layers or depth_of(student), depth_of(teacher)
    if depth and teacher_depth and teacher_depth % depth:
        return depth_mismatch(student.model, depth, teacher_depth)
    heads, teacher_heads = sizes_of(student).get(HEADS), sizes_of(teacher).get(HEADS)
    if heads and teacher_heads and heads != teacher_heads:
        return head_mismatch(student.model, heads, teacher_heads)
    return None
