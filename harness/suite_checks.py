"""What a suite file says, checked for sense: names that must exist, keys that exclude each other, models in a circle.

These checks read the parsed file itself and pass over what is not well-formed (the forms of `harness.suite` tell that), so
that one run tells everything: a misspelt key hides no impossible combination.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeGuard

from pydantic import ValidationError

from backends import Backend, BackendError, backend_names, get_backend
from backends.fake_quant.schemes import get_scheme, scheme_names
from harness.cells import MLPERF_STREAMS
from harness.suite_problems import Problem, Where, from_pydantic, shown, suggest
from harness.training.settings import TrainSettings
from tasks import Shape, task_facts, task_names

Raw = Mapping[str, Any]
SOURCES = ("hub", "package", "model", "scratch")
QUESTIONS_ONLY = ("doc_stride", "max_query_length")
_HUB = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*")
_PACKAGE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check(data: Raw) -> Iterator[Problem]:
    """Every problem of sense in a parsed file."""
    yield from _tasks(data)
    yield from _duplicates(data, ("seeds",))
    yield from _duplicates(data, ("shape", "batch_sizes"))
    yield from _duplicates(data, ("sample", "batch_sizes"))
    for place in (("measure",), ("sample", "measure")):
        yield from _duplicates(data, (*place, "scenarios"))
        yield from _duplicates(data, (*place, "loads"))
    yield from _measure(data)
    for name, model in _tables(data.get("models")):
        yield from _model(data, name, model)
    yield from _circles(data)
    yield from _shapes(data)
    yield from _backends(data)
    yield from _references(data)
    yield from _sample(data)


def _table(value: object) -> Raw:
    return value if isinstance(value, dict) else {}


def _tables(value: object) -> list[tuple[str, Raw]]:
    return [(key, entry) for key, entry in _table(value).items() if isinstance(entry, dict)]


def _rows(value: object) -> list[tuple[int, Raw]]:
    return [(i, entry) for i, entry in enumerate(value) if isinstance(entry, dict)] if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, list) else []


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _duplicates(data: Raw, where: tuple[str, ...]) -> Iterator[Problem]:
    value: Any = data
    for key in where:
        value = _table(value).get(key)
    if not isinstance(value, list):
        return
    seen: dict[tuple[type, object], int] = {}
    for index, entry in enumerate(value):
        if isinstance(entry, int | str):
            first = seen.setdefault((type(entry), entry), index)
            if first != index:
                yield (*where, index), f"{shown(entry)} is there twice; delete one"


def _measure(data: Raw) -> Iterator[Problem]:
    """A profile against the settings beside it, scenarios against the batch sizes they need."""
    measure = _table(data.get("measure"))
    own = _table(_table(data.get("sample")).get("measure"))
    mlperf = measure.get("profile") == "mlperf"
    for name in ("min_duration", "min_queries", "server_latency_ms"):
        if mlperf and name in measure:
            yield ("measure", name), "profile 'mlperf' takes MLPerf's own; delete it, or set profile = 'quick'"
    if own.get("profile") == "mlperf":
        yield ("sample", "measure", "profile"), "the sample is always measured with 'quick'; delete it"
    scenarios = _texts(own.get("scenarios", measure.get("scenarios")))
    for place, table, needs in (
        (("shape", "batch_sizes"), measure, MLPERF_STREAMS if mlperf else 2),
        (("sample", "batch_sizes"), {"scenarios": scenarios}, 2),
    ):
        sizes = _table(data.get(place[0])).get("batch_sizes")
        known = [size for size in sizes if _is_number(size)] if isinstance(sizes, list) else []
        if "multi_stream" in _texts(table.get("scenarios")) and known and max(known) < needs:
            yield place, f"'multi_stream' asks for several samples at once; add a size of at least {needs}"
    for name, table in (("measure", measure), ("sample", own)):
        if "server_latency_ms" in table and "server" not in _texts(table.get("scenarios", measure.get("scenarios"))):
            where: Where = ("measure",) if name == "measure" else ("sample", "measure")
            yield (*where, "server_latency_ms"), "only 'server' has a bound; add it to scenarios, or delete this"


def _tasks(data: Raw) -> Iterator[Problem]:
    tasks = data.get("tasks")
    for index, name in enumerate(tasks if isinstance(tasks, list) else ()):
        if isinstance(name, str) and not _is_task(name):
            yield ("tasks", index), f"unknown task {shown(name)}{suggest(name, task_names())}"
    yield from _duplicates(data, ("tasks",))


def _is_task(name: str) -> bool:
    return task_facts(name) is not None or name in task_names()  # in this order: the second looks through all packages


def _task_of_suite(data: Raw, name: str) -> str | None:
    """What is wrong with a task's name away from `tasks`."""
    if not _is_task(name):
        return f"unknown task {shown(name)}{suggest(name, task_names())}"
    tasks = _texts(data.get("tasks"))
    if tasks and name not in tasks and all(map(_is_task, tasks)):  # else the mistake may well be there
        return f"'{name}' is not one of this suite's tasks; add it to tasks, or delete this"
    return None


def _model(data: Raw, name: str, model: Raw) -> Iterator[Problem]:
    here: Where = ("models", name)
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        yield here, "a model's name is made of small letters, digits, '.', '_', '-': it goes into file names"
    source, recipe = model.get("source"), model.get("recipe")
    if isinstance(source, str) and (wrong := _source(data, source)):
        yield (*here, "source"), wrong
    if recipe == "load":
        if "train" in model:
            yield (*here, "train"), "recipe 'load' trains nothing; delete it, or set recipe = 'finetune'"
        if source == "scratch" or (isinstance(source, str) and source.startswith("model:")):
            yield (
                (*here, "recipe"),
                f"'load' uses weights as they are, which {shown(source)} has none of; use 'finetune'",
            )
    if recipe == "finetune" and "train" not in model:
        yield (*here, "train"), "is missing: recipe 'finetune' needs at least learning_rate and epochs"
    if recipe in ("load", "finetune") and "scheme" in model:
        yield (
            (*here, "scheme"),
            f"recipe '{recipe}' does not train quantizers; a post-training scheme belongs to a [[backends]] entry",
        )
    elif isinstance(scheme := model.get("scheme"), str) and scheme not in scheme_names():
        yield (*here, "scheme"), f"unknown scheme {shown(scheme)}{suggest(scheme, scheme_names())}"
    yield from _architecture(model.get("architecture"), (*here, "architecture"))
    if source == "scratch" and "architecture" not in model:
        yield (*here, "architecture"), "is missing: source 'scratch' needs the sizes of the model"
    if isinstance(source, str) and source != "scratch" and "architecture" in model:
        yield (*here, "architecture"), f"only source 'scratch' takes sizes; {shown(source)} brings its own"
    yield from _overrides(data, model, here, trains=recipe != "load")


def _source(data: Raw, source: str) -> str | None:
    kind, colon, rest = source.partition(":")
    if kind == "scratch":
        return "'scratch' takes nothing after it" if colon else None
    if not colon:
        if source.startswith(("/", "~")) or "\\" in source or ".." in source.split("/") or not source.isprintable():
            return f"a folder must lie below the suite file's own, without '..': {shown(source)}"
        return None
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
        models = [name for name, _ in _tables(data.get("models"))]
        return None if rest in models else f"unknown model {shown(rest)}{suggest(rest, models)}"
    return f"unknown kind of source '{kind[:40]}:'{suggest(kind, SOURCES)}"


def _architecture(value: object, here: Where) -> Iterator[Problem]:
    sizes = _table(value)
    hidden, heads = sizes.get("hidden_size"), sizes.get("num_attention_heads")
    if _is_number(hidden) and _is_number(heads) and heads > 0 and hidden % heads:
        yield (*here, "hidden_size"), f"{shown(hidden)} is not a multiple of num_attention_heads, {shown(heads)}"


def _overrides(data: Raw, model: Raw, here: Where, *, trains: bool) -> Iterator[Problem]:
    """Of a model or of the stand-in, by task."""
    for name, override in _tables(model.get("task")):
        at = (*here, "task", name)
        if wrong := _task_of_suite(data, name):
            yield at, wrong
        facts = task_facts(name)
        if facts and facts.kind != "question_answering":
            for key in QUESTIONS_ONLY:
                if key in _table(override.get("shape")):
                    yield (*at, "shape", key), f"only question answering has it; '{name}' does not: delete it"
        if isinstance(train := override.get("train"), dict):
            if not trains:
                yield (*at, "train"), "recipe 'load' trains nothing; delete it, or set recipe = 'finetune'"
            yield from _train(_table(model.get("train")), train, (*at, "train"))


def _train(base: Raw, override: Raw, at: Where) -> Iterator[Problem]:
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
    models = dict(_tables(data.get("models")))
    ancestor = {
        name: source.removeprefix("model:")
        for name, model in models.items()
        if isinstance(source := model.get("source"), str) and source.startswith("model:")
    }
    told: set[str] = set()
    for start in ancestor:
        way: list[str] = []
        name = start
        while name in ancestor and name not in way and name not in told:
            way.append(name)
            name = ancestor[name]
        if name in way:
            circle = way[way.index(name) :]
            words = " -> ".join([*(f"'{one[:40]}'" for one in circle[:8]), f"'{name[:40]}'"])
            yield ("models", circle[0], "source"), f"models go in a circle: {words}"
        told.update(way)


def _shapes(data: Raw) -> Iterator[Problem]:
    tasks = _texts(data.get("tasks"))
    facts = {name: task_facts(name) for name in tasks}
    questions = [name for name, found in facts.items() if found is None or found.kind == "question_answering"]
    for place, table in (("shape", _table(data.get("shape"))), ("sample", _table(data.get("sample")))):
        if tasks and not questions:
            for key in QUESTIONS_ONLY:
                if key in table:
                    yield (place, key), "only question answering has it, and none of the tasks does: delete it"
    told: set[Problem] = set()
    owners: list[tuple[Where, Where, Raw, Raw]] = [
        (("shape",), ("models", name), _table(data.get("shape")), model) for name, model in _tables(data.get("models"))
    ]
    if "sample" in data:
        owners.append((("sample",), ("sample",), _table(data["sample"]), _table(data["sample"])))
    for common_at, owner_at, common, owner in owners:
        for task in questions:
            override = _table(_table(_table(owner.get("task")).get(task)).get("shape"))
            for problem in _shape(common, common_at, override, (*owner_at, "task", task, "shape")):
                if problem not in told:
                    told.add(problem)
                    yield problem


def _shape(common: Raw, common_at: Where, override: Raw, override_at: Where) -> Iterator[Problem]:
    """The tokens of a window: the overlap and the question must leave room for context."""
    merged = {**{one.name: one.default for one in fields(Shape)}, **common, **override}
    longest = merged.get("max_length")
    if not _is_number(longest) or longest < 8:
        return
    stride, query = merged.get("doc_stride"), merged.get("max_query_length")
    given = {**common, **override}

    def at(key: str) -> Where:
        return (*(override_at if key in override else common_at), key)

    if _is_number(stride) and stride >= longest:
        default = "" if "doc_stride" in given else " (the default)"
        yield (
            at("doc_stride"),
            f"{shown(stride)}{default} must be below max_length, {shown(longest)}: windows must overlap",
        )
    if "max_query_length" in given and _is_number(query) and query + 3 >= longest:
        yield (
            at("max_query_length"),
            f"{shown(query)} and 3 special tokens leave no room for context in max_length, {shown(longest)}",
        )


def _backends(data: Raw) -> Iterator[Problem]:
    from harness.suite import BackendEntry, label

    entries = _rows(data.get("backends"))
    names = [entry["name"] for _, entry in entries if isinstance(entry.get("name"), str)]
    seen: dict[str, int] = {}
    rows: dict[str, int] = {}
    for index, entry in entries:
        here: Where = ("backends", index)
        name, own, scheme = (entry.get(key) for key in ("name", "label", "scheme"))
        extras = {key: value for key, value in entry.items() if key not in BackendEntry.model_fields}
        backend = _backend(name)
        if backend is None or not isinstance(name, str):
            if isinstance(name, str):
                yield (*here, "name"), f"unknown backend {shown(name)}{suggest(name, backend_names())}"
            for key in extras:
                if (near := suggest(key, BackendEntry.model_fields)).startswith("; did"):
                    yield (*here, key), f"unknown key{near}"
            continue
        yield from _options(backend, extras, here)
        yield from _scheme(backend, entry, here)
        same = repr((name, scheme, sorted(extras.items(), key=str)))
        if seen.setdefault(same, index) != index:
            yield here, f"'{name}' with the same scheme and options is there twice; delete one"
            continue
        called = label(name, own if isinstance(own, str) else None, scheme if isinstance(scheme, str) else None, names)
        if rows.setdefault(called, index) != index:
            yield (*here, "label"), f"two entries are called {shown(called)}; give this one a label of its own"
    baseline = data.get("baseline")
    if isinstance(baseline, str) and entries and baseline not in rows:
        count = names.count(baseline)
        if not count:
            yield ("baseline",), f"{shown(baseline)} is not one of the backends{suggest(baseline, [*rows, *names])}"
        elif count > 1:
            yield (
                ("baseline",),
                f"{count} entries of [[backends]] are {shown(baseline)}; name one by its label: {', '.join(rows)}",
            )


def _backend(name: object) -> Backend | None:
    try:
        return get_backend(name) if isinstance(name, str) else None
    except BackendError:
        return None


def _options(backend: Backend, extras: Raw, here: Where) -> Iterator[Problem]:
    for key, value in extras.items():
        if key not in backend.options:
            known = ["name", "scheme", "label", *backend.options]
            yield (*here, key), f"unknown key; '{backend.name}' has no such option{suggest(key, known)}"
        elif not _fits(value, backend.options[key]):
            yield (*here, key), f"must be of type {backend.options[key].__name__}, not {shown(value)}"


def _fits(value: object, kind: type) -> bool:
    return type(value) is kind or (kind is float and _is_number(value))


def _scheme(backend: Backend, entry: Raw, here: Where) -> Iterator[Problem]:
    if "scheme" not in entry:
        if backend.quantizes == "static":
            known = [name for name in scheme_names() if _takes(backend, name)]
            yield (*here, "scheme"), f"is missing: '{backend.name}' quantizes with a scheme; known: {', '.join(known)}"
        return
    at, scheme = (*here, "scheme"), entry["scheme"]
    if backend.quantizes == "no":
        yield at, f"'{backend.name}' does not quantize; delete it"
    elif backend.quantizes == "dynamic":
        yield at, f"'{backend.name}' quantizes dynamically, by each batch's own ranges; delete it"
    elif isinstance(scheme, str):
        if scheme not in scheme_names():
            yield at, f"unknown scheme {shown(scheme)}{suggest(scheme, scheme_names())}"
        elif not _takes(backend, scheme):
            fitting = [name for name in scheme_names() if _takes(backend, name)]
            yield (
                at,
                f"'{scheme}' is asymmetric, and '{backend.name}' takes symmetric schemes only: {', '.join(fitting)}",
            )


def _takes(backend: Backend, scheme: str) -> bool:
    return get_scheme(scheme).activation_symmetric or not backend.symmetric_only


def _references(data: Raw) -> Iterator[Problem]:
    for index, row in _rows(data.get("references")):
        here: Where = ("references", index)
        task = row.get("task")
        if not isinstance(task, str):
            continue
        if wrong := _task_of_suite(data, task):
            yield (*here, "task"), wrong
        facts = task_facts(task)
        for metric in _table(row.get("metrics")) if facts else ():
            if facts and metric not in facts.metrics:
                yield (*here, "metrics", metric), f"'{task}' has no such metric{suggest(metric, facts.metrics)}"


def _sample(data: Raw) -> Iterator[Problem]:
    sample = data.get("sample")
    if isinstance(sample, dict):
        yield from _architecture(sample.get("model"), ("sample", "model"))
        yield from _overrides(data, sample, ("sample",), trains=True)
    elif data.get("data") == "sample" and "sample" not in data:
        for name in foreign(data):
            yield (
                ("models", name, "source"),
                "generated data needs source 'scratch' here, or a [sample] table with a model that stands in",
            )


def foreign(data: Raw) -> Sequence[str]:
    """Models whose weights and words do not come from the sample."""
    return [
        name
        for name, model in _tables(data.get("models"))
        if isinstance(source := model.get("source"), str) and source != "scratch" and not source.startswith("model:")
    ]
