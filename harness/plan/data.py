"""Where each task's rows come from, and what identifies them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.suite.tables import Suite
from tasks import DataIdentity, DataRef, TaskError, data_identity, open_task

DataOrReason = DataRef | tuple[str, str]
"""A task's data, or why it cannot be had here and the remedy."""


def find_data(
    suite: Suite, option: str | None, hub: Callable[[], bool], tasks: Sequence[str] = ()
) -> dict[str, DataOrReason]:
    """Where each task's rows come from (tasks: the suite's that are asked for; default all). A broken or missing folder that the user named is an error, not a fall-back."""
    from tasks.sources import resolve

    option = option or suite.data
    needs_hub = option in (None, "real")
    reachable = hub() if needs_hub else False
    return {task: resolve(task, option, reachable) for task in suite.tasks if not tasks or task in tasks}


def identities(found: Mapping[str, DataOrReason]) -> dict[str, DataIdentity]:
    return {task: data_identity(task, ref) for task, ref in found.items() if isinstance(ref, DataRef)}


def hub_sources(suite: Suite) -> list[str]:
    """The models of the hub that a suite starts from, those that propose words among them."""
    sources = [model.source for model in suite.models.values()]
    sources += [one.distill.augment.masked_lm for one in suite.models.values() if one.distill and one.distill.augment]
    return list(dict.fromkeys(source for source in sources if source.startswith("hub:")))


Blocked = tuple[str, str] | None
"""(reason, remedy) of what cannot run here."""


@dataclass(frozen=True)
class TaskData:
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


def find_task_data(task: str, option: str | None) -> DataRef:
    """The data of one task, the hub asked where `option` leaves it to the hub. Raises TaskError where there is none."""
    from tasks.sources import hub_reachable, resolve

    found = resolve(task, option, hub_reachable() if option in (None, "real") else False)
    if not isinstance(found, DataRef):
        raise TaskError(f"{task}: {found[0]}; {found[1]}")
    return found
