"""Suite x data x machine -> cells with content keys, and why a cell cannot run here. Touches no network, imports no engine."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from backends import get_backend
from backends.fake_quant.schemes import get_scheme
from harness.cells import CORPUS, Cell, CheckpointSpec, Measure, mlperf_settings
from harness.errors import QuantboardError
from harness.keys import cell_key
from harness.sources import HEADS, corpus_identity, depth_of, file_hash, look_up, ranges_of, sizes_of
from harness.suite import BackendEntry, Suite
from harness.suite_checks import misfit
from harness.suite_raw import model_named
from harness.training.settings import no_uniform_map
from harness.ways import Way, way_of
from tasks import DataIdentity, DataRef, Shape, open_task

Blocked = tuple[str, str] | None
"""(reason, remedy) of what cannot run here."""


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
    machine: Mapping[str, Any],
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
        about = _TaskHere(
            suite, task, ref, identities.get(task), None if isinstance(found, DataRef) else found, hub, revisions or {}
        )
        for model in suite.models:
            if models and model not in models:
                continue
            for seed in seeds or (suite.seeds[:1] if about.on_sample and suite.sample else suite.seeds):
                base, blocked = about.checkpoint(model, seed)
                told: set[str] = set()
                for index, entry in enumerate(suite.backends):
                    if backends and not {entry.name, suite.labels[index]} & set(backends):
                        continue
                    cell = about.cell(model, seed, index, entry, base, blocked, machine, limit)
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
        scheme, label, checkpoint = entry.scheme, suite.labels[index], base
        if scheme and base.brings_ranges:
            scheme, label = base.scheme, entry.label or entry.name
            if wrong := misfit(backend, base.scheme or ""):
                blocked = blocked or (f"{model}: {wrong}", "train a model with a scheme that it takes")
        elif scheme:
            checkpoint = self._calibrated(base, scheme, seed)
        cell = Cell(
            suite=suite.name,
            model=model,
            seed=seed,
            task=self.task,
            backend=entry.name,
            scheme=scheme,
            label=label,
            options=entry.options,
            shape=base.shape,
            padding="max_length" if scheme and get_scheme(scheme).computes_padding else suite.shape.padding,
            batch_sizes=(sample.batch_sizes if sample else None) or suite.shape.batch_sizes,
            measure=self._measure(machine, seed),
            limit=limit,
            data=self.data,
            checkpoint=checkpoint,
            device=here.device,
            key="",
            baseline=suite.is_baseline(index),
            blocked=self.missing
            or blocked
            or self._nothing_to_evaluate()
            or self._no_training_data(checkpoint)
            or (None if here.available else (here.reason, here.remedy)),
            ancestor=self._ancestor(model),
        )
        return replace(cell, key=cell_key(cell, backend, machine, self.identity, self.version))

    def _nothing_to_evaluate(self) -> Blocked:
        if self.identity is None or any(name.startswith("validation") for name in self.identity.splits):
            return None
        return f"{self.task}: the data has no split to evaluate on", "add its dev file to the folder of --data"

    def _no_training_data(self, spec: CheckpointSpec) -> Blocked:
        """Why what the cell needs cannot be trained or calibrated, where the data has rows for evaluation alone."""
        if self.identity is None or "train" in self.identity.splits:
            return None
        if spec.task != CORPUS and spec.recipe in ("finetune", "qat", "distill", "ptq"):
            what = "calibrated" if spec.recipe == "ptq" else "trained"
            return (
                f"{self.task}: the data has no split 'train', which {spec.model} is {what} on",
                "add its file to the folder of --data",
            )
        return next((found for one in spec.needs if (found := self._no_training_data(one))), None)

    def _ancestor(self, model: str) -> str | None:
        """The model whose cell on the baseline backend a model is compared with, where that is another."""
        table = self.suite.models[model]
        if table.recipe == "qat":
            return model_named(table.source)
        teacher = model_named(table.teacher) if table.recipe == "distill" else None
        return (self._ancestor(teacher) if self.suite.models[teacher].recipe == "qat" else teacher) if teacher else None

    def checkpoint(self, model: str, seed: int) -> tuple[CheckpointSpec, Blocked]:
        """A model's own checkpoint, before any post-training quantization, and why it cannot be had here."""
        way = way_of(self.suite, model, self.task, self.on_sample)
        if way.recipe == "distill":
            return self._student(way, model, seed)
        source, identity, parent, blocked = self._begin(way, seed)
        trains = way.recipe != "load"
        qat = way.recipe == "qat"
        brought = None
        if not trains:
            brought, ranges, unread = ranges_of(source)
            identity, blocked = identity | ranges, blocked or unread
        spec = CheckpointSpec(
            model=model,
            task=self.task,
            recipe=way.recipe,
            source=source,
            seed=seed if trains else 0,
            shape=way.shape,
            data=self.data,
            architecture=way.architecture,
            train=way.train if trains else None,
            scheme=way.scheme if qat else brought,
            calibration=self._calibration(model) if qat else None,
            parent=parent,
            identity=identity | (self._split_identity() if trains else {}),
        )
        return spec, blocked

    def _begin(self, way: Way, seed: int) -> tuple[str, dict[str, str], CheckpointSpec | None, Blocked]:
        """Where a model's weights come from: source, its identity, the checkpoint it is made from, why it cannot be had."""
        if parent_name := model_named(way.source):
            parent, blocked = self.checkpoint(parent_name, seed)
            return way.source, {}, parent, blocked
        blocked = None
        if self.on_sample and not self.suite.sample and way.source != "scratch":
            blocked = (
                "the suite names no model that stands in on the sample",
                "add a [sample] table, or give --data DIR",
            )
        if way.source == "scratch":
            return way.source, {}, None, blocked
        found = look_up(way.source, self.suite.folder, hub=self.hub, revision=self.revisions.get(way.source))
        return found.source, found.identity, None, blocked or found.blocked

    def _student(self, way: Way, model: str, seed: int) -> tuple[CheckpointSpec, Blocked]:
        """Recipe `distill`: a checkpoint a stage, each made from the one before. The general one knows no task and no
        seed but the suite's first, so that all tasks and seeds share it."""
        name, first_seed = model_named(way.teacher) or "", self.suite.seeds[0]
        teacher, blocked = self.checkpoint(name, seed)
        source, identity, parent, missing = self._begin(way, seed)
        blocked = blocked or missing
        masked_lm, words = None, dict[str, str]()
        if way.augment:
            masked_lm, words, missing = self._masked_lm(way)
            blocked = blocked or missing
        spec = parent
        for stage, train in way.stages.items():
            first = spec is parent
            begun = CheckpointSpec(
                model=model,
                task=self.task,
                recipe="distill",
                source=source,
                seed=seed,
                shape=way.shape,
                data=self.data,
                architecture=way.architecture if first else None,
                train=train,
                parent=spec,
                identity=identity if first else {},
                teacher=teacher,
                distill={"stage": stage} | ({"layers": way.layers} if first and way.layers else {}),
            )
            if stage == "general":
                corpus, missing = corpus_identity(self.data)
                blocked = blocked or missing
                spec = replace(
                    begun,
                    task=CORPUS,
                    seed=first_seed,
                    shape=Shape(way.common_length),
                    teacher=_pretrained(self.checkpoint(name, first_seed)[0]),
                    identity={**(begun.identity or {}), **corpus},
                )
            else:
                spec = replace(
                    begun,
                    identity={**(begun.identity or {}), **words, **self._split_identity()},
                    distill={**(begun.distill or {}), **self._on_task(way, stage)},
                    masked_lm=masked_lm,
                )
        assert spec is not None
        return spec, blocked or _no_map(way, spec, teacher)

    def _on_task(self, way: Way, stage: str) -> dict[str, Any]:
        """What a stage on the task has beside its training settings."""
        found: dict[str, Any] = {"temperature": way.temperature} if stage == "prediction" else {}
        if way.augment:
            found["augment"] = {
                name: value for name, value in way.augment.items() if name not in ("masked_lm", "train")
            }
            if glove := way.augment.get("glove"):
                found["augment"]["glove"] = str((self.suite.folder / str(glove)).resolve())
        return found

    def _masked_lm(self, way: Way) -> tuple[CheckpointSpec, dict[str, str], Blocked]:
        """The model that proposes words, the identity of a file of vectors, and why one of them cannot be had."""
        augment = way.augment or {}
        source, identity, blocked = "scratch", dict[str, str](), None
        if not (self.on_sample and self.suite.sample):
            name = str(augment["masked_lm"])
            found = look_up(name, self.suite.folder, hub=self.hub, revision=self.revisions.get(name))
            source, identity, blocked = found.source, found.identity, found.blocked
        words: dict[str, str] = {}
        if augment.get("glove"):
            path = self.suite.folder / str(augment["glove"])
            if path.is_file():
                words["glove"] = file_hash(path)
            else:
                blocked = blocked or (
                    f"{augment['glove']}: there is no such file",
                    "download GloVe vectors, or delete the key",
                )
        train = augment.get("train")
        if train:
            corpus, missing = corpus_identity(self.data)
            identity, blocked = identity | corpus, blocked or missing
        spec = CheckpointSpec(
            model="masked-lm",
            task=CORPUS,
            recipe="masked_lm" if train else "pretrained",
            source=source,
            seed=self.suite.seeds[0] if train else 0,
            shape=Shape(way.common_length),
            data=self.data,
            architecture=way.augment_architecture if source == "scratch" else None,
            train=train,
            identity=identity,
        )
        return spec, words, blocked

    def _calibration(self, model: str | None = None) -> dict[str, int]:
        """Of a QAT model, which may have its own; else of post-training ranges."""
        settings = self.suite.calibration.model_dump()
        if model and (own := self.suite.models[model].calibration):
            settings |= own.model_dump(exclude_unset=True)
        if self.on_sample and self.suite.sample:
            settings |= self.suite.sample.calibration.model_dump(exclude_unset=True)
        return settings

    def _calibrated(self, base: CheckpointSpec, scheme: str, seed: int) -> CheckpointSpec:
        """Post-training ranges on top of a checkpoint."""
        return replace(
            base,
            recipe="ptq",
            seed=seed,
            architecture=None,
            train=None,
            scheme=scheme,
            calibration=self._calibration(),
            parent=base,
            teacher=None,
            distill=None,
            masked_lm=None,
            identity=self._split_identity(),
        )

    def _measure(self, machine: Mapping[str, Any], seed: int) -> Measure:
        settings = self.suite.measure.model_dump()
        if self.on_sample and self.suite.sample:  # ten minutes a test would say nothing about a stand-in
            settings |= {"profile": "quick"} | self.suite.sample.measure.model_dump(exclude_unset=True)
        settings |= mlperf_settings(settings, self.suite.measure.model_fields_set)
        settings["threads"] = settings["threads"] or int(machine["cores"])
        if settings.pop("seeds") == "first" and seed != self.suite.seeds[0]:
            settings["rounds"] = 0
        return Measure(**settings)

    def _split_identity(self) -> dict[str, str]:
        """What training and calibration read."""
        if self.identity is None:
            return {"data": "unknown"}
        return {name: split.sha256 for name, split in self.identity.splits.items() if name == "train"}


def _pretrained(teacher: CheckpointSpec) -> CheckpointSpec:
    """A teacher before it learned its task; where it was never anything else (random weights), itself."""
    root = teacher
    while root.parent:
        root = root.parent
    if root.source == "scratch":
        return teacher
    return CheckpointSpec(
        model=root.model,
        task=CORPUS,
        recipe="pretrained",
        source=root.source,
        seed=0,
        shape=Shape(0),
        data=root.data,
        identity=_of_weights(root.identity),
    )


def _no_map(way: Way, student: CheckpointSpec, teacher: CheckpointSpec) -> Blocked:
    """That no uniform map leads from the student's layers to the teacher's, or from its source's layers to those that it keeps,
    and that attention heads are not as many, where all this is known already."""
    first = student
    while first.parent and first.parent.distill and first.parent.model == student.model:
        first = first.parent
    whole = depth_of(first.parent or replace(first, distill=None))
    if way.layers and whole and whole % way.layers:
        return no_uniform_map(student.model, way.layers, whole, "its source's")
    if not {"general", "intermediate"} & set(way.stages):
        return None
    mine, theirs = way.layers or depth_of(student), depth_of(teacher)
    if mine and theirs and theirs % mine:
        return no_uniform_map(student.model, mine, theirs)
    heads, wanted = (sizes_of(one).get(HEADS) for one in (student, teacher))
    if heads and wanted and heads != wanted:
        return (
            f"{student.model}: it has {heads} attention heads and its teacher {wanted}, whose scores are compared one by one",
            f"give it {wanted}",
        )
    return None


def _of_weights(identity: Mapping[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in (identity or {}).items() if name not in ("train", "data")}
