"""Checks of a whole suite file: names must exist, keys must not exclude each other, models must not form a circle.

They read the parsed file itself and skip values of the wrong type, which `harness.suite.tables` reports. So one run reports every
problem: a misspelt key hides no impossible combination.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from pydantic import ValidationError

from harness.errors import KeyPath, did_you_mean
from harness.suite.backend_checks import check_backends
from harness.suite.measure import LEAST_ADAPTIVE, MLPERF_STREAMS, MOST_TIMES
from harness.suite.model_checks import (
    NO_AUGMENT,
    QUESTIONS_ONLY,
    check_architecture,
    check_models,
    check_overrides,
    check_task,
    check_train,
)
from harness.suite.parsed import (
    TomlTable,
    facts_of,
    is_integer,
    is_task,
    known_tasks,
    strings,
    subtables,
    table,
    table_array,
)
from harness.suite.problems import Problem, from_pydantic, shown
from harness.suite.scheme_checks import check_schemes
from harness.suite.task_checks import check_declared_tasks, check_similarities
from harness.suite.train import STAGES, Augment
from tasks import Shape


def check(data: TomlTable) -> Iterator[Problem]:
    """Every problem of a parsed file that its tables alone do not show."""
    yield from _tasks(data)
    yield from check_declared_tasks(data)
    yield from check_similarities(data)
    yield from check_schemes(data)
    for keys in (("seeds",), ("shape", "batch_sizes"), ("sample", "batch_sizes")):
        yield from _duplicates(data, keys)
    for keys in (("measure",), ("sample", "measure")):
        yield from _duplicates(data, (*keys, "scenarios"))
        yield from _duplicates(data, (*keys, "loads"))
    yield from _measure(data)
    yield from check_models(data)
    yield from _shapes(data)
    yield from check_backends(data)
    yield from _references(data)
    yield from _sample(data)


def _duplicates(data: TomlTable, keys: tuple[str, ...]) -> Iterator[Problem]:
    values: Any = data
    for key in keys:
        values = table(values).get(key)
    if not isinstance(values, list):
        return
    first_use: dict[tuple[type, object], int] = {}
    for index, value in enumerate(values):
        if isinstance(value, int | str) and first_use.setdefault((type(value), value), index) != index:
            yield (*keys, index), f"{shown(value)} is listed twice; delete one"


def _measure(data: TomlTable) -> Iterator[Problem]:
    """A profile must agree with the settings beside it, and scenarios with the batch sizes."""
    measure = table(data.get("measure"))
    on_sample = table(table(data.get("sample")).get("measure"))
    mlperf = measure.get("profile") == "mlperf"
    for name in ("min_duration", "min_queries", "server_latency_ms"):
        if mlperf and name in measure:
            yield (
                ("measure", name),
                "profile 'mlperf' uses MLPerf's own value; delete this key, or set profile = 'quick'",
            )
    if on_sample.get("profile") == "mlperf":
        yield ("sample", "measure", "profile"), "the sample is always measured with 'quick'; delete this key"
    scenarios = strings(measure.get("scenarios"))
    sample_scenarios = strings(on_sample.get("scenarios", measure.get("scenarios")))
    for owner, names, smallest in (
        ("shape", scenarios, MLPERF_STREAMS if mlperf else 2),
        ("sample", sample_scenarios, 2),
    ):
        sizes = table(data.get(owner)).get("batch_sizes")
        known = [size for size in sizes if is_integer(size)] if isinstance(sizes, list) else []
        if "multi_stream" in names and known and max(known) < smallest:
            yield (
                (owner, "batch_sizes"),
                f"scenario 'multi_stream' needs a batch size of at least {smallest}; add one",
            )
    tables: list[tuple[KeyPath, TomlTable, list[str]]] = [
        (("measure",), measure, scenarios),
        (("sample", "measure"), on_sample, sample_scenarios),
    ]
    for keys, settings, names in tables:
        yield from _max_rounds(keys, settings)
        if "server_latency_ms" in settings and "server" not in names:
            yield (
                (*keys, "server_latency_ms"),
                "only scenario 'server' has a latency bound; add it to scenarios, or delete this key",
            )


def _max_rounds(keys: KeyPath, settings: TomlTable) -> Iterator[Problem]:
    most, rounds = settings.get("max_rounds"), settings.get("rounds", 0)
    if not is_integer(most) or not is_integer(rounds):
        return
    if rounds < LEAST_ADAPTIVE:
        yield (
            (*keys, "max_rounds"),
            f"the median of a few rounds has no interval; set rounds to {LEAST_ADAPTIVE} or more, or delete this key",
        )
    elif not rounds <= most <= MOST_TIMES * rounds:
        yield (
            (*keys, "max_rounds"),
            f"{most} is not between rounds and {MOST_TIMES} times as many ({rounds} to {MOST_TIMES * rounds}); change it",
        )


def _tasks(data: TomlTable) -> Iterator[Problem]:
    tasks = data.get("tasks")
    for index, name in enumerate(tasks if isinstance(tasks, list) else ()):
        if isinstance(name, str) and not is_task(data, name):
            yield ("tasks", index), f"unknown task {shown(name)}{did_you_mean(name, known_tasks(data))}"
    yield from _duplicates(data, ("tasks",))


def _shapes(data: TomlTable) -> Iterator[Problem]:
    """Windows must fit, for every question answering task of every model and of the sample."""
    tasks = strings(data.get("tasks"))
    facts = {name: facts_of(data, name) for name in tasks}
    questions = [name for name, known in facts.items() if known is None or known.kind == "question_answering"]
    common, sample = table(data.get("shape")), table(data.get("sample"))
    if tasks and not questions:
        for name, settings in (("shape", common), ("sample", sample)):
            for key in QUESTIONS_ONLY:
                if key in settings:
                    yield (
                        (name, key),
                        "only question answering uses it, and no task of the suite is of that kind; delete this key",
                    )
    owners: list[tuple[KeyPath, TomlTable, KeyPath, TomlTable]] = [
        (("shape",), common, ("models", name), model) for name, model in subtables(data.get("models"))
    ]
    if "sample" in data:
        owners.append((("sample",), sample, ("sample",), sample))
    reported: set[Problem] = set()
    for common_at, settings, owner_at, owner in owners:
        for task in questions:
            override = table(table(table(owner.get("task")).get(task)).get("shape"))
            if facts[task] is None and not set(QUESTIONS_ONLY) & {*settings, *override}:
                continue  # a package's task that does not say its kind may have no windows
            for problem in _window(settings, common_at, override, (*owner_at, "task", task, "shape")):
                if problem not in reported:
                    reported.add(problem)
                    yield problem


def _window(common: TomlTable, common_at: KeyPath, override: TomlTable, override_at: KeyPath) -> Iterator[Problem]:
    """Within a window of max_length tokens, the overlap and the question must leave room for context."""
    given = {**common, **override}
    shape = {**{field.name: field.default for field in fields(Shape)}, **given}
    longest = shape.get("max_length")
    if not is_integer(longest) or longest < 8:
        return
    stride, query = shape.get("doc_stride"), shape.get("max_query_length")

    def at(key: str) -> KeyPath:
        return (*(override_at if key in override else common_at), key)

    if is_integer(stride) and stride >= longest:
        default = "" if "doc_stride" in given else " (the default)"
        yield (
            at("doc_stride"),
            f"{shown(stride)}{default} must be below max_length ({shown(longest)}), so that windows overlap; lower it",
        )
    if "max_query_length" in given and is_integer(query) and query + 3 >= longest:
        yield (
            at("max_query_length"),
            f"{shown(query)} and 3 special tokens leave no room for context in max_length ({shown(longest)}); lower it",
        )


def _references(data: TomlTable) -> Iterator[Problem]:
    for index, reference in table_array(data.get("references")):
        at: KeyPath = ("references", index)
        task = reference.get("task")
        if not isinstance(task, str):
            continue
        if wrong := check_task(data, task):
            yield (*at, "task"), wrong
        facts = facts_of(data, task)
        for metric in table(reference.get("metrics")) if facts else ():
            if facts and metric not in facts.metrics:
                yield (*at, "metrics", metric), f"'{task}' has no such metric{did_you_mean(metric, facts.metrics)}"


def _sample(data: TomlTable) -> Iterator[Problem]:
    sample = data.get("sample")
    if isinstance(sample, dict):
        yield from check_architecture(sample.get("model"), ("sample", "model"))
        yield from check_overrides(data, sample, ("sample",), trains=True)
        models = dict(subtables(data.get("models")))
        for name, stand_in in subtables(sample.get("models")):
            at: KeyPath = ("sample", "models", name)
            if name in models:
                yield from _stand_in(models[name], stand_in, table(sample.get("train")), at)
            else:
                yield at, f"unknown model{did_you_mean(name, models)}"
    elif data.get("data") == "sample" and "sample" not in data:
        for name in _models_from_elsewhere(data):
            yield (
                ("models", name, "source"),
                "data = 'sample' needs source 'scratch', or a [sample] table that gives the model's sizes and training",
            )


def _stand_in(model: TomlTable, stand_in: TomlTable, train: TomlTable, at: KeyPath) -> Iterator[Problem]:
    """What the sample changes for one model; train: the settings of [sample.train]."""
    yield from check_architecture(stand_in.get("architecture"), (*at, "architecture"))
    if isinstance(own_train := stand_in.get("train"), dict):
        yield from check_train(train, own_train, (*at, "train"))
    stages = table(model.get("distill"))
    for stage, changes in subtables(stand_in.get("distill")):
        at_stage = (*at, "distill", stage)
        if stage == "augment":
            yield from _augment(table(stages.get("augment")), changes, train, at_stage)
        elif stage in STAGES and stage not in stages:
            yield at_stage, "the model has no such stage; delete this table"
        elif stage in STAGES:
            yield from check_train({**train, **table(own_train)}, changes, at_stage)


def _augment(augment: TomlTable, changes: TomlTable, train: TomlTable, at: KeyPath) -> Iterator[Problem]:
    """What the sample changes in a model's augmentation."""
    if not augment:
        yield at, f"{NO_AUGMENT}; delete this table"
        return
    try:
        Augment.model_validate({"masked_lm": "scratch", **{key: changes[key] for key in changes if key != "train"}})
    except ValidationError as error:
        yield from from_pydantic(error, Augment, at)
    if isinstance(own_train := changes.get("train"), dict):
        yield from check_train(train, own_train, (*at, "train"))
    elif "train" in changes:
        yield (*at, "train"), f"must be a table of training settings, not {shown(own_train)}"


def _models_from_elsewhere(data: TomlTable) -> Sequence[str]:
    """Models whose weights come from elsewhere."""
    return [
        name
        for name, model in subtables(data.get("models"))
        if isinstance(source := model.get("source"), str)
        and not (source == "scratch" or source.startswith("model:") or model.get("recipe") == "random")
    ]
