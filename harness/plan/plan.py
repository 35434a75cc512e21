"""Suite x data x machine -> cells with content keys, and why a cell cannot run here. Touches no network, imports no engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from backends import get_backend
from backends.fake_quant.schemes import get_scheme
from harness.errors import QuantboardError, did_you_mean
from harness.machine.hardware import Machine
from harness.plan.checkpoint_specs import calibrated, checkpoint_spec
from harness.plan.data import Blocked, TaskData
from harness.plan.keys import cell_key
from harness.plan.spec import CORPUS, Cell, CheckpointSpec
from harness.suite.backend_checks import why_unsupported
from harness.suite.measure import Measure, mlperf_settings
from harness.suite.parsed import referenced_model
from harness.suite.tables import BackendEntry, Suite
from tasks import DataIdentity, DataRef


@dataclass(frozen=True)
class Plan:
    suite: Suite
    cells: tuple[Cell, ...]
    on_sample: bool
    """Some of its data are the sample's, generated or from files."""


def make_plan(
    suite: Suite,
    *,
    data: Mapping[str, DataRef | tuple[str, str]],
    identities: Mapping[str, DataIdentity],
    machine: Machine,
    models: Sequence[str] = (),
    tasks: Sequence[str] = (),
    backends: Sequence[str] = (),
    seeds: Sequence[int] = (),
    limit: int | None = None,
    hub: bool = False,
    revisions: Mapping[str, str] | None = None,
) -> Plan:
    """Every cell of the suite that the selections leave; `backends` are labels, or names of backends.

    data: of each task, or (reason, remedy) where there is none. identities: of those that are there (a hub's may be missing:
    its cells' keys then hold that nothing is known). hub: whether the hub answers. revisions: of models on it, by source.
    Raises QuantboardError for a selection that the suite does not have.
    """
    for kind, chosen, known in (
        ("model", models, [*suite.models]),
        ("task", tasks, [*suite.tasks]),
        ("backend", backends, [*suite.labels, *(entry.name for entry in suite.backends)]),
    ):
        _known(kind, chosen, list(dict.fromkeys(known)), suite.name)
    for seed in seeds:
        if seed not in suite.seeds:
            raise QuantboardError(f"--seed: {seed} is not in suite {suite.name}; it has {_listed(suite.seeds)}")
    cells: list[Cell] = []
    for task in suite.tasks:
        if tasks and task not in tasks:
            continue
        found = data[task]
        ref = found if isinstance(found, DataRef) else DataRef("hub")
        about = TaskData(
            suite, task, ref, identities.get(task), None if isinstance(found, DataRef) else found, hub, revisions or {}
        )
        for model in suite.models:
            if models and model not in models:
                continue
            for seed in seeds or (suite.seeds[:1] if about.on_sample and suite.sample else suite.seeds):
                base, blocked = checkpoint_spec(about, model, seed)
                told: set[str] = set()
                for index, entry in enumerate(suite.backends):
                    if backends and not {entry.name, suite.labels[index]} & set(backends):
                        continue
                    cell = _cell(about, model, seed, index, entry, base, blocked, machine, limit)
                    if (
                        cell.label not in told
                    ):  # entries that differ by a scheme are one to ranges that are there already
                        told.add(cell.label)
                        cells.append(cell)
    return Plan(suite, tuple(cells), any(one.label == "sample" for one in identities.values()))


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _known(kind: str, chosen: Iterable[str], known: list[str], suite: str) -> None:
    for name in chosen:
        if name not in known:
            raise QuantboardError(f"--{kind}: '{name}' is not in suite {suite}{did_you_mean(name, known, 'it has')}")


def _cell(
    task_data: TaskData,
    model: str,
    seed: int,
    index: int,
    entry: BackendEntry,
    base: CheckpointSpec,
    blocked: Blocked,
    machine: Machine,
    limit: int | None,
) -> Cell:
    backend = get_backend(entry.name)
    availability = backend.availability(machine.as_dict())
    suite, sample = task_data.suite, task_data.suite.sample if task_data.on_sample else None
    scheme, label, checkpoint = entry.scheme, suite.labels[index], base
    if scheme and base.brings_ranges:
        scheme, label = base.scheme, entry.label or entry.name
        if wrong := why_unsupported(backend, base.scheme or ""):
            blocked = blocked or (f"{model}: {wrong}", "train a model with a scheme that it takes")
    elif scheme:
        checkpoint = calibrated(task_data, base, scheme, seed)
    cell = Cell(
        suite=suite.name,
        model=model,
        seed=seed,
        task=task_data.task,
        backend=entry.name,
        scheme=scheme,
        label=label,
        options=entry.options,
        shape=base.shape,
        padding="max_length" if scheme and get_scheme(scheme).computes_padding else suite.shape.padding,
        batch_sizes=(sample.batch_sizes if sample else None) or suite.shape.batch_sizes,
        measure=_measure(task_data, machine, seed),
        limit=limit,
        data=task_data.data,
        checkpoint=checkpoint,
        device=availability.device,
        key="",
        baseline=suite.is_baseline(index),
        blocked=task_data.missing
        or blocked
        or _nothing_to_evaluate(task_data)
        or _no_training_data(task_data, checkpoint)
        or (None if availability.available else (availability.reason, availability.remedy)),
        ancestor=_ancestor(task_data, model),
    )
    return replace(cell, key=cell_key(cell, backend, machine, task_data.identity, task_data.version))


def _nothing_to_evaluate(task_data: TaskData) -> Blocked:
    if task_data.identity is None or any(name.startswith("validation") for name in task_data.identity.splits):
        return None
    return f"{task_data.task}: the data has no split to evaluate on", "add its dev file to the folder of --data"


def _no_training_data(task_data: TaskData, spec: CheckpointSpec) -> Blocked:
    """Why what the cell needs cannot be trained or calibrated, where the data has rows for evaluation alone."""
    if task_data.identity is None or "train" in task_data.identity.splits:
        return None
    if spec.task != CORPUS and spec.recipe in ("finetune", "qat", "distill", "ptq"):
        what = "calibrated" if spec.recipe == "ptq" else "trained"
        return (
            f"{task_data.task}: the data has no split 'train', which {spec.model} is {what} on",
            "add its file to the folder of --data",
        )
    return next((found for one in spec.needs if (found := _no_training_data(task_data, one))), None)


def _ancestor(task_data: TaskData, model: str) -> str | None:
    """The model whose cell on the baseline backend a model is compared with, where that is another."""
    table = task_data.suite.models[model]
    if table.recipe == "qat":
        return referenced_model(table.source)
    teacher = referenced_model(table.teacher) if table.recipe == "distill" else None
    return (
        (_ancestor(task_data, teacher) if task_data.suite.models[teacher].recipe == "qat" else teacher)
        if teacher
        else None
    )


def _measure(task_data: TaskData, machine: Machine, seed: int) -> Measure:
    settings = task_data.suite.measure.model_dump()
    if task_data.on_sample and task_data.suite.sample:  # ten minutes a test would say nothing about a stand-in
        settings |= {"profile": "quick"} | task_data.suite.sample.measure.model_dump(exclude_unset=True)
    settings |= mlperf_settings(settings, task_data.suite.measure.model_fields_set)
    settings["threads"] = settings["threads"] or machine.cores
    if settings.pop("seeds") == "first" and seed != task_data.suite.seeds[0]:
        settings["rounds"] = 0
    return Measure(**settings)
