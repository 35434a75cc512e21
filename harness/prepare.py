"""What a verb does before the runner runs: find the suite, the data, the machine; make the plan."""

from __future__ import annotations

import argparse
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import machine, paths
from harness.cells import SAMPLE_NOTICE
from harness.errors import QuantboardError
from harness.machine import code_digest, commit
from harness.plan import Plan, make_plan
from harness.sources import hub_revision
from harness.suite import Suite, load_suite
from tasks import DataIdentity, DataRef, TaskError, data_identity, open_task, task_names

if TYPE_CHECKING:
    from harness.executor import Run
    from harness.record import Record

Found = DataRef | tuple[str, str]
"""A task's data, or why it cannot be had here and the remedy."""


def find_data(suite: Suite, option: str | None, hub: Callable[[], bool], tasks: Sequence[str] = ()) -> dict[str, Found]:
    """Where each task's rows come from (tasks: the suite's that are asked for; default all). A broken or missing folder that the user named is an error, not a fall-back."""
    from tasks.sources import resolve

    option = option or suite.data
    needs_hub = option in (None, "real")
    reachable = hub() if needs_hub else False
    return {task: resolve(task, option, reachable) for task in suite.tasks if not tasks or task in tasks}


def identities(found: Mapping[str, Found]) -> dict[str, DataIdentity]:
    return {task: data_identity(task, ref) for task, ref in found.items() if isinstance(ref, DataRef)}


def hub_revisions(suite: Suite) -> dict[str, str]:
    """What the hub holds of the suite's models now, asked before anything is downloaded: it is part of their keys."""
    found = {source: hub_revision(source) for source in hub_sources(suite)}
    return {source: revision for source, revision in found.items() if revision}


def hub_sources(suite: Suite) -> list[str]:
    """The models of the hub that a suite starts from, those that propose words among them."""
    sources = [model.source for model in suite.models.values()]
    sources += [one.distill.augment.masked_lm for one in suite.models.values() if one.distill and one.distill.augment]
    return list(dict.fromkeys(source for source in sources if source.startswith("hub:")))


def plan_offline(options: argparse.Namespace) -> Plan:
    """The plan as `run` would make it, without asking the network: the hub counts as unreachable unless it is assumed."""
    suite = load_suite(options.suite)
    hub = "hub" in options.assume
    here = machine.describe()
    if "gpu" in options.assume:
        here = machine.assume_gpu(here)
    found = find_data(suite, options.data, lambda: hub, options.task)
    known = identities(
        {task: ref for task, ref in found.items() if not (isinstance(ref, DataRef) and ref.kind == "hub")}
    )
    return _plan(suite, options, found, known, here, hub)


def _plan(
    suite: Suite,
    options: argparse.Namespace,
    found: Mapping[str, Found],
    known: Mapping[str, DataIdentity],
    here: Mapping[str, Any],
    hub: bool,
    revisions: Mapping[str, str] | None = None,
) -> Plan:
    return make_plan(
        suite,
        data=found,
        identities=known,
        machine=here,
        models=options.model,
        tasks=options.task,
        backends=options.backend,
        seeds=options.seed,
        limit=options.limit,
        hub=hub,
        revisions=revisions,
    )


def make_cache() -> None:
    """Raises QuantboardError where the cache's folder cannot be made or written to."""
    folder = paths.cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise QuantboardError(
            f"QUANTBOARD_CACHE: {folder}: cannot be written to ({error.strerror}); name a folder that can"
        ) from None


def new_run(
    suite: str,
    title: str,
    *,
    command: str,
    machine: Mapping[str, Any],
    identities: Mapping[str, DataIdentity],
    say: Callable[[str], None],
    show_progress: bool,
) -> Run:
    """An execution that begins now, on this state of the code."""
    from harness.executor import Run

    make_cache()
    code, (sha, dirty) = code_digest(), commit()
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    return Run(
        run_id=run_id,
        suite=suite,
        title=title,
        results=paths.results(),
        cache=paths.cache(),
        command=command,
        machine=dict(machine),
        commit=sha,
        dirty=dirty,
        code=code,
        identities=identities,
        say=say,
        show_progress=show_progress,
    )


def run_suite(options: argparse.Namespace, command: str, say: Callable[[str], None]) -> list[Record]:
    """The whole way for one suite: data, plan, every cell; one record a cell."""
    import sys

    from harness.estimate import estimate
    from harness.executor import done_before, execute
    from tasks.sources import hub_reachable

    suite = load_suite(options.suite)
    here = machine.describe()
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
    plan = _plan(suite, options, found, known, here, online, hub_revisions(suite) if online else {})
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
        machine=here,
        identities=known,
        say=say,
        show_progress=not options.json or sys.stderr.isatty(),
    )
    before = done_before(paths.results())
    for line in estimate(plan, before, execution.cache, known, fresh=options.fresh, gpu=bool(here["gpus"])):
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
    from harness.sources import corpus_files
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
            raise QuantboardError(f"{copy}: {error.strerror}; free some space") from None
        written.append(str(copy))
    return written
