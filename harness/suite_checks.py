"""What no single key of a suite file shows: names that must be known, and combinations that cannot be."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from pydantic import ValidationError

from backends import BackendError, backend_names, get_backend
from backends.fake_quant.schemes import get_scheme, scheme_names
from harness.suite import ARCHITECTURE, NAME, SuiteTable, dotted
from harness.training.settings import TrainSettings
from tasks import task_names

Problem = tuple[str, str]


def check(content: dict[str, Any], table: SuiteTable | None) -> Iterator[Problem]:
    """Problems of the file beyond the types of its keys. `table` is None when those have problems already: then the names
    that can be read from `content` are checked all the same."""
    yield from _names(content)
    yield from _graph(content)
    if table is None:
        return
    yield from _lists(table)
    yield from _models(table)
    yield from _backends(table)
    yield from _shape(table)
    yield from _references(table)
    yield from _sample(table)


def _unknown(where: str, what: str, value: object, known: Sequence[str]) -> Problem:
    near = difflib.get_close_matches(str(value), known, 1)
    return where, f"unknown {what} '{value}'; " + (f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(content: dict[str, Any]) -> Iterator[Problem]:
    for index, name in enumerate(_list(content.get("tasks"))):
        if isinstance(name, str) and name not in task_names():
            yield _unknown(dotted(["tasks", index]), "task", name, task_names())
    for index, entry in enumerate(_list(content.get("backends"))):
        name, scheme = _dict(entry).get("name"), _dict(entry).get("scheme")
        if isinstance(name, str) and name not in backend_names():
            yield _unknown(dotted(["backends", index, "name"]), "backend", name, backend_names())
        if isinstance(scheme, str) and scheme not in scheme_names():
            yield _unknown(dotted(["backends", index, "scheme"]), "scheme", scheme, scheme_names())
    for name in _dict(content.get("models")):
        if not re.fullmatch(NAME, name):
            yield dotted(["models", name]), "a model's name goes into file names: lower-case letters, digits, '.', '_' and '-'"


def _graph(content: dict[str, Any]) -> Iterator[Problem]:
    models = _dict(content.get("models"))
    sources = {name: str(_dict(entry).get("source", "")) for name, entry in models.items()}
    for name, source in sources.items():
        where = dotted(["models", name, "source"])
        kind, _, rest = source.partition(":")
        if kind == "model":
            if rest not in models:
                yield _unknown(where, "model", rest, list(models))
            seen, here = [name], rest
            while here in sources and sources[here].startswith("model:") and here not in seen:
                seen.append(here)
                here = sources[here].removeprefix("model:")
            if here == name:
                yield where, f"models form a cycle: {' -> '.join([*seen, name])}"
        elif kind == "hub":
            if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", rest):
                yield where, f"'{rest}' is no id of the hub; write hub:OWNER/NAME"
        elif kind == "package":
            package, _, folder = rest.partition("/")
            if not re.fullmatch(r"[A-Za-z_]\w*", package) or not _inside(folder):
                yield where, f"'{rest}' is no folder in a package; write package:NAME/SUBDIR"
        elif source and source != "scratch" and (":" in source or not _inside(source)):
            yield where, f"'{source}' is none of hub:ID, package:NAME/SUBDIR, model:NAME, scratch, or a folder below this file's"


def _inside(folder: str) -> bool:
    path = PurePosixPath(folder)
    return bool(folder) and not path.is_absolute() and ".." not in path.parts and "\\" not in folder


def _lists(table: SuiteTable) -> Iterator[Problem]:
    for key, values in (("tasks", table.tasks), ("seeds", table.seeds), ("shape.batch_sizes", table.shape.batch_sizes)):
        for value in sorted({str(one) for one in values if values.count(one) > 1}):  # type: ignore[arg-type]
            yield key, f"{value} stands twice"
    for index, seed in enumerate(table.seeds):
        if not 0 <= seed < 2**32:
            yield f"seeds[{index}]", f"a seed is from 0 to {2**32 - 1}, not {seed}"
    for index, size in enumerate(table.shape.batch_sizes):
        if not 1 <= size <= 65536:
            yield f"shape.batch_sizes[{index}]", f"a batch has from 1 to 65536 samples, not {size}"


def _train(where: str, settings: dict[str, Any]) -> Iterator[Problem]:
    try:
        TrainSettings.model_validate(settings)
    except ValidationError as error:
        for entry in error.errors():
            place = ".".join([where, *(str(part) for part in entry["loc"])])
            if entry["type"] == "extra_forbidden":
                known = list(TrainSettings.model_fields)
                near = difflib.get_close_matches(str(entry["loc"][-1]), known, 1)
                yield place, "unknown key; " + (f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}")
            elif entry["type"] == "missing":
                yield place, "is missing"
            else:
                yield place, f"{entry['msg'][0].lower()}{entry['msg'][1:]}, not {entry['input']!r}"


def _sizes(where: str, sizes: dict[str, int]) -> Iterator[Problem]:
    for name, value in sizes.items():
        if name not in ARCHITECTURE:
            yield _unknown(f"{where}.{name}", "size", name, ARCHITECTURE)
        elif not 1 <= value <= 65536:
            yield f"{where}.{name}", f"must be from 1 to 65536, not {value}"
    lacking = [name for name in ARCHITECTURE if name not in sizes]
    if lacking:
        yield where, f"needs {', '.join(lacking)}"
    elif sizes["num_attention_heads"] > 0 and sizes["hidden_size"] % sizes["num_attention_heads"]:
        yield where, f"hidden_size {sizes['hidden_size']} is no multiple of num_attention_heads {sizes['num_attention_heads']}"


def _models(table: SuiteTable) -> Iterator[Problem]:
    for name, model in table.models.items():
        where = dotted(["models", name])
        if model.scheme is not None:
            yield f"{where}.scheme", f"a model's scheme is for quantization-aware training; with recipe '{model.recipe}' give it to a backend"
        if model.recipe == "load":
            if model.train or any(one.train for one in model.task.values()):
                yield f"{where}.train", "recipe 'load' does not train; use 'finetune' or remove it"
            if model.source.startswith("model:"):
                yield f"{where}.source", "recipe 'load' of another model of this suite is that model; use 'finetune'"
        else:
            yield from _train(f"{where}.train", model.train)
            for task, entry in model.task.items():
                yield from _train(f"{where}.{dotted(['task', task, 'train'])}", model.train | entry.train)
        for task, entry in model.task.items():
            if task not in table.tasks:
                yield _unknown(f"{where}.{dotted(['task', task])}", "task of this suite", task, table.tasks)
            if task == "squad_v1" and entry.max_length and table.shape.doc_stride and entry.max_length <= table.shape.doc_stride + 3:
                yield f"{where}.{dotted(['task', task])}.max_length", f"must leave room for windows beyond shape.doc_stride {table.shape.doc_stride}"
        if model.source == "scratch":
            yield from _sizes(f"{where}.architecture", model.architecture or {})
        elif model.architecture:
            yield f"{where}.architecture", "sizes come with the weights; only source 'scratch' takes them"


def _backends(table: SuiteTable) -> Iterator[Problem]:
    rows: dict[str, int] = {}
    baseline = [entry.name for entry in table.backends]
    if table.baseline not in baseline:
        yield _unknown("baseline", "backend of this suite", table.baseline, baseline)
    labels = label_rows(table)
    for index, entry in enumerate(table.backends):
        where = f"backends[{index}]"
        if labels.count(labels[index]) > 1 and labels.index(labels[index]) != index:
            yield where, f"the row '{labels[index]}' stands twice; remove one or give it a label of its own"
        try:
            backend = get_backend(entry.name)
        except BackendError:
            continue  # said by _names
        except ImportError:
            rows.setdefault(entry.name, index)
            continue
        if entry.scheme is None and backend.quantizes == "static":
            yield f"{where}.scheme", f"{entry.name} needs a scheme; known: {', '.join(scheme_names())}"
        if entry.scheme is not None and backend.quantizes != "static":
            yield f"{where}.scheme", f"{entry.name} takes no scheme; remove it"
        if entry.scheme in scheme_names() and backend.symmetric_only and not get_scheme(str(entry.scheme)).activation_symmetric:
            yield f"{where}.scheme", f"{entry.name} takes symmetric schemes only; '{entry.scheme}' has asymmetric activations"
        for key, value in (entry.model_extra or {}).items():
            kind = backend.options.get(key)
            known = ["name", "scheme", "label", *backend.options]
            if kind is None:
                yield _unknown(f"{where}.{key}", "key", key, known)
            elif type(value) is not kind:
                yield f"{where}.{key}", f"must be {kind.__name__}, not {value!r}"


def label_rows(table: SuiteTable) -> list[str]:
    """What each backend entry's row is called: its label, or its name, with the scheme where entries share a name."""
    names = [entry.name for entry in table.backends]
    return [
        entry.label or (f"{entry.name} {entry.scheme}" if names.count(entry.name) > 1 and entry.scheme else entry.name)
        for entry in table.backends
    ]


def _shape(table: SuiteTable) -> Iterator[Problem]:
    shape, squad = table.shape, "squad_v1" in table.tasks
    for key in ("doc_stride", "max_query_length"):
        if getattr(shape, key) is not None and not squad:
            yield f"shape.{key}", "is SQuAD's, and this suite has no task squad_v1; remove it"
    if squad and shape.doc_stride is not None and shape.doc_stride >= shape.max_length:
        yield "shape.doc_stride", f"must be less than max_length {shape.max_length}: windows would leave gaps, not {shape.doc_stride}"
    if squad and (shape.max_query_length or 64) + 3 >= shape.max_length:
        yield "shape.max_query_length", f"leaves no room for a context within max_length {shape.max_length}"


def _references(table: SuiteTable) -> Iterator[Problem]:
    for index, entry in enumerate(table.references):
        if entry.task is not None and entry.task not in table.tasks:
            yield _unknown(f"references[{index}].task", "task of this suite", entry.task, table.tasks)


def _sample(table: SuiteTable) -> Iterator[Problem]:
    sample = table.sample
    if sample.doc_stride >= sample.max_length:
        yield "sample.doc_stride", f"must be less than sample.max_length {sample.max_length}, not {sample.doc_stride}"
    if sample.model:
        yield from _sizes("sample.model", sample.model)
    if sample.train:
        yield from _train("sample.train", sample.train)
