"""What a verb does before the runner runs: find the suite, the data, the machine; make the plan."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.terminal import _say
from harness.errors import QuantboardError, disk_fault
from harness.machine import hardware, paths
from harness.machine.hardware import Machine
from harness.plan.plan import Plan, make_plan
from harness.plan.spec import SAMPLE_NOTICE
from harness.suite.load import load_suite
from harness.suite.tables import Suite
from tasks import DataIdentity, DataRef, TaskError, open_task, task_names

if TYPE_CHECKING:
    from harness.records.schema import Record
from harness.checkpoints.hub import hub_revisions
from harness.plan.data import DataOrReason, find_data, hub_sources, identities
from harness.run.context import new_run


def validate(options: argparse.Namespace) -> int:
    from harness.suite.load import load_suite

    suite = load_suite(options.suite)
    if options.json:
        print(json.dumps({"suite": suite.name, "problems": []}))
    else:
        print(f"{suite.name}: no problems")
    return 0


def show_plan(options: argparse.Namespace) -> int:
    from harness.cli.terminal import plan_json, print_plan

    plan = plan_offline(options)
    print(json.dumps(plan_json(plan))) if options.json else print_plan(plan)
    return 0


def run(options: argparse.Namespace) -> int:
    from harness.cli.terminal import print_records

    records = run_suite(options, command(options), _say)
    if options.json:
        print(json.dumps([entry.model_dump() for entry in records]))
    else:
        print_records(records, options.until)
    return 1 if any(entry.status == "failed" for entry in records) else 0


def command(options: argparse.Namespace) -> str:
    """The command that repeats a run; the data's folder is called DIR, since its place says nothing about it."""
    words = ["quantboard", "run", _suite_word(options.suite)]
    if options.data:
        words += ["--data", options.data if options.data in ("sample", "real") else "DIR"]
    for name in ("model", "task", "backend", "seed"):
        for value in getattr(options, name):
            words += [f"--{name}", str(value)]
    if options.limit:
        words += ["--limit", str(options.limit)]
    return shlex.join(words)


def _suite_word(given: str) -> str:
    """A suite's name where its file lies among the suites; else the file's name alone, since folders of this machine say
    nothing to who repeats it."""
    from harness.machine import paths

    path = Path(given)
    if path.name == given and path.suffix != ".toml":
        return given
    return path.stem if path.resolve().parent == paths.suites().resolve() else f"./{path.name}"


def score(options: argparse.Namespace) -> int:
    found = score_predictions(options.task, options.predictions, options.data, options.split)
    print(json.dumps(found, indent=None if options.json else 2))
    return 0


def data(options: argparse.Namespace) -> int:
    written = write_data(options.suite, options.folder, options.data)
    print(json.dumps(written)) if options.json else print("\n".join(written))
    return 0


def plan_offline(options: argparse.Namespace) -> Plan:
    """The plan as `run` would make it, without asking the network: the hub counts as unreachable unless it is assumed."""
    suite = load_suite(options.suite)
    hub = "hub" in options.assume
    machine = hardware.describe()
    if "gpu" in options.assume:
        machine = hardware.assume_gpu(machine)
    found = find_data(suite, options.data, lambda: hub, options.task)
    known = identities(
        {task: ref for task, ref in found.items() if not (isinstance(ref, DataRef) and ref.kind == "hub")}
    )
    return _plan(suite, options, found, known, machine, hub)


def _plan(
    suite: Suite,
    options: argparse.Namespace,
    found: Mapping[str, DataOrReason],
    known: Mapping[str, DataIdentity],
    machine: Machine,
    hub: bool,
    revisions: Mapping[str, str] | None = None,
) -> Plan:
    return make_plan(
        suite,
        data=found,
        identities=known,
        machine=machine,
        models=options.model,
        tasks=options.task,
        backends=options.backend,
        seeds=options.seed,
        limit=options.limit,
        hub=hub,
        revisions=revisions,
    )


def run_suite(options: argparse.Namespace, command: str, say: Callable[[str], None]) -> list[Record]:
    """The whole way for one suite: data, plan, every cell; one record a cell."""

    from harness.records import store
    from harness.run.estimate import estimate
    from harness.run.executor import execute
    from tasks.sources import hub_reachable

    suite = load_suite(options.suite)
    machine = hardware.describe()
    probed: list[bool] = []

    def hub() -> bool:
        if not probed:
            probed.append(hub_reachable())
        return probed[0]

    found = find_data(suite, options.data, hub, options.task)
    known = identities(found)
    needs_hub = bool(hub_sources(suite))
    on_sample = all(isinstance(ref, DataRef) and ref.kind == "sample" for ref in found.values())
    online = needs_hub and not on_sample and hub()
    plan = _plan(suite, options, found, known, machine, online, hub_revisions(suite) if online else {})
    if not plan.cells:
        raise QuantboardError(
            f"{suite.name}: --model, --task and --backend leave no cell; `quantboard plan {options.suite}` lists them"
        )
    if plan.on_sample:
        say(SAMPLE_NOTICE)
        if not (options.data or suite.data):
            say("  (the hub does not answer and no --data was given; --data DIR takes real data from a folder)")
    execution = new_run(
        suite.name,
        suite.title,
        command=command,
        machine=machine,
        identities=known,
        say=say,
        show_progress=not options.json or sys.stderr.isatty(),
    )
    before = store.newest_by_key(record for _, record in store.read(paths.results()))
    for line in estimate(plan, before, execution.cache, known, fresh=options.fresh, gpu=bool(machine.gpus)):
        say(line)
    done = list(execute(plan.cells, execution, before, fresh=options.fresh, until=options.until))
    place = {cell.key: number for number, cell in enumerate(plan.cells)}
    return sorted(done, key=lambda entry: place[entry.key])


def score_predictions(name: str, path: Path, data: str | None, split: str | None = None) -> dict[str, Any]:
    """Official metrics in percent of a predictions file, with 95% intervals. `split`: default the task's first.

    Raises TaskError for unknown ids, a file that is not what the task expects, or data that cannot be had.
    """
    from harness.measure.intervals import intervals
    from tasks.sources import hub_reachable, resolve

    if name in task_names() and not path.exists():  # before the hub is asked
        raise TaskError(f"{path}: no such file; give the predictions as JSON")
    ref = resolve(name, data, hub_reachable() if data in (None, "real") else False)
    if not isinstance(ref, DataRef):
        raise TaskError(f"{name}: {ref[0]}; {ref[1]}")
    if data is None and ref.kind == "sample":
        raise TaskError(f"{name}: no data to score against: the hub does not answer; give --data DIR")
    task = open_task(name, ref)
    split = split or task.eval_splits[0]
    if split not in task.eval_splits:
        raise TaskError(f"{name}: there is no evaluation split '{split}'; there is {', '.join(task.eval_splits)}")
    examples = task.examples(split)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}") from None
    scores = task.score(examples, task.predictions_from_json(examples, text, str(path)))
    figures = intervals(scores)
    found: dict[str, Any] = {metric: figure.value for metric, figure in figures.items()}
    found |= {"n": len(examples), "missing": scores.missing, "split": split, "data": task.identity.splits[split].label}
    found["intervals"] = {
        metric: {"low": figure.low, "high": figure.high, "confidence": 0.95, "method": figure.method}
        for metric, figure in figures.items()
    }
    return found


def write_data(suite_name: str, folder: Path, option: str | None) -> list[str]:
    """Write every task's data of a suite as folders of `datasets.save_to_disk`, and the text corpus beside it where a stage
    of the suite reads that; returns what was written."""
    from harness.plan.sources import corpus_files
    from tasks.sources import hub_reachable, write_saved

    suite = load_suite(suite_name)
    written: list[str] = []
    found = find_data(suite, option, hub_reachable)
    for task, ref in found.items():
        if isinstance(ref, DataRef) and ref.kind == "sample" and (option or suite.data) != "sample":
            raise TaskError(
                f"{task}: no real data: the hub does not answer; give --data DIR, or --data sample to write the generated sample"
            )
    for task, ref in found.items():
        if not isinstance(ref, DataRef):
            raise TaskError(f"{task}: {ref[0]}; {ref[1]}")
        written += [str(path) for path in write_saved([task], ref, folder)]
    stages = [model.distill for model in suite.models.values() if model.distill]
    reads = any(one.general is not None or (one.augment and one.augment.train) for one in stages)
    refs = [ref for ref in found.values() if isinstance(ref, DataRef) and reads]
    for file in dict.fromkeys(path for ref in refs for path in corpus_files(ref)):
        copy = folder / "corpus" / file.name
        if copy.exists():
            raise QuantboardError(f"{copy}: is there already and is not written over; name another folder")
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        except OSError as error:
            raise QuantboardError(disk_fault(error, copy, "name another folder")) from None
        written.append(str(copy))
    return written
