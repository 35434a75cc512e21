"""Where the rows of each task come from, and what identifies them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from harness.plan.spec import Blocked
from harness.suite.tables import Suite
from tasks import DataIdentity, DataRef, TaskError, data_identity, task_definition, task_version
from tasks.definitions import Definition
from tasks.installed import installed_tasks

DataOrReason = DataRef | tuple[str, str]
"""A task's data, or (reason, remedy) where there is none."""


def find_data(
    suite: Suite, option: str | None, hub: Callable[[], bool], tasks: Sequence[str] = (), *, skip_bad_rows: bool = False
) -> dict[str, DataOrReason]:
    """Where the rows of each task come from.

    option: of --data. hub: asks whether the hub answers; called at most once, and only where the answer matters. tasks: those
    that are wanted; default: all of the suite. skip_bad_rows: leave out rows that cannot be used, of tasks of any kind. Raises TaskError for a folder in `option` that is missing or broken.
    """
    from tasks.sources import resolve

    option = option or suite.data
    wanted = [task for task in suite.tasks if not tasks or task in tasks]
    asks_hub = option in (None, "real") and any(task not in suite.task for task in wanted)
    reachable = hub() if asks_hub else False
    found: dict[str, DataOrReason] = {}
    for task in wanted:
        if declaration := suite.declaration(task):
            own = replace(declaration, skip_bad_rows=declaration.skip_bad_rows or skip_bad_rows)
            found[task] = DataRef("declared", own.to_json())
            continue
        source = _opened(task, resolve(task, option, reachable))
        found[task] = replace(source, skip_bad_rows=skip_bad_rows) if isinstance(source, DataRef) else source
    return found


def _opened(task: str, source: DataOrReason) -> DataOrReason:
    """A package's task reads its data itself, so that only opening it tells whether there is any without a folder."""
    if not isinstance(source, DataRef) or source.kind not in ("hub", "sample") or task not in installed_tasks():
        return source
    try:
        data_identity(task, source)
    except TaskError as error:
        reason, _, remedy = str(error).rpartition("; ")
        return (reason, remedy) if reason else (remedy, "give its data with --data DIR")
    return source


def find_task_data(task: str, option: str | None) -> DataRef:
    """Where the rows of one task come from; asks the hub where `option` (of --data) needs it. Raises TaskError where there are
    none."""
    from tasks.sources import hub_reachable, resolve

    data = resolve(task, option, hub_reachable() if option in (None, "real") else False)
    if not isinstance(data, DataRef):
        raise TaskError(f"{task}: {data[0]}; {data[1]}")
    return data


def identities(data: Mapping[str, DataOrReason]) -> dict[str, DataIdentity]:
    """What identifies the rows of each task that has data."""
    return {task: data_identity(task, ref) for task, ref in data.items() if isinstance(ref, DataRef)}


def hub_sources(suite: Suite) -> list[str]:
    """The hub models that a suite starts from, including the masked language models of augmentation."""
    sources = [model.source for model in suite.models.values()]
    stages = [model.distill for model in suite.models.values() if model.distill]
    sources += [distill.augment.masked_lm for distill in stages if distill.augment]
    return list(dict.fromkeys(source for source in sources if source.startswith("hub:")))


@dataclass(frozen=True)
class TaskData:
    """A task of a suite with its data on this machine.

    identity: None where it is not known yet. missing: why there is no data. hub: whether the hub answers. revisions: of hub
    models, by source, as far as the hub was asked.
    """

    suite: Suite
    task: str
    data: DataRef
    identity: DataIdentity | None
    missing: Blocked
    hub: bool
    revisions: Mapping[str, str]

    @cached_property
    def version(self) -> int:
        """The version of the task, which is part of every cell's key; 0 for a package's task without data."""
        if self.missing and self.task in installed_tasks():
            return 0
        return task_version(self.task, self.data)

    @cached_property
    def definition(self) -> Definition | None:
        """What the task's code works by; None for an installed package's task."""
        return task_definition(self.task, self.data)

    @property
    def on_sample(self) -> bool:
        return self.data.kind == "sample"

    @property
    def train_identity(self) -> dict[str, str]:
        """What identifies the rows that training and calibration read."""
        if self.identity is None:
            return {"data": "unknown"}
        return {name: split.sha256 for name, split in self.identity.splits.items() if name == "train"}
