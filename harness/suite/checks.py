"""What a suite file says, checked for sense: names that must exist, keys that exclude each other, models in a circle.

These checks read the parsed file itself and pass over what is not well-formed (the forms of `harness.suite.tables` tell that), so
that one run tells everything: a misspelt key hides no impossible combination.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from pydantic import ValidationError

from backends import Backend, BackendError, backend_names, get_backend
from backends.fake_quant.schemes import get_scheme, scheme_names
from harness.errors import Where, did_you_mean
from harness.suite.measure import MLPERF_STREAMS
from harness.suite.model_checks import (
    QUESTIONS_ONLY,
    check_architecture,
    check_models,
    check_overrides,
    check_train,
    task_of_suite,
)
from harness.suite.problems import Problem, from_pydantic, shown
from harness.suite.raw import Raw, is_number, is_task, rows, table, tables, texts
from harness.suite.train import STAGES, Augment
from tasks import Shape, task_facts, task_names


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
    yield from check_models(data)
    yield from _shapes(data)
    yield from _backends(data)
    yield from _references(data)
    yield from _sample(data)


def _duplicates(data: Raw, where: tuple[str, ...]) -> Iterator[Problem]:
    value: Any = data
    for key in where:
        value = table(value).get(key)
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
    measure = table(data.get("measure"))
    own = table(table(data.get("sample")).get("measure"))
    mlperf = measure.get("profile") == "mlperf"
    for name in ("min_duration", "min_queries", "server_latency_ms"):
        if mlperf and name in measure:
            yield ("measure", name), "profile 'mlperf' takes MLPerf's own; delete it, or set profile = 'quick'"
    if own.get("profile") == "mlperf":
        yield ("sample", "measure", "profile"), "the sample is always measured with 'quick'; delete it"
    scenarios = texts(own.get("scenarios", measure.get("scenarios")))
    for place, of, needs in (
        (("shape", "batch_sizes"), measure, MLPERF_STREAMS if mlperf else 2),
        (("sample", "batch_sizes"), {"scenarios": scenarios}, 2),
    ):
        sizes = table(data.get(place[0])).get("batch_sizes")
        known = [size for size in sizes if is_number(size)] if isinstance(sizes, list) else []
        if "multi_stream" in texts(of.get("scenarios")) and known and max(known) < needs:
            yield place, f"'multi_stream' asks for several samples at once; add a size of at least {needs}"
    for name, of in (("measure", measure), ("sample", own)):
        if "server_latency_ms" in of and "server" not in texts(of.get("scenarios", measure.get("scenarios"))):
            where: Where = ("measure",) if name == "measure" else ("sample", "measure")
            yield (*where, "server_latency_ms"), "only 'server' has a bound; add it to scenarios, or delete this"


def _tasks(data: Raw) -> Iterator[Problem]:
    tasks = data.get("tasks")
    for index, name in enumerate(tasks if isinstance(tasks, list) else ()):
        if isinstance(name, str) and not is_task(name):
            yield ("tasks", index), f"unknown task {shown(name)}{did_you_mean(name, task_names())}"
    yield from _duplicates(data, ("tasks",))


def _shapes(data: Raw) -> Iterator[Problem]:
    tasks = texts(data.get("tasks"))
    facts = {name: task_facts(name) for name in tasks}
    questions = [name for name, found in facts.items() if found is None or found.kind == "question_answering"]
    for place, given in (("shape", table(data.get("shape"))), ("sample", table(data.get("sample")))):
        if tasks and not questions:
            for key in QUESTIONS_ONLY:
                if key in given:
                    yield (place, key), "only question answering has it, and none of the tasks does: delete it"
    told: set[Problem] = set()
    owners: list[tuple[Where, Where, Raw, Raw]] = [
        (("shape",), ("models", name), table(data.get("shape")), model) for name, model in tables(data.get("models"))
    ]
    if "sample" in data:
        owners.append((("sample",), ("sample",), table(data["sample"]), table(data["sample"])))
    for common_at, owner_at, common, owner in owners:
        for task in questions:
            override = table(table(table(owner.get("task")).get(task)).get("shape"))
            for problem in _shape(common, common_at, override, (*owner_at, "task", task, "shape")):
                if problem not in told:
                    told.add(problem)
                    yield problem


def _shape(common: Raw, common_at: Where, override: Raw, override_at: Where) -> Iterator[Problem]:
    """The tokens of a window: the overlap and the question must leave room for context."""
    merged = {**{one.name: one.default for one in fields(Shape)}, **common, **override}
    longest = merged.get("max_length")
    if not is_number(longest) or longest < 8:
        return
    stride, query = merged.get("doc_stride"), merged.get("max_query_length")
    given = {**common, **override}

    def at(key: str) -> Where:
        return (*(override_at if key in override else common_at), key)

    if is_number(stride) and stride >= longest:
        default = "" if "doc_stride" in given else " (the default)"
        yield (
            at("doc_stride"),
            f"{shown(stride)}{default} must be below max_length, {shown(longest)}: windows must overlap",
        )
    if "max_query_length" in given and is_number(query) and query + 3 >= longest:
        yield (
            at("max_query_length"),
            f"{shown(query)} and 3 special tokens leave no room for context in max_length, {shown(longest)}",
        )


def _backends(data: Raw) -> Iterator[Problem]:
    from harness.suite.tables import BackendEntry, label

    entries = rows(data.get("backends"))
    names = [entry["name"] for _, entry in entries if isinstance(entry.get("name"), str)]
    seen: dict[str, int] = {}
    called_at: dict[str, int] = {}
    for index, entry in entries:
        here: Where = ("backends", index)
        name, own, scheme = (entry.get(key) for key in ("name", "label", "scheme"))
        extras = {key: value for key, value in entry.items() if key not in BackendEntry.model_fields}
        backend = _backend(name)
        if backend is None or not isinstance(name, str):
            if isinstance(name, str):
                yield (*here, "name"), f"unknown backend {shown(name)}{did_you_mean(name, backend_names())}"
            for key in extras:
                if (near := did_you_mean(key, BackendEntry.model_fields)).startswith("; did"):
                    yield (*here, key), f"unknown key{near}"
            continue
        yield from _options(backend, extras, here)
        yield from _scheme(backend, entry, here)
        same = repr((name, scheme, sorted(extras.items(), key=str)))
        if seen.setdefault(same, index) != index:
            yield here, f"'{name}' with the same scheme and options is there twice; delete one"
            continue
        called = label(name, own if isinstance(own, str) else None, scheme if isinstance(scheme, str) else None, names)
        if called_at.setdefault(called, index) != index:
            yield (*here, "label"), f"two entries are called {shown(called)}; give this one a label of its own"
    baseline = data.get("baseline")
    if isinstance(baseline, str) and entries and baseline not in called_at:
        count = names.count(baseline)
        if not count:
            yield (
                ("baseline",),
                f"{shown(baseline)} is not one of the backends{did_you_mean(baseline, [*called_at, *names])}",
            )
        elif count > 1:
            yield (
                ("baseline",),
                f"{count} entries of [[backends]] are {shown(baseline)}; name one by its label: {', '.join(called_at)}",
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
            yield (*here, key), f"unknown key; '{backend.name}' has no such option{did_you_mean(key, known)}"
        elif not _fits(value, backend.options[key]):
            yield (*here, key), f"must be of type {backend.options[key].__name__}, not {shown(value)}"


def _fits(value: object, kind: type) -> bool:
    return type(value) is kind or (kind is float and is_number(value))


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
            yield at, f"unknown scheme {shown(scheme)}{did_you_mean(scheme, scheme_names())}"
        elif not _takes(backend, scheme):
            fitting = [name for name in scheme_names() if _takes(backend, name)]
            yield at, f"{misfit(backend, scheme)}: {', '.join(fitting)}"


def _takes(backend: Backend, scheme: str) -> bool:
    return not misfit(backend, scheme)


def misfit(backend: Backend, scheme: str) -> str:
    """Why a backend cannot compute what a scheme says; empty where it can."""
    found = get_scheme(scheme)
    if found.simulation_only and not backend.simulated:
        return f"no engine computes '{scheme}' ({found.simulation_only}), and '{backend.name}' takes what engines do"
    if backend.symmetric_only and not found.activation_symmetric:
        return f"'{scheme}' is asymmetric, and '{backend.name}' takes symmetric schemes only"
    return ""


def _references(data: Raw) -> Iterator[Problem]:
    for index, row in rows(data.get("references")):
        here: Where = ("references", index)
        task = row.get("task")
        if not isinstance(task, str):
            continue
        if wrong := task_of_suite(data, task):
            yield (*here, "task"), wrong
        facts = task_facts(task)
        for metric in table(row.get("metrics")) if facts else ():
            if facts and metric not in facts.metrics:
                yield (*here, "metrics", metric), f"'{task}' has no such metric{did_you_mean(metric, facts.metrics)}"


def _sample(data: Raw) -> Iterator[Problem]:
    sample = data.get("sample")
    if isinstance(sample, dict):
        yield from check_architecture(sample.get("model"), ("sample", "model"))
        yield from check_overrides(data, sample, ("sample",), trains=True)
        models = dict(tables(data.get("models")))
        for name, own in tables(sample.get("models")):
            at: Where = ("sample", "models", name)
            if name not in models:
                yield at, f"unknown model{did_you_mean(name, models)}"
                continue
            yield from check_architecture(own.get("architecture"), (*at, "architecture"))
            if isinstance(train := own.get("train"), dict):
                yield from check_train(table(sample.get("train")), train, (*at, "train"))
            stages = table(models[name].get("distill"))
            for stage, changes in tables(own.get("distill")):
                place = (*at, "distill", stage)
                if stage == "augment":
                    yield from _augment(table(stages.get("augment")), changes, table(sample.get("train")), place)
                elif stage in STAGES and stage not in stages:
                    yield place, "the model does not run this stage; delete it"
                elif stage in STAGES:
                    base = {**table(sample.get("train")), **table(own.get("train"))}
                    yield from check_train(base, changes, place)
    elif data.get("data") == "sample" and "sample" not in data:
        for name in foreign(data):
            yield (
                ("models", name, "source"),
                "generated data needs source 'scratch' here, or a [sample] table with a model that stands in",
            )


def _augment(given: Raw, changes: Raw, base: Raw, at: Where) -> Iterator[Problem]:
    """What replaces a model's augmentation on the sample."""
    if not given:
        yield at, "the model makes up no examples; delete it"
        return
    own = {name: value for name, value in changes.items() if name != "train"}
    try:
        Augment.model_validate({"masked_lm": "scratch", **own})
    except ValidationError as error:
        yield from from_pydantic(error, Augment, at)
    if isinstance(train := changes.get("train"), dict):
        yield from check_train(base, train, (*at, "train"))


def foreign(data: Raw) -> Sequence[str]:
    """Models whose weights and words do not come from the sample."""
    return [
        name
        for name, model in tables(data.get("models"))
        if isinstance(source := model.get("source"), str) and source != "scratch" and not source.startswith("model:")
    ]
