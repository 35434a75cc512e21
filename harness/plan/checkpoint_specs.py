"""Which checkpoints a model of a suite needs on a task, and why one cannot be had task_data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.machine.digests import file_hash
from harness.plan.data import Blocked, TaskData
from harness.plan.resolve import ResolvedModel, resolve_model
from harness.plan.sources import HEADS, corpus_identity, depth_of, look_up, ranges_of, sizes_of
from harness.plan.spec import CORPUS, CheckpointSpec
from harness.suite.parsed import referenced_model
from harness.suite.train import depth_mismatch
from tasks import Shape


def checkpoint_spec(task_data: TaskData, model: str, seed: int) -> tuple[CheckpointSpec, Blocked]:
    """A model's own checkpoint, before any post-training quantization, and why it cannot be had task_data."""
    way = resolve_model(task_data.suite, model, task_data.task, task_data.on_sample)
    if way.recipe == "distill":
        return _student(task_data, way, model, seed)
    source, identity, parent, blocked = _begin(task_data, way, seed)
    trains = way.recipe != "load"
    qat = way.recipe == "qat"
    brought = None
    if not trains:
        brought, ranges, unread = ranges_of(source)
        identity, blocked = identity | ranges, blocked or unread
    spec = CheckpointSpec(
        model=model,
        task=task_data.task,
        recipe=way.recipe,
        source=source,
        seed=seed if trains else 0,
        shape=way.shape,
        data=task_data.data,
        architecture=way.architecture,
        train=way.train if trains else None,
        scheme=way.scheme if qat else brought,
        calibration=_calibration(task_data, model) if qat else None,
        parent=parent,
        identity=identity | (_split_identity(task_data) if trains else {}),
    )
    return spec, blocked


def _begin(
    task_data: TaskData, way: ResolvedModel, seed: int
) -> tuple[str, dict[str, str], CheckpointSpec | None, Blocked]:
    """Where a model's weights come from: source, its identity, the checkpoint it is made from, why it cannot be had."""
    if parent_name := referenced_model(way.source):
        parent, blocked = checkpoint_spec(task_data, parent_name, seed)
        return way.source, {}, parent, blocked
    blocked = None
    if task_data.on_sample and not task_data.suite.sample and way.source != "scratch":
        blocked = (
            "the suite names no model that stands in on the sample",
            "add a [sample] table, or give --data DIR",
        )
    if way.source == "scratch":
        return way.source, {}, None, blocked
    found = look_up(way.source, task_data.suite.folder, hub=task_data.hub, revision=task_data.revisions.get(way.source))
    return found.source, found.identity, None, blocked or found.blocked


def _student(task_data: TaskData, way: ResolvedModel, model: str, seed: int) -> tuple[CheckpointSpec, Blocked]:
    """Recipe `distill`: a checkpoint a stage, each made from the one before. The general one knows no task and no
    seed but the suite's first, so that all tasks and seeds share it."""
    name, first_seed = referenced_model(way.teacher) or "", task_data.suite.seeds[0]
    teacher, blocked = checkpoint_spec(task_data, name, seed)
    source, identity, parent, missing = _begin(task_data, way, seed)
    blocked = blocked or missing
    masked_lm, words = None, dict[str, str]()
    if way.augment:
        masked_lm, words, missing = _masked_lm(task_data, way)
        blocked = blocked or missing
    spec = parent
    for stage, train in way.stages.items():
        first = spec is parent
        begun = CheckpointSpec(
            model=model,
            task=task_data.task,
            recipe="distill",
            source=source,
            seed=seed,
            shape=way.shape,
            data=task_data.data,
            architecture=way.architecture if first else None,
            train=train,
            parent=spec,
            identity=identity if first else {},
            teacher=teacher,
            distill={"stage": stage} | ({"layers": way.layers} if first and way.layers else {}),
        )
        if stage == "general":
            corpus, missing = corpus_identity(task_data.data)
            blocked = blocked or missing
            spec = replace(
                begun,
                task=CORPUS,
                seed=first_seed,
                shape=Shape(way.common_length),
                teacher=_pretrained(checkpoint_spec(task_data, name, first_seed)[0]),
                identity={**(begun.identity or {}), **corpus},
            )
        else:
            spec = replace(
                begun,
                identity={**(begun.identity or {}), **words, **_split_identity(task_data)},
                distill={**(begun.distill or {}), **_on_task(task_data, way, stage)},
                masked_lm=masked_lm,
            )
    assert spec is not None
    return spec, blocked or _no_map(way, spec, teacher)


def _on_task(task_data: TaskData, way: ResolvedModel, stage: str) -> dict[str, Any]:
    """What a stage on the task has beside its training settings."""
    found: dict[str, Any] = {"temperature": way.temperature} if stage == "prediction" else {}
    if way.augment:
        found["augment"] = {name: value for name, value in way.augment.items() if name not in ("masked_lm", "train")}
        if glove := way.augment.get("glove"):
            found["augment"]["glove"] = str((task_data.suite.folder / str(glove)).resolve())
    return found


def _masked_lm(task_data: TaskData, way: ResolvedModel) -> tuple[CheckpointSpec, dict[str, str], Blocked]:
    """The model that proposes words, the identity of a file of vectors, and why one of them cannot be had."""
    augment = way.augment or {}
    source, identity, blocked = "scratch", dict[str, str](), None
    if not (task_data.on_sample and task_data.suite.sample):
        name = str(augment["masked_lm"])
        found = look_up(name, task_data.suite.folder, hub=task_data.hub, revision=task_data.revisions.get(name))
        source, identity, blocked = found.source, found.identity, found.blocked
    words: dict[str, str] = {}
    if augment.get("glove"):
        path = task_data.suite.folder / str(augment["glove"])
        if path.is_file():
            words["glove"] = file_hash(path)
        else:
            blocked = blocked or (
                f"{augment['glove']}: there is no such file",
                "download GloVe vectors, or delete the key",
            )
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
        shape=Shape(way.common_length),
        data=task_data.data,
        architecture=way.augment_architecture if source == "scratch" else None,
        train=train,
        identity=identity,
    )
    return spec, words, blocked


def _calibration(task_data: TaskData, model: str | None = None) -> dict[str, int]:
    """Of a QAT model, which may have its own; else of post-training ranges."""
    settings = task_data.suite.calibration.model_dump()
    if model and (own := task_data.suite.models[model].calibration):
        settings |= own.model_dump(exclude_unset=True)
    if task_data.on_sample and task_data.suite.sample:
        settings |= task_data.suite.sample.calibration.model_dump(exclude_unset=True)
    return settings


def calibrated(task_data: TaskData, base: CheckpointSpec, scheme: str, seed: int) -> CheckpointSpec:
    """Post-training ranges on top of a checkpoint."""
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
        identity=_split_identity(task_data),
    )


def _split_identity(task_data: TaskData) -> dict[str, str]:
    """What training and calibration read."""
    if task_data.identity is None:
        return {"data": "unknown"}
    return {name: split.sha256 for name, split in task_data.identity.splits.items() if name == "train"}


def _pretrained(teacher: CheckpointSpec) -> CheckpointSpec:
    """A teacher before it learned its task; where it was never anything else (random weights), itself."""
    root = teacher
    while root.parent:
        root = root.parent
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
        identity=_of_weights(root.identity),
    )


def _no_map(way: ResolvedModel, student: CheckpointSpec, teacher: CheckpointSpec) -> Blocked:
    """That no uniform map leads from the student's layers to the teacher's, or from its source's layers to those that it keeps,
    and that attention heads are not as many, where all this is known already."""
    first = student
    while first.parent and first.parent.distill and first.parent.model == student.model:
        first = first.parent
    whole = depth_of(first.parent or replace(first, distill=None))
    if way.layers and whole and whole % way.layers:
        return depth_mismatch(student.model, way.layers, whole, "its source's")
    if not {"general", "intermediate"} & set(way.stages):
        return None
    mine, theirs = way.layers or depth_of(student), depth_of(teacher)
    if mine and theirs and theirs % mine:
        return depth_mismatch(student.model, mine, theirs)
    heads, wanted = (sizes_of(one).get(HEADS) for one in (student, teacher))
    if heads and wanted and heads != wanted:
        return (
            f"{student.model}: it has {heads} attention heads and its teacher {wanted}, whose scores are compared one by one",
            f"give it {wanted}",
        )
    return None


def _of_weights(identity: Mapping[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in (identity or {}).items() if name not in ("train", "data")}
