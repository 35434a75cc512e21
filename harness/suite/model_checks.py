"""Checks of a suite's models: sources, recipes, teachers, stages, training settings, and circles of models."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import ValidationError

from backends import FOR_ONNX_FILES
from harness.errors import KeyPath, did_you_mean
from harness.suite.parsed import (
    TomlTable,
    facts_of,
    is_integer,
    is_task,
    known_tasks,
    referenced_model,
    strings,
    subtables,
    table,
    table_array,
)
from harness.suite.problems import Problem, from_pydantic, shown
from harness.suite.scheme_checks import known_schemes, why_untrained
from harness.suite.train import STAGES, TrainSettings, fitting_depths

SOURCES = ("hub", "package", "model", "scratch", "onnx")

QUESTIONS_ONLY = ("doc_stride", "max_query_length")

NO_AUGMENT = "changes the model's distill.augment table, but there is none"

_MOVES_ANSWERS = "augmentation replaces words, which would shift the positions of answers"
_TRAIN_NOTHING = ("load", "random")

_MODEL_ID = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*")

_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")

_PACKAGE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_REQUIRED = {
    "finetune": {"train": "at least learning_rate and epochs"},
    "qat": {"scheme": "the name of the scheme to train with", "train": "at least learning_rate and epochs"},
    "distill": {
        "teacher": "'model:NAME', a model of this suite",
        "train": "at least learning_rate and epochs",
        "distill": f"a table of stages: {', '.join(STAGES)}",
    },
}


_RECIPE_OF = {
    "teacher": ("distill", "has no teacher"),
    "distill": ("distill", "has no stages"),
    "calibration": ("qat", "is not calibrated"),
}


def check_models(data: TomlTable) -> Iterator[Problem]:
    """Every problem of a parsed file's models that its tables alone do not show."""
    for name, model in subtables(data.get("models")):
        yield from _model(data, name, model)
    yield from _circles(data)


def check_task(data: TomlTable, name: str) -> str | None:
    """What is wrong with a task's name anywhere but in `tasks`."""
    if not is_task(data, name):
        return f"unknown task {shown(name)}{did_you_mean(name, known_tasks(data))}"
    tasks = strings(data.get("tasks"))
    if (
        tasks and name not in tasks and all(is_task(data, task) for task in tasks)
    ):  # with an unknown task, that one may be the mistake
        return f"'{name}' is not one of this suite's tasks; add it to tasks, or delete this"
    return None


def _model(data: TomlTable, name: str, model: TomlTable) -> Iterator[Problem]:
    at: KeyPath = ("models", name)
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        yield (
            at,
            "a model name may hold lower-case letters, digits, '.', '_' and '-' only; rename the model",
        )
    source, recipe, scheme = (model.get(key) for key in ("source", "recipe", "scheme"))
    if isinstance(source, str) and (wrong := _source(data, source)):
        yield (*at, "source"), wrong
    yield from _recipe(data, model, at)
    if (
        isinstance(scheme, str)
        and recipe not in ("load", "finetune", "distill", "random")
        and scheme not in known_schemes(data)
    ):
        yield (*at, "scheme"), f"unknown scheme {shown(scheme)}{did_you_mean(scheme, known_schemes(data))}"
    elif isinstance(scheme, str) and recipe == "qat" and (wrong := why_untrained(data, scheme)):
        yield (*at, "scheme"), wrong
    yield from check_architecture(model.get("architecture"), (*at, "architecture"))
    if source == "scratch" and "architecture" not in model:
        yield (*at, "architecture"), "is missing; source 'scratch' needs the sizes of the model"
    if isinstance(source, str) and source != "scratch" and "architecture" in model and recipe != "random":
        yield (
            (*at, "architecture"),
            f"only source 'scratch' needs sizes, {shown(source)} has its own; delete this table, or set recipe = 'random'",
        )
    yield from _stages(data, model, at)
    yield from check_overrides(data, model, at, trains=recipe not in _TRAIN_NOTHING, distills=recipe == "distill")


def _recipe(data: TomlTable, model: TomlTable, at: KeyPath) -> Iterator[Problem]:
    """Keys that the recipe needs, keys that it does not use, and what it is made from."""
    source, recipe = model.get("source"), model.get("recipe")
    if recipe not in ("load", "finetune", "qat", "distill", "random"):
        return
    if recipe in _TRAIN_NOTHING and "train" in model:
        yield (*at, "train"), _trains_nothing(recipe)
    no_folder = source == "scratch" or referenced_model(source) is not None
    if recipe == "load" and no_folder:
        yield (
            (*at, "recipe"),
            f"'load' needs a source with finished weights, which {shown(source)} is not; use 'finetune'",
        )
    elif recipe == "random" and no_folder:
        yield (
            (*at, "source"),
            f"'random' needs a tokenizer; write hub:ID, package:NAME/FOLDER or a folder, not {shown(source)}",
        )
    for key, needed in _REQUIRED.get(recipe, {}).items():
        if key not in model:
            yield (*at, key), f"is missing; recipe '{recipe}' needs {needed}"
    if recipe != "qat" and "scheme" in model:
        yield (
            (*at, "scheme"),
            f"recipe '{recipe}' does not train quantizers; delete this key, or move it to a [[backends]] entry",
        )
    yield from _onnx(data, model, at)
    labels = strings(model.get("labels"))
    if labels and recipe != "load":
        yield (
            (*at, "labels"),
            f"recipe '{recipe}' takes the task's classes; delete this key, or set recipe = 'load'",
        )
    elif len(set(labels)) < len(labels):
        yield (*at, "labels"), "a class is named twice; delete one"
    for key, (user, why) in _RECIPE_OF.items():
        if key in model and recipe != user:
            yield (*at, key), f"recipe '{recipe}' {why}; delete this key, or set recipe = '{user}'"
    models = dict(subtables(data.get("models")))
    for key in ("source", "teacher", "made_from"):
        if table(models.get(referenced_model(model.get(key)) or "")).get("recipe") == "random":
            yield (*at, key), f"{shown(model[key])} has random weights, for speed alone; name a model that was trained"
    if recipe == "qat" and isinstance(source, str):
        parent = models.get(referenced_model(source) or "")
        if referenced_model(source) is None:
            yield (
                (*at, "source"),
                f"'qat' starts from an FP32 model of this suite; write model:NAME, not {shown(source)}",
            )
        elif parent is not None and parent.get("recipe") == "qat":
            yield (*at, "source"), f"{shown(source)} has quantizers already; name the FP32 model that it is made from"
    if recipe == "distill" and isinstance(teacher := model.get("teacher"), str):
        name = referenced_model(teacher)
        if name is None:
            yield (*at, "teacher"), f"must be 'model:NAME', a model of this suite, not {shown(teacher)}"
        elif name not in models:
            yield (*at, "teacher"), f"unknown model {shown(name)}{did_you_mean(name, models)}"


def _trains_nothing(recipe: object) -> str:
    return f"recipe '{recipe}' does not train; delete this table, or set recipe = 'finetune'"


def _onnx(data: TomlTable, model: TomlTable, at: KeyPath) -> Iterator[Problem]:
    """A model that is an ONNX file is used as it is, by its own backend."""
    source, made_from = model.get("source"), model.get("made_from")
    if not isinstance(source, str) or not source.startswith("onnx:"):
        if made_from is not None:
            yield (*at, "made_from"), "only a model with source 'onnx:PATH' has it; delete this key"
        return
    if model.get("recipe") != "load":
        yield (*at, "recipe"), "an ONNX file cannot be trained; set recipe = 'load'"
    names = [entry.get("name") for _, entry in table_array(data.get("backends"))]
    if names and FOR_ONNX_FILES not in names:
        yield (*at, "source"), f"runs on backend '{FOR_ONNX_FILES}'; add a [[backends]] entry of that name"
    if isinstance(made_from, str) and referenced_model(made_from) not in dict(subtables(data.get("models"))):
        yield (*at, "made_from"), f"must be 'model:NAME', a model of this suite, not {shown(made_from)}"


def _stages(data: TomlTable, model: TomlTable, at_model: KeyPath) -> Iterator[Problem]:
    """The stages of recipe `distill`, with the settings that result for each."""
    if model.get("recipe") != "distill" or not isinstance(distill := model.get("distill"), dict):
        return
    at, train = (*at_model, "distill"), table(model.get("train"))
    stages = {stage: distill[stage] for stage in STAGES if isinstance(distill.get(stage), dict)}
    if not stages:
        yield at, f"has no stage; add a table, which may be empty, for one or more of {', '.join(STAGES)}"
    elif "prediction" not in stages and "labels" not in stages:
        yield at, "no stage trains the output layer; add stage prediction, or stage labels to train without a teacher"
    if "temperature" in distill and "prediction" not in stages:
        yield (*at, "temperature"), "only stage 'prediction' uses it; delete this key, or add that stage"
    for stage, changes in stages.items():
        yield from check_train(train, changes, (*at, stage))
    if "layers" in distill and model.get("source") == "scratch":
        yield (
            (*at, "layers"),
            "selects layers of a source with weights; for source 'scratch' set architecture.num_hidden_layers instead",
        )
    yield from _augment(data, table(distill.get("augment")), "labels" in stages, (*at, "augment"))
    yield from _layers(data, model, at_model)


def _augment(data: TomlTable, augment: TomlTable, has_labels_stage: bool, at: KeyPath) -> Iterator[Problem]:
    if isinstance(source := augment.get("masked_lm"), str):
        if referenced_model(source) is not None or source == "scratch":
            yield (*at, "masked_lm"), f"must be hub:ID, package:NAME/FOLDER or a folder, not {shown(source)}"
        elif wrong := _source(data, source):
            yield (*at, "masked_lm"), wrong
    if isinstance(path := augment.get("glove"), str) and (wrong := _below(path)):
        yield (*at, "glove"), wrong
    if isinstance(changes := augment.get("train"), dict):
        yield from check_train({}, changes, (*at, "train"))
    if augment and has_labels_stage:
        yield at, "augmentation needs a teacher to label new examples, and stage 'labels' has none; delete one of them"
    facts = [facts_of(data, task) for task in strings(data.get("tasks"))]
    if augment and facts and all(known and known.kind == "question_answering" for known in facts):
        yield at, f"{_MOVES_ANSWERS}, and all tasks are question answering; delete this table"


def _layers(data: TomlTable, model: TomlTable, at: KeyPath) -> Iterator[Problem]:
    """Student and teacher must have depths that fit, where the file gives both; the plan checks all others."""
    if not {"general", "intermediate"} & set(table(model.get("distill"))):
        return
    models, sample = dict(subtables(data.get("models"))), table(data.get("sample"))
    stand_ins, common = table(sample.get("models")), table(sample.get("model")).get("num_hidden_layers")
    name, teacher = str(at[-1]), referenced_model(model.get("teacher")) or ""
    depths: list[tuple[KeyPath, object, object]] = [
        (at, _depth(model), _depth(table(models.get(teacher)))),
        (
            ("sample", "models", name),
            _depth(table(stand_ins.get(name)), common),
            _depth(table(stand_ins.get(teacher)), common),
        ),
    ]
    for owner, own, teachers in depths:
        if is_integer(own) and is_integer(teachers) and own > 0 and teachers > 0 and teachers % own:
            yield (
                (*owner, "architecture", "num_hidden_layers"),
                f"{shown(own)} layers do not divide the teacher's {shown(teachers)} evenly; use {fitting_depths(teachers)}",
            )


def _depth(model: TomlTable, default: object = None) -> object:
    architecture = table(model.get("architecture"))
    return architecture.get("num_hidden_layers") if architecture else default


def _source(data: TomlTable, source: str) -> str | None:
    """What is wrong with a source."""
    kind, colon, name = source.partition(":")
    if kind == "scratch":
        return "write 'scratch' alone, with nothing after it" if colon else None
    if not colon:
        return _below(source)
    if kind == "onnx":
        return _below(name)
    if kind == "hub":
        repository, at, revision = name.partition("@")
        valid = (
            _MODEL_ID.fullmatch(repository) and len(repository) <= 96 and ".." not in name and "--" not in repository
        )
        if valid and (not at or _REVISION.fullmatch(revision)):
            return None
        return f"{shown(name)} is not a model id; write hub:OWNER/NAME or hub:OWNER/NAME@REVISION"
    if kind == "package":
        package, _, folder = name.partition("/")
        inside = all(part and part not in (".", "..") for part in folder.split("/")) and "\\" not in folder
        if _PACKAGE.fullmatch(package) and inside and folder.isprintable():
            return None
        return f"{shown(name)} is not a folder of a package; write package:NAME/FOLDER, without '..'"
    if kind == "model":
        models = dict(subtables(data.get("models")))
        return None if name in models else f"unknown model {shown(name)}{did_you_mean(name, models)}"
    return f"unknown kind of source '{kind[:40]}:'{did_you_mean(kind, SOURCES)}"


def _below(path: str) -> str | None:
    """What is wrong with the path of a file or folder, which must lie below the suite file's folder."""
    if path.startswith(("/", "~")) or "\\" in path or ".." in path.split("/") or not path.isprintable():
        return f"{shown(path)} is not below the suite file's folder; write a relative path without '..'"
    return None


def check_architecture(value: object, at: KeyPath) -> Iterator[Problem]:
    sizes = table(value)
    hidden, heads = sizes.get("hidden_size"), sizes.get("num_attention_heads")
    if is_integer(hidden) and is_integer(heads) and heads > 0 and hidden % heads:
        yield (
            (*at, "hidden_size"),
            f"{shown(hidden)} is not a multiple of num_attention_heads ({shown(heads)}); change one of them",
        )


def check_overrides(
    data: TomlTable, owner: TomlTable, at_owner: KeyPath, *, trains: bool, distills: bool = False
) -> Iterator[Problem]:
    """The `task` tables of a model or of the sample; trains, distills: whether its recipe does."""
    distill = table(owner.get("distill"))
    for name, override in subtables(owner.get("task")):
        at = (*at_owner, "task", name)
        if wrong := check_task(data, name):
            yield at, wrong
        facts = facts_of(data, name)
        questions = facts is None or facts.kind == "question_answering"
        for key in QUESTIONS_ONLY:
            if key in table(override.get("shape")) and not questions:
                yield (
                    (*at, "shape", key),
                    f"only question answering uses it, and '{name}' is another kind of task; delete this key",
                )
        if isinstance(train := override.get("train"), dict):
            if not trains:
                yield (*at, "train"), _trains_nothing(owner.get("recipe"))
            yield from check_train(table(owner.get("train")), train, (*at, "train"))
        if override.get("augment") and not (distills and distill.get("augment")):
            yield (*at, "augment"), f"{NO_AUGMENT}; delete this table"
        elif override.get("augment") and facts and questions:
            yield (*at, "augment"), f"{_MOVES_ANSWERS}; delete this table"
        if not distills and isinstance(override.get("distill"), dict) and override["distill"]:
            yield (*at, "distill"), "only recipe 'distill' has stages; delete this table"
            continue
        for stage, changes in subtables(override.get("distill")):
            at_stage = (*at, "distill", stage)
            if stage in STAGES and stage not in distill:
                yield at_stage, "the model has no such stage; add it to the model's distill table, or delete this table"
            elif stage in STAGES:
                yield from check_train({**table(owner.get("train")), **table(distill[stage])}, changes, at_stage)


def check_train(base: TomlTable, override: TomlTable, at: KeyPath) -> Iterator[Problem]:
    """Problems of the settings that result from an override, but for those that `base` has without it."""
    try:
        TrainSettings.model_validate({**base, **override})
    except ValidationError as error:
        known: set[Problem] = set()
        try:
            TrainSettings.model_validate(base)
        except ValidationError as base_error:
            known = set(from_pydantic(base_error, TrainSettings, at))
        for problem in from_pydantic(error, TrainSettings, at):
            of_base = len(problem[0]) > len(at) and problem[0][len(at)] not in override
            if problem not in known and not of_base:
                yield problem


def _circles(data: TomlTable) -> Iterator[Problem]:
    """Models that are made from each other, one problem for each circle."""
    models = dict(subtables(data.get("models")))
    made_from: dict[str, list[tuple[str, str]]] = {
        name: [
            (key, target)
            for key in ("source", "teacher")
            if (target := referenced_model(model.get(key))) is not None and target in models
        ]
        for name, model in models.items()
    }
    done: set[str] = set()
    for start in models:
        path: list[str] = []
        pending: list[tuple[str, Iterator[tuple[str, str]]]] = []
        if start not in done:
            path.append(start)
            pending.append((start, iter(made_from[start])))
        while pending:  # a loop, since a file may hold a chain of thousands of models, too long for recursion
            name, references = pending[-1]
            for _, target in references:
                if target in path:
                    circle = path[path.index(target) :]
                    names = " -> ".join([*(f"'{model[:40]}'" for model in circle[:8]), f"'{target[:40]}'"])
                    key = _key_of_reference(made_from, circle)
                    yield ("models", circle[0], key), f"models form a circle: {names}; name another model here"
                elif target not in done:
                    path.append(target)
                    pending.append((target, iter(made_from[target])))
                    break
            else:
                pending.pop()
                path.pop()
                done.add(name)


def _key_of_reference(made_from: dict[str, list[tuple[str, str]]], circle: list[str]) -> str:
    """The key by which a circle's first model names its second."""
    second = circle[1] if len(circle) > 1 else circle[0]
    return next(key for key, target in made_from[circle[0]] if target == second)
