"""What a suite file says of its models, checked for sense: sources, recipes, teachers, circles, settings of training."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import ValidationError

from backends.fake_quant.schemes import scheme_names
from harness.errors import Where, did_you_mean
from harness.suite.problems import Problem, from_pydantic, shown
from harness.suite.raw import Raw, is_number, is_task, model_named, table, tables, texts
from harness.suite.train import STAGES, TrainSettings
from tasks import task_facts, task_names

SOURCES = ("hub", "package", "model", "scratch")


QUESTIONS_ONLY = ("doc_stride", "max_query_length")


_HUB = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*")


_PACKAGE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


_NEEDS = {
    "finetune": {"train": "learning_rate and epochs"},
    "qat": {"scheme": "the quantizers that it trains", "train": "learning_rate and epochs"},
    "distill": {
        "teacher": "model:NAME, the model that the student is made like",
        "train": "learning_rate and epochs",
        "distill": f"a table that names its stages: {', '.join(STAGES)}",
    },
}


_ONLY = {
    "teacher": ("distill", "has no teacher"),
    "distill": ("distill", "has no stages"),
    "calibration": ("qat", "has no ranges to begin with"),
}


def check_models(data: Raw) -> Iterator[Problem]:
    """Every problem of sense in the models of a parsed file."""
    for name, model in tables(data.get("models")):
        yield from _model(data, name, model)
    yield from _circles(data)


def task_of_suite(data: Raw, name: str) -> str | None:
    """What is wrong with a task's name away from `tasks`."""
    if not is_task(name):
        return f"unknown task {shown(name)}{did_you_mean(name, task_names())}"
    tasks = texts(data.get("tasks"))
    if tasks and name not in tasks and all(map(is_task, tasks)):  # else the mistake may well be there
        return f"'{name}' is not one of this suite's tasks; add it to tasks, or delete this"
    return None


def _model(data: Raw, name: str, model: Raw) -> Iterator[Problem]:
    here: Where = ("models", name)
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        yield here, "a model's name is made of small letters, digits, '.', '_', '-': it goes into file names"
    source, recipe = model.get("source"), model.get("recipe")
    if isinstance(source, str) and (wrong := _source(data, source)):
        yield (*here, "source"), wrong
    yield from _recipe(data, model, here)
    scheme = model.get("scheme")
    if isinstance(scheme, str) and recipe not in ("load", "finetune", "distill") and scheme not in scheme_names():
        yield (*here, "scheme"), f"unknown scheme {shown(scheme)}{did_you_mean(scheme, scheme_names())}"
    yield from check_architecture(model.get("architecture"), (*here, "architecture"))
    if source == "scratch" and "architecture" not in model:
        yield (*here, "architecture"), "is missing: source 'scratch' needs the sizes of the model"
    if isinstance(source, str) and source != "scratch" and "architecture" in model:
        yield (*here, "architecture"), f"only source 'scratch' takes sizes; {shown(source)} brings its own"
    yield from _stages(data, model, here)
    yield from check_overrides(data, model, here, trains=recipe != "load", stages=recipe == "distill")


def _recipe(data: Raw, model: Raw, here: Where) -> Iterator[Problem]:
    """Keys that a recipe needs, and those that it has no use for."""
    source, recipe = model.get("source"), model.get("recipe")
    if recipe not in ("load", "finetune", "qat", "distill"):
        return
    if recipe == "load":
        if "train" in model:
            yield (*here, "train"), "recipe 'load' trains nothing; delete it, or set recipe = 'finetune'"
        if source == "scratch" or model_named(source) is not None:
            yield (
                (*here, "recipe"),
                f"'load' uses weights as they are, which {shown(source)} has none of; use 'finetune'",
            )
    for key, what in _NEEDS.get(recipe, {}).items():
        if key not in model:
            if key == "train":
                yield (*here, key), f"is missing: recipe '{recipe}' needs at least {what}"
            else:
                yield (*here, key), f"is missing: recipe '{recipe}' needs {what}"
    if recipe != "qat" and "scheme" in model:
        yield (
            (*here, "scheme"),
            f"recipe '{recipe}' does not train quantizers; a post-training scheme belongs to a [[backends]] entry",
        )
    for key, (of, why) in _ONLY.items():
        if key in model and recipe != of:
            yield (*here, key), f"recipe '{recipe}' {why}; delete it, or set recipe = '{of}'"
    models = dict(tables(data.get("models")))
    if recipe == "qat" and isinstance(source, str):
        parent = models.get(model_named(source) or "")
        if model_named(source) is None:
            yield (
                (*here, "source"),
                f"'qat' starts from an FP32 model of this suite; write model:NAME, not {shown(source)}",
            )
        elif parent is not None and parent.get("recipe") == "qat":
            yield (*here, "source"), f"{shown(source)} has quantizers of its own; name the FP32 model it was made from"
    if recipe == "distill" and isinstance(teacher := model.get("teacher"), str):
        wanted = model_named(teacher)
        if wanted is None:
            yield (*here, "teacher"), f"must be model:NAME of this suite, not {shown(teacher)}"
        elif wanted not in models:
            yield (*here, "teacher"), f"unknown model {shown(wanted)}{did_you_mean(wanted, models)}"


def _stages(data: Raw, model: Raw, here: Where) -> Iterator[Problem]:
    """Of recipe `distill`: the settings that each stage ends up with."""
    if model.get("recipe") != "distill" or not isinstance(given := model.get("distill"), dict):
        return
    at, base = (*here, "distill"), table(model.get("train"))
    if not any(isinstance(given.get(stage), dict) for stage in STAGES):
        yield at, f"names no stage; a table for one or more of {', '.join(STAGES)}, empty where train says all"
    elif not any(isinstance(given.get(stage), dict) for stage in ("prediction", "labels")):
        yield at, "no stage trains the head that answers; add prediction, or labels for one without a teacher"
    if "temperature" in given and not isinstance(given.get("prediction"), dict):
        yield (*at, "temperature"), "is of stage 'prediction' alone, which is not there; delete it"
    for stage in STAGES:
        if isinstance(changes := given.get(stage), dict):
            yield from check_train(base, changes, (*at, stage))
    if "layers" in given and model.get("source") == "scratch":
        yield (
            (*at, "layers"),
            "keeps layers of a source that has weights; for 'scratch' give architecture.num_hidden_layers",
        )
    augment = table(given.get("augment"))
    if isinstance(words := augment.get("masked_lm"), str):
        if model_named(words) is not None or words == "scratch":
            yield (*at, "augment", "masked_lm"), f"must be hub:ID, package:NAME/FOLDER or a folder, not {shown(words)}"
        elif wrong := _source(data, words):
            yield (*at, "augment", "masked_lm"), wrong
    if isinstance(path := augment.get("glove"), str) and (wrong := _below(path)):
        yield (*at, "augment", "glove"), wrong
    if isinstance(changes := augment.get("train"), dict):
        yield from check_train({}, changes, (*at, "augment", "train"))
    if augment and isinstance(given.get("labels"), dict):
        yield (
            (*at, "augment"),
            "makes up examples for a teacher to answer, which stage 'labels' has not; delete one of them",
        )
    facts = [task_facts(task) for task in texts(data.get("tasks"))]
    if augment and facts and all(one and one.kind == "question_answering" for one in facts):
        yield (*at, "augment"), "exchanges words, which would move answers, and all tasks are questions; delete it"
    yield from _layers(data, model, here)


def _layers(data: Raw, model: Raw, here: Where) -> Iterator[Problem]:
    """Where the file says how deep student and teacher are: of what else is deeper the recipe tells it."""
    if not {"general", "intermediate"} & set(table(model.get("distill"))):
        return
    models, sample = dict(tables(data.get("models"))), table(data.get("sample"))
    teacher = model_named(model.get("teacher")) or ""
    stand_ins = table(sample.get("models"))
    depths: list[tuple[Where, object, object]] = [
        ((*here, "architecture", "num_hidden_layers"), _depth(model), _depth(table(models.get(teacher)))),
        (
            ("sample", "models", here[-1], "architecture", "num_hidden_layers"),
            _depth(table(stand_ins.get(str(here[-1]))), sample),
            _depth(table(stand_ins.get(teacher)), sample),
        ),
    ]
    for place, mine, theirs in depths:
        if is_number(mine) and is_number(theirs) and mine > 0 and theirs % mine:
            yield place, f"{shown(mine)} layers do not divide the teacher's {shown(theirs)}: no uniform map fits"


def _depth(model: Raw, sample: Raw | None = None) -> object:
    own = table(model.get("architecture"))
    return (own or table((sample or {}).get("model"))).get("num_hidden_layers")


def _source(data: Raw, source: str) -> str | None:
    kind, colon, rest = source.partition(":")
    if kind == "scratch":
        return "'scratch' takes nothing after it" if colon else None
    if not colon:
        return _below(source)
    if kind == "hub":
        fits = _HUB.fullmatch(rest) and len(rest) <= 96 and ".." not in rest and "--" not in rest
        return None if fits else f"not the id of a model on the hub: {shown(rest)}; write hub:OWNER/NAME"
    if kind == "package":
        package, _, folder = rest.partition("/")
        clean = all(part and part not in (".", "..") for part in folder.split("/")) and "\\" not in folder
        if _PACKAGE.fullmatch(package) and clean and folder.isprintable():
            return None
        return f"not a folder of a package: {shown(rest)}; write package:NAME/FOLDER, without '..'"
    if kind == "model":
        models = [name for name, _ in tables(data.get("models"))]
        return None if rest in models else f"unknown model {shown(rest)}{did_you_mean(rest, models)}"
    return f"unknown kind of source '{kind[:40]}:'{did_you_mean(kind, SOURCES)}"


def _below(path: str) -> str | None:
    if path.startswith(("/", "~")) or "\\" in path or ".." in path.split("/") or not path.isprintable():
        return f"a folder must lie below the suite file's own, without '..': {shown(path)}"
    return None


def check_architecture(value: object, here: Where) -> Iterator[Problem]:
    sizes = table(value)
    hidden, heads = sizes.get("hidden_size"), sizes.get("num_attention_heads")
    if is_number(hidden) and is_number(heads) and heads > 0 and hidden % heads:
        yield (*here, "hidden_size"), f"{shown(hidden)} is not a multiple of num_attention_heads, {shown(heads)}"


def check_overrides(data: Raw, model: Raw, here: Where, *, trains: bool, stages: bool = False) -> Iterator[Problem]:
    """Of a model or of the stand-in, by task."""
    for name, override in tables(model.get("task")):
        at = (*here, "task", name)
        if wrong := task_of_suite(data, name):
            yield at, wrong
        facts = task_facts(name)
        if facts and facts.kind != "question_answering":
            for key in QUESTIONS_ONLY:
                if key in table(override.get("shape")):
                    yield (*at, "shape", key), f"only question answering has it; '{name}' does not: delete it"
        if isinstance(train := override.get("train"), dict):
            if not trains:
                yield (*at, "train"), "recipe 'load' trains nothing; delete it, or set recipe = 'finetune'"
            yield from check_train(table(model.get("train")), train, (*at, "train"))
        given = table(model.get("distill"))
        if override.get("augment") and not (stages and given.get("augment")):
            yield (*at, "augment"), "the model makes up no examples: it has no distill.augment; delete this"
        elif override.get("augment") and facts and facts.kind == "question_answering":
            yield (*at, "augment"), "exchanges words, which would move answers; delete it"
        if isinstance(changes := override.get("distill"), dict):
            for stage, own in tables(changes):
                place = (*at, "distill", stage)
                if not stages:
                    yield (*at, "distill"), "only recipe 'distill' has stages; delete it"
                    break
                if stage in STAGES and stage not in given:
                    yield place, "the model does not run this stage; name it in its distill table, or delete this"
                elif stage in STAGES:
                    yield from check_train({**table(model.get("train")), **table(given[stage])}, own, place)


def check_train(base: Raw, override: Raw, at: Where) -> Iterator[Problem]:
    """What an override makes of the settings; what is wrong without it was told where it stands."""
    try:
        TrainSettings.model_validate({**base, **override})
    except ValidationError as error:
        known: set[Problem] = set()
        try:
            TrainSettings.model_validate(base)
        except ValidationError as before:
            known = set(from_pydantic(before, TrainSettings, at))
        for problem in from_pydantic(error, TrainSettings, at):
            told = len(problem[0]) > len(at) and problem[0][len(at)] not in override
            if problem not in known and not told:
                yield problem


def _circles(data: Raw) -> Iterator[Problem]:
    """Models that are made from each other, a line for each circle."""
    models = dict(tables(data.get("models")))
    made_from: dict[str, list[tuple[str, str]]] = {
        name: [
            (key, target)
            for key in ("source", "teacher")
            if (target := model_named(model.get(key))) is not None and target in models
        ]
        for name, model in models.items()
    }
    done: set[str] = set()
    for start in models:
        way: list[str] = []
        pending: list[tuple[str, Iterator[tuple[str, str]]]] = []
        if start not in done:
            way.append(start)
            pending.append((start, iter(made_from[start])))
        while pending:  # no recursion: a file may hold a chain of thousands
            name, edges = pending[-1]
            for _, target in edges:
                if target in way:
                    circle = way[way.index(target) :]
                    words = " -> ".join([*(f"'{one[:40]}'" for one in circle[:8]), f"'{target[:40]}'"])
                    yield ("models", circle[0], _edge(made_from, circle)), f"models go in a circle: {words}"
                elif target not in done:
                    way.append(target)
                    pending.append((target, iter(made_from[target])))
                    break
            else:
                pending.pop()
                way.pop()
                done.add(name)


def _edge(made_from: dict[str, list[tuple[str, str]]], circle: list[str]) -> str:
    """The key by which a circle's first model is made from its second."""
    following = circle[1] if len(circle) > 1 else circle[0]
    return next(key for key, target in made_from[circle[0]] if target == following)
