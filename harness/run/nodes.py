"""An existing Ray cluster and its nodes: connecting to it, what each node can run, and which kind of node fits a table best."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from harness.errors import QuantboardError, printable
from harness.plan.keys import machine_identity
from harness.plan.spec import Cell
from harness.records.schema import Record
from harness.run.executor import group_by_table
from harness.run.node import NodePlan, Work, plan_here, user_fault

RAY = "ray>=2.60,<3"
PLAN_SECONDS = 900.0
"""How long nodes may take to plan, which reads the data; the run begins without those that take longer."""
ANSWER_SECONDS = 5.0
"""How long the head may take to accept a connection."""
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS
"""How a connection of HTTP/2 begins, to which its server answers with settings, too (RFC 9113, 3.4): the head speaks gRPC."""


@dataclass
class Kind:
    """Nodes with equal plans and resources. nodes: names by id; those that were lost or cannot run the suite are taken out."""

    plan: NodePlan
    cpus: float
    gpus: float
    memory: float
    nodes: dict[str, str]

    def __post_init__(self) -> None:
        self.tables = group_by_table(self.plan.cells)

    def options(self, cells: Iterable[Cell]) -> dict[str, Any]:
        """What a task asks Ray for: a whole node of this kind, and the memory that its cells may take."""
        return {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            "memory": min(self.memory, memory_of(cells)) or None,
            "label_selector": {"ray.io/node-id": f"in({','.join(self.nodes)})"},
            "max_retries": 0,  # it is placed again here, perhaps on another kind
        }


def memory_of(cells: Iterable[Cell]) -> float:
    """The largest memory in bytes that a process of the cells may take (`measure.memory_gib`)."""
    return max(((cell.measure.memory_gib or 0.0) * 2**30 for cell in cells), default=0.0)


def misfit(kind: Kind, table: int, finished: Mapping[str, Record]) -> tuple[float, ...]:
    """How badly a kind of node fits a table: cells that cannot run there; too little memory or too few cores for what they ask;
    cells still to be measured; fewer nodes."""
    cells = kind.tables[table]
    threads = max(cell.measure.threads for cell in cells)
    return (
        sum(cell.blocked is not None for cell in cells),
        memory_of(cells) > kind.memory,
        threads > kind.plan.machine.cores,
        len(cells) - len(finished),
        -len(kind.nodes),
    )


@contextmanager
def connected(address: str | None) -> Iterator[ModuleType]:
    """Inside the block Ray is connected to a cluster that runs already. Raises QuantboardError where there is none."""
    try:
        import ray
    except ImportError:
        raise QuantboardError(
            f"--executor ray: Ray is not installed; python -m pip install '{RAY}' here and on every node"
        ) from None
    if address:
        _check_answers(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        ray.init(address=address or "auto", log_to_driver=False, logging_level=logging.CRITICAL)
    except ConnectionError as error:
        if address:
            raise _cannot_connect(address, error) from None
        raise QuantboardError(
            "--executor ray: no Ray cluster runs on this machine; start one with `ray start --head`, or name its head with"
            " --address HOST:PORT (docs/cluster.md)"
        ) from None
    except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise _cannot_connect(address or "auto", error) from None
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():  # Ray sets its own
            signal.signal(number, handler)
    try:
        with redirect_stdout(sys.stderr):  # Ray prints what befalls nodes
            yield ray
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raises QuantboardError where an address is none, or nothing answers there: Ray itself would wait for a minute."""
    if address.startswith("ray://"):
        raise QuantboardError(
            f"--address: {address} is for Ray's client; run this command on a node of the cluster, with --address HOST:PORT of"
            " its head or none"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise QuantboardError(
            f"--address: '{address}' is not HOST:PORT; `ray start --head` prints it on the head, such as 10.0.0.1:6379"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS) as connection:
            connection.sendall(HTTP2)
            answer = connection.recv(9) if not os.environ.get("RAY_USE_TLS") else SETTINGS
    except TimeoutError:
        answer = b""
    except OSError as error:
        raise QuantboardError(
            f"--address: nothing answers at {address} ({error.strerror or error}); start the head there with `ray start --head"
            f" --port={port}`, or give the address that it printed"
        ) from None
    if answer[3:4] != SETTINGS[3:4]:
        raise QuantboardError(
            f"--address: what answers at {address} is no Ray head; `ray start --head` prints the head's address, most often with"
            " port 6379"
        )


def _cannot_connect(address: str, error: Exception) -> QuantboardError:
    why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return QuantboardError(
        f"--address: cannot connect to a Ray cluster at {address}: {printable(why)}; run this command on a node of the cluster"
        " (after `ray start --address=HOST:PORT`), with the Ray version of its head"
    )


def here(ray: ModuleType) -> Any:
    """Ray's strategy for what must run on the driver's own node."""
    return _on(ray.get_runtime_context().get_node_id())


def _on(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def node_kinds(ray: ModuleType, work: Work, say: Callable[[str], None]) -> list[Kind]:
    """The cluster's nodes by what they can run. Raises QuantboardError where none can run the suite."""
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")}
    names = _names(nodes)
    plan = ray.remote(_plan_task)
    tasks = {
        plan.options(num_cpus=0, max_retries=0, scheduling_strategy=_on(node)).remote(work): node for node in nodes
    }
    answered, late = ray.wait(list(tasks), num_returns=len(tasks), timeout=PLAN_SECONDS) if tasks else ([], [])
    faults = {tasks[task]: f"no plan after {PLAN_SECONDS:.0f} s; look at its network and data" for task in late}
    kinds: dict[Any, Kind] = {}
    for task in answered:
        node = tasks[task]
        try:
            made, fault = ray.get(task)
        except ray.exceptions.RayError as error:
            made, fault = None, _words_of(error)
        if fault:
            faults[node] = fault
            continue
        has = nodes[node]["Resources"]
        resources = (has["CPU"], has.get("GPU", 0.0), has.get("memory", 0.0))
        facts = machine_identity(made.machine), made.machine.flags, *((cell.key, cell.blocked) for cell in made.cells)
        kind = kinds.setdefault((facts, resources[:2]), Kind(made, *resources, {}))
        kind.memory = min(kind.memory, resources[2])
        kind.nodes[node] = names[node]
    for node, fault in faults.items():
        say(f"{names[node]} is left out: {fault}")
    if not kinds:
        raise QuantboardError(
            "no node of the Ray cluster can run this suite"
            + (": the reasons stand above" if faults else "; start nodes with `ray start --address=HOST:PORT`")
        )
    for kind in kinds.values():
        count = len(kind.nodes)
        say(
            f"{count} node{'s' if count > 1 else ''} ({', '.join(kind.nodes.values())}): {machine_identity(kind.plan.machine)}"
        )
    return list(kinds.values())


def _names(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """How messages name nodes, by id: their host's name, and the beginning of the id where several have the same."""
    hosts = Counter(node["NodeManagerHostname"] for node in nodes.values())
    return {
        key: node["NodeManagerHostname"] + (f" {key[:6]}" if hosts[node["NodeManagerHostname"]] > 1 else "")
        for key, node in nodes.items()
    }


def _words_of(error: Exception) -> str:
    """Why a task could not run on a node, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if any("No module named" in line for line in lines):
        return "quantboard does not import there; install the same version as here"
    return printable(lines[-1]) if lines else type(error).__name__


def _plan_task(work: Work) -> tuple[NodePlan | None, str]:
    return user_fault(plan_here, work)
