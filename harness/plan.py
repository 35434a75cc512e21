"""Suite x data x machine -> cells with content keys, and why a cell cannot run here. Touches no network, imports no engine."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from backends import Backend, get_backend
from harness.cells import (
    MEASURE_VERSION,
    MLPERF_LATENCY_MS,
    MLPERF_ROUNDS,
    MLPERF_SECONDS,
    Cell,
    CheckpointSpec,
    Measure,
    digest,
)
from harness.errors import QuantboardError
from harness.machine import software
from harness.sources import look_up
from harness.suite import BackendEntry, Sample, ShapeTable, Suite, TaskOverride
from harness.training.settings import TrainSettings
from tasks import DataIdentity, DataRef, Shape, open_task

Blocked = tuple[str, str] | None
"""(reason, remedy) of what cannot run here."""


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
    cells: list[Cell] = []
    for task in suite.tasks:
        if tasks and task not in tasks:
            continue
        found = data[task]
        ref = found if isinstance(found, DataRef) else DataRef("hub")
        about = _TaskHere(
            suite, task, ref, identities.get(task), None if isinstance(found, DataRef) else found, hub, revisions or {}
        )
        for model in suite.models:
            if models and model not in models:
                continue
            for seed in suite.seeds:
                base, blocked = about.checkpoint(model, seed)
                for index, entry in enumerate(suite.backends):
                    if not backends or {entry.name, suite.labels[index]} & set(backends):
                        cells.append(about.cell(model, seed, index, entry, base, blocked, machine, limit))
    return Plan(suite, tuple(cells))


def _known(kind: str, chosen: Iterable[str], known: list[str], suite: str) -> None:
    for name in chosen:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            rest = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(known)}"
            raise QuantboardError(f"--{kind}: '{name}' is not in suite {suite}; {rest}")


@dataclass(frozen=True)
class _TaskHere:
    """A task of a suite with the data that it has here. `missing`: why it has none."""

    suite: Suite
    task: str
    data: DataRef
    identity: DataIdentity | None
    missing: Blocked
    hub: bool
    revisions: Mapping[str, str]

    @cached_property
    def version(self) -> int:
        return open_task(self.task, self.data).version

    @property
    def on_sample(self) -> bool:
        return self.data.kind == "sample"

    def cell(
        self,
        model: str,
        seed: int,
        index: int,
        entry: BackendEntry,
        base: CheckpointSpec,
        blocked: Blocked,
        machine: Mapping[str, Any],
        limit: int | None,
    ) -> Cell:
        backend = get_backend(entry.name)
        here = backend.availability(machine)
        suite, sample = self.suite, self.suite.sample if self.on_sample else None
        cell = Cell(
            suite=suite.name,
            model=model,
            seed=seed,
            task=self.task,
            backend=entry.name,
            scheme=entry.scheme,
            label=suite.labels[index],
            options=entry.options,
            shape=base.shape,
            padding=suite.shape.padding,
            batch_sizes=(sample.batch_sizes if sample else None) or suite.shape.batch_sizes,
            measure=self._measure(machine),
            limit=limit,
            data=self.data,
            checkpoint=self._calibrated(base, entry.scheme, seed) if entry.scheme else base,
            device=here.device,
            key="",
            baseline=suite.is_baseline(index),
            blocked=self.missing or blocked or (None if here.available else (here.reason, here.remedy)),
        )
        return replace(cell, key=cell_key(cell, backend, machine, self.identity, self.version))

    def checkpoint(self, model: str, seed: int) -> tuple[CheckpointSpec, Blocked]:
        """A model's own checkpoint, before any post-training quantization, and why it cannot be had here."""
        table, sample = self.suite.models[model], self.suite.sample
        recipe, source, architecture = table.recipe, table.source, table.architecture
        common: ShapeTable | Sample = self.suite.shape
        override, train = table.task.get(self.task), table.train
        identity: dict[str, str] = {}
        parent: CheckpointSpec | None = None
        blocked: Blocked = None
        if self.on_sample and sample:
            recipe, source, architecture = "finetune", "scratch", sample.model
            common, override, train = sample, sample.task.get(self.task), sample.train
        elif source.startswith("model:"):
            parent, blocked = self.checkpoint(source.removeprefix("model:"), seed)
        elif self.on_sample and source != "scratch":
            blocked = (
                "the suite names no model that stands in on the sample",
                "add a [sample] table, or give --data DIR",
            )
        if source != "scratch" and parent is None:
            found = look_up(source, self.suite.folder, hub=self.hub, revision=self.revisions.get(source))
            source, identity, blocked = found.source, found.identity, blocked or found.blocked
        trains = recipe == "finetune"
        spec = CheckpointSpec(
            model=model,
            task=self.task,
            recipe=recipe,
            source=source,
            seed=seed if trains else 0,
            shape=_shape(common, override),
            data=self.data,
            architecture=architecture.model_dump() if architecture else None,
            train=_train(train, override) if trains else None,
            parent=parent,
            identity=identity | (self._split_identity() if trains else {}),
        )
        return spec, blocked

    def _calibrated(self, base: CheckpointSpec, scheme: str, seed: int) -> CheckpointSpec:
        """Post-training ranges on top of a checkpoint."""
        settings = self.suite.calibration.model_dump()
        if self.on_sample and self.suite.sample:
            settings |= self.suite.sample.calibration.model_dump(exclude_unset=True)
        return replace(
            base,
            recipe="ptq",
            seed=seed,
            architecture=None,
            train=None,
            scheme=scheme,
            calibration=settings,
            parent=base,
            identity=self._split_identity(),
        )

    def _measure(self, machine: Mapping[str, Any]) -> Measure:
        settings = self.suite.measure.model_dump()
        if self.on_sample and self.suite.sample:  # ten minutes a test would say nothing about a stand-in
            settings |= {"profile": "quick"} | self.suite.sample.measure.model_dump(exclude_unset=True)
        settings |= mlperf_settings(settings, self.suite.measure.model_fields_set)
        settings["threads"] = settings["threads"] or int(machine["cores"])
        return Measure(**settings)

    def _split_identity(self) -> dict[str, str]:
        """What training and calibration read."""
        if self.identity is None:
            return {"data": "unknown"}
        return {name: split.sha256 for name, split in self.identity.splits.items() if name == "train"}


def cell_key(
    cell: Cell, backend: Backend, machine: Mapping[str, Any], identity: DataIdentity | None, task_version: int
) -> str:
    """Suite, model and label belong to it: a record is found again by the row it stands in. Where the data lies, and the
    badge's bound, do not; of the data it holds what is evaluated, the checkpoint's key holds the rest."""
    settings = asdict(cell)
    for name in ("checkpoint", "data", "key", "blocked"):
        del settings[name]
    settings["measure"] = cell.measure.in_key()
    libraries = software(backend.distributions)
    libraries.pop("python", None)
    return digest(
        {
            "cell": settings,
            "checkpoint": cell.checkpoint.key,
            "task": task_version,
            "backend": backend.version,
            "libraries": libraries,
            "data": {name: one.sha256 for name, one in identity.splits.items() if name != "train"}
            if identity
            else None,
            "machine": machine_identity(machine),
            "measure": MEASURE_VERSION,
        }
    )


def mlperf_settings(settings: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """What stands in the place of a default: MLPerf's bound of the server scenario, and profile `mlperf`'s duration. Its counts
    LoadGen itself takes from its mlperf.conf."""
    found: dict[str, Any] = {}
    if "server" in settings["scenarios"] and settings["server_latency_ms"] is None:
        found["server_latency_ms"] = MLPERF_LATENCY_MS
    if settings["profile"] == "mlperf":
        found["min_duration"] = MLPERF_SECONDS
        if "rounds" not in given:
            found["rounds"] = MLPERF_ROUNDS
    return found


def _shape(common: ShapeTable | Sample, override: TaskOverride | None) -> Shape:
    merged = {name: getattr(common, name) for name in ("max_length", "doc_stride", "max_query_length")}
    return Shape(**merged | (override.shape.model_dump(exclude_none=True) if override else {}))


def _train(base: TrainSettings | None, override: TaskOverride | None) -> dict[str, Any]:
    settings = base.model_dump(exclude_unset=True) if base else {}
    return TrainSettings.model_validate(settings | (override.train if override else {})).model_dump()


def machine_identity(machine: Mapping[str, Any]) -> str:
    """What makes two machines the same to a record: processor, cores, GPUs."""
    gpus = [str(gpu["name"]) for gpu in machine.get("gpus", ())]
    return ", ".join(
        [str(machine.get("cpu")), str(machine.get("cpu_model", "")), f"{machine.get('cores')} cores", *gpus]
    )
