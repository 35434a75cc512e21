"""Suite x data x machine -> cells with content keys, and why a cell cannot run here. Touches no network, imports no engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

from backends import FOR_ONNX_FILES, Backend, backend_names, get_backend, runs_any_family, runs_traced
from backends.families.generic import why_no_graph
from backends.schemes import get_scheme
from harness.errors import QuantboardError, did_you_mean
from harness.machine.hardware import Machine
from harness.plan.checkpoint_specs import calibrated, checkpoint_spec
from harness.plan.data import DataOrReason, TaskData
from harness.plan.fit import notes_on, unknown_family, why_scheme_unfit
from harness.plan.keys import cell_key
from harness.plan.sources import local_folder
from harness.plan.spec import CORPUS, Blocked, Cell, CheckpointSpec
from harness.suite.backend_checks import why_unsupported
from harness.suite.measure import Measure, mlperf_settings
from harness.suite.parsed import referenced_model
from harness.suite.tables import Suite
from tasks import DataIdentity, DataRef


@dataclass(frozen=True)
class Plan:
    """A suite's cells. on_sample: whether some of the data is that of the sample, generated or read from files. notes: what a
    user should know of the sources."""

    suite: Suite
    cells: tuple[Cell, ...]
    on_sample: bool
    notes: tuple[str, ...] = ()


def make_plan(
    suite: Suite,
    *,
    data: Mapping[str, DataOrReason],
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
    """The cells of a suite, or of the models, tasks, backends (labels or names) and seeds that are selected.

    data: of each task, or why there is none. identities: of each task's rows; the hub's may be missing, and keys then say that
    they are unknown. limit: the number of examples to evaluate. hub: whether the hub answers. revisions: of hub models, by
    source. Raises QuantboardError for a selection that the suite does not have.
    """
    _check_selection("model", models, suite.models, suite.name)
    _check_selection("task", tasks, suite.tasks, suite.name)
    _check_selection("backend", backends, [*suite.labels, *(entry.name for entry in suite.backends)], suite.name)
    for seed in seeds:
        if seed not in suite.seeds:
            known = ", ".join(map(str, suite.seeds))
            raise QuantboardError(f"--seed: {seed} is not in suite {suite.name}; it has {known}")
    cells: list[Cell] = []
    here = _Here(machine)
    for task in suite.tasks:
        if tasks and task not in tasks:
            continue
        ref_or_reason = data[task]
        ref, missing = (ref_or_reason, None) if isinstance(ref_or_reason, DataRef) else (DataRef("hub"), ref_or_reason)
        task_data = TaskData(suite, task, ref, identities.get(task), missing, hub, revisions or {})
        for model in suite.models:
            if models and model not in models:
                continue
            for seed in seeds or (suite.seeds[:1] if task_data.on_sample and suite.sample else suite.seeds):
                measure = _measure(task_data, machine, seed)
                planned = _PlannedModel(task_data, model, seed, measure, *checkpoint_spec(task_data, model, seed))
                cells += _cells(planned, backends, here, limit)
    on_sample = any(identity.label == "sample" for identity in identities.values())
    of_data = [note for identity in identities.values() for note in identity.notes]
    return Plan(suite, tuple(cells), on_sample, (*of_data, *_notes(cells)))


def _notes(cells: Iterable[Cell]) -> tuple[str, ...]:
    """What the sources' files tell, each source once."""
    sources: dict[str, str] = {}
    for cell in cells:
        root = cell.checkpoint.root
        sources.setdefault(root.source, root.model)
    folders = [(model, local_folder(source)) for source, model in sources.items()]
    return tuple(f"{model}: {note}" for model, folder in folders if folder for note in notes_on(folder))


def _check_selection(kind: str, selected: Iterable[str], known: Iterable[str], suite: str) -> None:
    names = list(dict.fromkeys(known))
    for name in selected:
        if name not in names:
            raise QuantboardError(f"--{kind}: '{name}' is not in suite {suite}{did_you_mean(name, names, 'it has')}")


class _Here:
    """What is available on a machine. Each backend is asked once a plan."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self._description = machine, machine.as_dict()
        self.availability = cache(lambda name: get_backend(name).availability(self._description))


@dataclass(frozen=True)
class _PlannedModel:
    """A model on a task with one seed: how its speed is measured, its own checkpoint, and why that cannot be made."""

    task_data: TaskData
    name: str
    seed: int
    measure: Measure
    checkpoint: CheckpointSpec
    blocked: Blocked

    @cached_property
    def folder(self) -> Path | None:
        """Of its source, where that is on this machine."""
        return local_folder(self.checkpoint.root.source)

    @cached_property
    def unknown_family(self) -> str:
        """Its `model_type` where that is of no family that is known here; else empty."""
        return unknown_family(self.folder) if self.folder else ""


def _cells(model: _PlannedModel, backends: Sequence[str], here: _Here, limit: int | None) -> Iterator[Cell]:
    """The model's cells on the selected backends. Entries that differ only by a post-training scheme are one cell to a model
    that has its own ranges."""
    suite, labels = model.task_data.suite, set[str]()
    for index, entry in enumerate(suite.backends):
        if backends and not {entry.name, suite.labels[index]} & set(backends):
            continue
        if (entry.name == FOR_ONNX_FILES) != model.checkpoint.source.startswith("onnx:"):
            continue  # a graph that was made elsewhere runs as it is, and there only
        cell = _cell(model, index, here, limit)
        if cell.label not in labels:
            labels.add(cell.label)
            yield cell


def _cell(model: _PlannedModel, index: int, here: _Here, limit: int | None) -> Cell:
    """The cell of a model on the backend entry at `index`."""
    task_data, suite = model.task_data, model.task_data.suite
    sample = suite.sample if task_data.on_sample else None
    entry, checkpoint, blocked = suite.backends[index], model.checkpoint, task_data.missing or model.blocked
    backend = get_backend(entry.name)
    scheme, label = entry.scheme and suite.scheme_name(entry.scheme), suite.labels[index]
    if scheme and checkpoint.brings_ranges:
        scheme, label = checkpoint.scheme, entry.label or entry.name
        if why := why_unsupported(backend, checkpoint.scheme or ""):
            blocked = blocked or (f"{model.name}: {why}", "train the model with a scheme that this backend supports")
    elif scheme:
        checkpoint = calibrated(task_data, checkpoint, scheme, model.seed)
    blocked = (
        blocked
        or _says_nothing(model, backend)
        or _needs_family(model, backend)
        or _cannot_have(model, scheme, backend)
    )
    availability = here.availability(entry.name)
    blocked = blocked or _no_evaluation_data(task_data) or _no_training_data(task_data, checkpoint)
    if not availability.available:
        blocked = blocked or (availability.reason, availability.remedy)
    elif suite.device and availability.device != suite.device:
        blocked = blocked or (f"the suite is for a GPU, and {entry.name} would run on the CPU here", NEEDS_GPU)
    cell = Cell(
        suite=suite.name,
        model=model.name,
        seed=model.seed,
        task=task_data.task,
        backend=entry.name,
        scheme=scheme,
        label=label,
        options=entry.options,
        shape=model.checkpoint.shape,
        padding="max_length" if scheme and get_scheme(scheme).computes_padding else suite.shape.padding,
        batch_sizes=(sample.batch_sizes if sample else None) or suite.shape.batch_sizes,
        measure=model.measure,
        limit=limit,
        data=task_data.data,
        checkpoint=checkpoint,
        device=availability.device,
        key="",
        baseline=suite.is_baseline(index),
        blocked=blocked,
        ancestor=_ancestor(suite, model.name),
    )
    return replace(cell, key=cell_key(cell, backend, here.machine, task_data.identity, task_data.version))


NEEDS_GPU = "use a machine with a GPU and a build of the engine that runs this row there, if there is one; `quantboard doctor` says what is here"


def _says_nothing(model: _PlannedModel, backend: Backend) -> Blocked:
    if not (model.checkpoint.speed_only and backend.simulated):
        return None
    return (
        f"{model.name}: a simulation has no speed, and random weights have no accuracy",
        "take a backend that is an engine",
    )


def _needs_family(model: _PlannedModel, backend: Backend) -> Blocked:
    """Why a backend cannot run a model whose family is not known here."""
    model_type = model.unknown_family
    if not model_type:
        return None
    if runs_any_family(backend):
        why = why_no_graph(model_type) if runs_traced(backend) else ""
        return (f"{model.name}: {why}", "take torch_fp32, which runs it as transformers has it") if why else None
    able = [name for name in backend_names() if name != FOR_ONNX_FILES and runs_any_family(get_backend(name))]
    return (
        f"{model.name}: '{backend.name}' runs known model families only, and {model_type!r} is none",
        f"take {', '.join(able[:-1])} or {able[-1]}, which run it the generic way",
    )


def _cannot_have(model: _PlannedModel, scheme: str | None, backend: Backend) -> Blocked:
    """Why a scheme does not fit a model on a backend, as far as its source is on this machine. A student or a model of random weights may have
    another number of layers than its source."""
    root, facts, folder = model.checkpoint.root, model.task_data.suite.facts(model.task_data.task), model.folder
    if scheme is None or folder is None or facts is None or root.recipe == "distill" or root.architecture:
        return None
    why = why_scheme_unfit(folder, scheme, facts.kind, linears_only=getattr(backend, "linears_only", False))
    return why and (f"{model.name}: {why[0]}", why[1])


def _no_evaluation_data(task_data: TaskData) -> Blocked:
    if task_data.identity is None or any(name.startswith("validation") for name in task_data.identity.splits):
        return None
    return f"{task_data.task}: the data has no evaluation split", "add its dev file to the folder of --data"


def _no_training_data(task_data: TaskData, spec: CheckpointSpec) -> Blocked:
    """Why a checkpoint, or one that it needs, cannot be trained or calibrated: the data may have evaluation splits only."""
    if task_data.identity is None or "train" in task_data.identity.splits:
        return None
    if spec.task != CORPUS and spec.recipe in ("finetune", "qat", "distill", "ptq"):
        use = "calibrated" if spec.recipe == "ptq" else "trained"
        return (
            f"{task_data.task}: the data has no split 'train', which {spec.model} is {use} on",
            "name its file in the task's data"
            if task_data.data.kind == "declared"
            else "add its file to the folder of --data",
        )
    return next((blocked for needed in spec.needs if (blocked := _no_training_data(task_data, needed))), None)


def _ancestor(suite: Suite, model: str) -> str | None:
    """The other model with whose cell on the baseline backend a model is compared: a QAT model's FP32 parent, or a student's
    teacher (of a QAT teacher, its FP32 parent)."""
    table = suite.models[model]
    if table.made_from:
        return referenced_model(table.made_from)
    if table.recipe == "qat":
        return referenced_model(table.source)
    teacher = referenced_model(table.teacher) if table.recipe == "distill" else None
    if teacher and suite.models[teacher].recipe == "qat":
        return _ancestor(suite, teacher)
    return teacher


def _measure(task_data: TaskData, machine: Machine, seed: int) -> Measure:
    """How a cell's speed is measured: not at all where the suite measures only the first seed and this is another."""
    suite = task_data.suite
    settings = suite.measure.model_dump()
    if (
        task_data.on_sample and suite.sample
    ):  # a stand-in's speed says nothing, so MLPerf's ten minutes are not spent on it
        settings |= {"profile": "quick", "max_rounds": None} | suite.sample.measure.model_dump(exclude_unset=True)
    settings |= mlperf_settings(settings, suite.measure.model_fields_set)
    settings["threads"] = settings["threads"] or machine.cores
    if settings.pop("seeds") == "first" and seed != suite.seeds[0]:
        settings["rounds"] = 0
    return Measure(**settings)
