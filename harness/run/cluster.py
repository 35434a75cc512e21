"""Runs a suite's cells on the nodes of an existing Ray cluster. Ray places the work; what a node does is in `harness.run.node`.

Cells that stand in one table go to one node, with all CPUs and GPUs that Ray counts there, so that no other task of the cluster runs
beside a measurement. Each node plans the suite for itself; nodes with equal plans are of one kind, and a group may run on any node
of the kind that fits it best. Records come back as soon as they are measured, and are appended here. The group of a lost node runs
elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from backends import artefacts
from harness.errors import QuantboardError, RecordError, disk_fault
from harness.plan.spec import Cell
from harness.records import store
from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.run.assemble import make_record
from harness.run.context import Again, Run, Until, cell_name
from harness.run.events import unwatched
from harness.run.executor import added_since, finished_cells, locked_cells
from harness.run.group import repeats
from harness.run.node import Finished, Group, Work, run_group, user_fault
from harness.run.nodes import Kind, connected, here, misfit, node_kinds

ATTEMPTS = 3
"""How many nodes may be lost under one group before its cells count as failed."""
END_SECONDS = 20.0
"""How long nodes may take to stop after Ctrl-C: a training saves its state."""


@dataclass
class Job:
    """A group that is placed. node: the name of the node that has begun it."""

    table: int
    kind: Kind
    cells: list[Cell]
    node: str = ""


@dataclass
class Cluster:
    """A run on a cluster. back: the records that came back or were finished earlier, by cell key. lost: by table, how many nodes
    were lost under it."""

    ray: ModuleType
    inbox: Any
    kinds: list[Kind]
    work: Work
    run: Run
    previous: Mapping[str, Record]
    again: Again
    until: Until | None
    back: dict[str, Record] = field(default_factory=dict)
    pending: dict[Any, Job] = field(default_factory=dict)
    lost: dict[int, int] = field(default_factory=dict)
    done: dict[int, list[Cell]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def records(self) -> list[Record]:
        """Run all tables. One record a cell, in the order of the plan."""
        tables = range(len(self.kinds[0].tables))
        self.names = {node: name for kind in self.kinds for node, name in kind.nodes.items()}
        try:
            for table in tables:
                self._place(table)
            while self.pending:
                self._collect()
        finally:
            self._stop()
        return [self.back[cell.key] for table in tables for cell in self.done[table]]

    def _place(self, table: int) -> None:
        """Give a table to the kind that fits it best, unless all of it was finished earlier."""
        kinds = [kind for kind in self.kinds if kind.nodes]
        if not kinds:
            raise QuantboardError(
                "no node of the cluster is left that can run this suite; start nodes, and the same command continues"
            )
        finished = [self._finished(kind, table) for kind in kinds]
        number = min(range(len(kinds)), key=lambda number: misfit(kinds[number], table, finished[number]))
        kind, cells = kinds[number], kinds[number].tables[table]
        old = finished[number]
        self.back |= old
        if len(old) == len(cells):
            for cell in cells:
                self.run.say(f"{cell_name(cell)}: finished earlier (run {old[cell.key].run_id})")
            self.done[table] = cells
            return
        came = {key for key, record in self.back.items() if record.run_id == self.run.run_id}
        job = Job(table, kind, [cell for cell in cells if cell.key not in came])
        group = Group(
            job.cells,
            kind.plan.machine,
            self.work,
            replace(self.run, say=print, watch=unwatched, stored=ScoreStore(), seen=None),
            old,
            self.again,
            self.until,
        )
        whole_node = self.ray.remote(max_calls=1)(_group_task).options(**kind.options(cells))  # each in a fresh process
        self.pending[whole_node.remote(group, table, self.inbox)] = job

    def _finished(self, kind: Kind, table: int) -> dict[str, Record]:
        """Records of the table's cells on this kind of machine that are not measured again: of earlier runs, and of this one where
        a node was lost."""
        cells, run = kind.tables[table], replace(self.run, machine=kind.plan.machine)
        new = {cell.key: self.back[cell.key] for cell in cells if cell.key in self.back}
        return finished_cells(cells, run, self.previous, self.again, self.until) | new

    def _receive(self) -> None:
        """Take everything that nodes have sent."""
        try:
            messages = self.ray.get(self.inbox.take.remote())
        except self.ray.exceptions.RayActorError:
            raise QuantboardError(
                "the connection to the Ray cluster was lost; what was recorded is kept, and the same command continues"
            ) from None
        for message in messages:
            self._take(*message)

    def _take(self, node: str, kind: str, content: Any) -> None:
        name = self.names[node]
        if kind == "begin":
            for job in self.pending.values():
                if job.table == content:
                    job.node = name
        elif kind == "say":
            self.run.say(f"[{name}] {content}")
        elif kind == "record":
            self._keep(content, name)

    def _keep(self, finished: Finished, name: str) -> None:
        """Append a record that came back, after its scores; one that came before does not count again."""
        record = store.parse(json.loads(finished.record))
        if (known := self.back.get(record.key)) and known.record_id == record.record_id:
            return
        before = self.previous.get(record.key)
        if self.until is None and not repeats(record, before):
            path = self.run.results / finished.file
            sums = {part.scores_file: part.scores_sha256 for part in record.accuracy if part.scores_file}
            for file, content in finished.scores.items():
                target = path.parent / file
                try:
                    artefacts.make_folder(target.parent)
                    artefacts.write_whole(target, content)
                    damaged = artefacts.sha256_of(target) != sums[file]
                except OSError as error:
                    raise RecordError(
                        disk_fault(error, target, "make the folder writable", "cannot write the scores")
                    ) from None
                if damaged:
                    target.unlink()
                    self.run.say(
                        f"[{name}] {record.record_id}: its scores were damaged on the way; it is measured again"
                    )
                    return
            store.append(path, record)
            self.run.stored.add(path, record)
        self.back[record.key] = record

    def _collect(self) -> None:
        """Take what came, and look after tasks that ended, and those whose nodes are gone."""
        ended, _ = self.ray.wait(list(self.pending), timeout=1)
        self._receive()  # a task's messages are there before it ends
        alive = {node["NodeID"] for node in self.ray.nodes() if node["Alive"]}
        for kind in self.kinds:
            kind.nodes = {node: name for node, name in kind.nodes.items() if node in alive}
        for task in ended:
            job = self.pending.pop(task)
            try:
                node, fault = self.ray.get(task)
            except self.ray.exceptions.RayTaskError:
                raise  # a bug
            except self.ray.exceptions.RayError as error:
                self._lose(job, f"{job.node or 'a node'} was lost ({type(error).__name__})")
                continue
            if fault:
                job.kind.nodes.pop(node, None)
                self._lose(job, f"{self.names[node]} is left out: {fault}")
            elif any(cell.key not in self.back for cell in job.cells):
                self._lose(job, f"{self.names[node]}: not all records came back")
            else:
                self.done[job.table] = job.kind.tables[job.table]
                self.run.say(f"{len(self.done)} of {len(job.kind.tables)} tables are done")
        for task, job in list(self.pending.items()):
            if not job.kind.nodes:
                self.ray.cancel(task, force=True)
                del self.pending[task]
                self._lose(job, f"{job.node or 'every node of its kind'} was lost")

    def _lose(self, job: Job, why: str) -> None:
        """Place a table again, or give up."""
        first = job.cells[0]
        words = f"{first.task} / seed {first.seed}"
        self.lost[job.table] = self.lost.get(job.table, 0) + 1
        if self.lost[job.table] < ATTEMPTS:
            self.run.say(f"{why}; {words} runs elsewhere")
            self._place(job.table)
            return
        run = replace(self.run, machine=job.kind.plan.machine)
        for cell in job.cells:
            if cell.key not in self.back:
                reason = f"its node was lost {ATTEMPTS} times, the last time because {why}"
                record = make_record(cell, run, status="failed", reason=reason)
                if self.until is None:
                    store.append(run.record_file(cell), record)
                self.back[cell.key] = record
        self.run.say(f"{why}; {words} is given up after {ATTEMPTS} attempts")
        self.done[job.table] = job.kind.tables[job.table]

    def _stop(self) -> None:
        """End what still runs: after Ctrl-C, or a fault."""
        for task in self.pending:
            self.ray.cancel(task, force=False)
        if self.pending:
            self.ray.wait(list(self.pending), num_returns=len(self.pending), timeout=END_SECONDS)


def run_on_cluster(
    work: Work, run: Run, previous: Mapping[str, Record], *, address: str | None, again: Again, until: Until | None
) -> list[Record]:
    """Run a suite on an existing cluster. One record a cell, in the order of the plan; each is on the disk of this machine as soon as
    it is known here.

    previous: the last record of each cell key. address: HOST:PORT of the cluster's head; None: the cluster of this machine. again,
    until: as in `harness.run.executor.execute`. Raises QuantboardError where there is no cluster, or no node that can run the suite.
    """
    with connected(address) as ray:
        kinds = node_kinds(ray, work, run.say)
        inbox = ray.remote(Inbox).options(num_cpus=0, scheduling_strategy=here(ray)).remote()
        cells = [cell for kind in kinds for cell in kind.plan.cells if not cell.blocked]
        with locked_cells(cells, run.cache / "cluster"):  # nodes lock them in their own caches, and this may be one
            if not again:
                previous = store.newest_by_key([*previous.values(), *added_since(cells, run)])
            return Cluster(ray, inbox, kinds, work, run, previous, again, until).records()


def _group_task(group: Group, table: int, inbox: Any) -> tuple[str, str]:
    """The id of the node that this runs on, and the fault that ended it."""
    import ray

    node, sent = ray.get_runtime_context().get_node_id(), []

    def send(kind: str, content: Any) -> None:
        sent.append(
            inbox.put.remote((node, kind, content))
        )  # not waited for: Ray lends out the CPUs of a task that waits

    send("begin", table)
    _, fault = user_fault(run_group, group, send)
    ray.get(sent)
    return node, fault


class Inbox:
    """What nodes have sent, an actor on the driver's node."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, str, Any]] = []

    def put(self, message: tuple[str, str, Any]) -> None:
        self._messages.append(message)

    def take(self) -> list[tuple[str, str, Any]]:
        messages, self._messages = self._messages, []
        return messages
