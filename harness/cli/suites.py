"""The verbs that work on a suite: validate, plan, run, data; and score, which needs a task alone."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.arguments import Verbs, add_data, add_suite, add_tasks, add_verb, data_words, positive, whole
from harness.cli.live import live_view
from harness.cli.terminal import plan_json, print_plan, print_records, say
from harness.errors import QuantboardError, disk_fault

if TYPE_CHECKING:
    from harness.machine.hardware import Machine
    from harness.plan.data import DataOrReason
    from harness.plan.plan import Plan
    from harness.records.schema import Record
    from harness.run.context import Again, Until
    from harness.suite.tables import Suite
    from tasks import DataIdentity, DataRef


@dataclass(frozen=True)
class RunOptions:
    """Which cells of a suite to plan or run, and how far.

    data: a folder, `sample`, `real`, or None for the hub and else the sample. models, tasks, backends, seeds: only these;
    all where empty. limit: examples of each evaluation split; all where None. until: the step after which cells stop.
    again: what of cells that have a measured record is measured again.
    """

    suite: str
    data: str | None = None
    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    limit: int | None = None
    until: Until | None = None
    again: Again = ""


def run_options(arguments: argparse.Namespace) -> RunOptions:
    """The arguments of `plan` or `run`."""
    return RunOptions(
        suite=arguments.suite,
        data=arguments.data,
        models=tuple(arguments.model),
        tasks=tuple(arguments.task),
        backends=tuple(arguments.backend),
        seeds=tuple(arguments.seed),
        limit=arguments.limit,
        until=getattr(arguments, "until", None),
        again=getattr(arguments, "again", ""),
    )


def add_verbs(verbs: Verbs) -> None:
    parser = add_verb(verbs, "validate", validate, "check a suite file, without downloading or running anything")
    add_suite(parser)

    parser = add_verb(verbs, "plan", plan, "list the cells that `run` would run here, without using the network")
    add_suite(parser)
    _add_choice(parser)
    parser.add_argument(
        "--assume",
        action="append",
        default=[],
        choices=["gpu", "hub"],
        help="plan as if this machine had a GPU with its engines installed (gpu), or could reach the hub (hub)",
    )

    parser = add_verb(verbs, "run", run, "train or load every model, measure it on every backend, record each cell")
    add_suite(parser)
    _add_choice(parser)
    parser.add_argument(
        "--until",
        choices=["train", "quantize", "build", "score"],
        help="stop every cell after this step, without a record; a later run at the same commit continues from there",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--fresh",
        dest="again",
        action="store_const",
        const="all",
        default="",
        help="run cells again that have a record",
    )
    again.add_argument(
        "--remeasure",
        dest="again",
        action="store_const",
        const="speed",
        help="measure the speed of cells that have a record again, and keep their scores",
    )

    text = "write the data that a suite needs into a folder, for machines without a network"
    parser = add_verb(verbs, "data", data, text)
    add_suite(parser)
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="new or empty folder; pass it to `run --data DIR` there"
    )
    add_data(parser)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    """Which cells of a suite."""
    add_data(parser, "the hub, or the sample if the hub cannot be reached")
    for name in ("model", "backend"):
        parser.add_argument(
            f"--{name}", action="append", default=[], metavar="NAME", help=f"only this {name} (may be repeated)"
        )
    add_tasks(parser)
    parser.add_argument(
        "--seed", action="append", default=[], type=whole, metavar="N", help="only this seed (may be repeated)"
    )
    parser.add_argument(
        "--limit",
        type=positive,
        metavar="N",
        help="evaluate only N examples, drawn at random with a fixed seed; never ranked with whole evaluations",
    )


def validate(arguments: argparse.Namespace) -> int:
    from harness.suite.load import load_suite

    suite = load_suite(arguments.suite)
    print(json.dumps({"suite": suite.name, "problems": []}) if arguments.json else f"{suite.name}: no problems")
    return 0


def plan(arguments: argparse.Namespace) -> int:
    planned = plan_offline(run_options(arguments), arguments.assume)
    print(json.dumps(plan_json(planned))) if arguments.json else print_plan(planned)
    return 0


def plan_offline(options: RunOptions, assume: Collection[str] = ()) -> Plan:
    """The plan that `run` would make, without the network: the hub counts as unreachable unless it is assumed.

    assume: `gpu`, `hub`, or both.
    """
    from harness.machine import hardware
    from harness.plan.data import find_data, identities
    from harness.suite.load import load_suite
    from tasks import DataRef

    suite = load_suite(options.suite)
    hub = "hub" in assume
    machine = hardware.describe()
    if "gpu" in assume:
        machine = hardware.assume_gpu(machine)
    data = find_data(suite, options.data, lambda: hub, options.tasks)
    local = {task: ref for task, ref in data.items() if not (isinstance(ref, DataRef) and ref.kind == "hub")}
    return _make_plan(suite, options, data, identities(local), machine, hub)


def _make_plan(
    suite: Suite,
    options: RunOptions,
    data: Mapping[str, DataOrReason],
    known: Mapping[str, DataIdentity],
    machine: Machine,
    hub: bool,
    revisions: Mapping[str, str] | None = None,
) -> Plan:
    from harness.plan.plan import make_plan

    return make_plan(
        suite,
        data=data,
        identities=known,
        machine=machine,
        models=options.models,
        tasks=options.tasks,
        backends=options.backends,
        seeds=options.seeds,
        limit=options.limit,
        hub=hub,
        revisions=revisions,
    )


def run(arguments: argparse.Namespace) -> int:
    records = run_suite(run_options(arguments), show_progress=not arguments.json or sys.stderr.isatty())
    if arguments.json:
        print(json.dumps([record.model_dump() for record in records]))
    else:
        print_records(records, arguments.until)
    if all(record.status == "skipped" for record in records):
        say(nothing_ran(records))
        return 1
    return 1 if any(record.status == "failed" for record in records) else 0


def nothing_ran(records: Sequence[Record]) -> str:
    """Why every cell was skipped: the reason that most of them have, with its remedy."""
    reasons = Counter((record.reason, record.remedy) for record in records)
    ((reason, remedy), _) = reasons.most_common(1)[0]
    more = (
        f" (and {len(reasons) - 1} other reasons)"
        if len(reasons) > 2
        else " (and another reason)"
        if len(reasons) > 1
        else ""
    )
    return f"nothing was run, all {len(records)} cells were skipped: {reason}; {remedy}{more}"


def run_suite(options: RunOptions, *, show_progress: bool) -> list[Record]:
    """Find the data, plan, and run every cell. One record a cell, in the order of the plan."""
    from harness.checkpoints.hub import hub_revisions
    from harness.machine import hardware, paths
    from harness.plan.data import find_data, hub_sources, identities
    from harness.records import store
    from harness.run.context import new_run
    from harness.run.estimate import estimate
    from harness.run.events import unwatched
    from harness.run.executor import execute
    from harness.suite.load import load_suite
    from tasks.sources import hub_reachable

    suite = load_suite(options.suite)
    machine = hardware.describe()
    hub = cache(hub_reachable)  # asked at most once, and only where the answer matters
    data = find_data(suite, options.data, hub, options.tasks)
    known = identities(data)
    needs_hub = bool(hub_sources(suite)) and not all(_is_sample(source) for source in data.values())
    online = needs_hub and hub()
    planned = _make_plan(suite, options, data, known, machine, online, hub_revisions(suite) if online else {})
    _check_plan(planned, options)
    view = live_view(planned, machine, timed=options.until is None) if show_progress else None
    execution = new_run(
        suite.name,
        suite.title,
        command=command(options),
        machine=machine,
        identities=known,
        say=view.say if view else say,
        show_progress=show_progress and not view,
        watch=view.watch if view else unwatched,
    )
    newest = store.newest_by_key(record for _, record in store.read(paths.results()))
    lines = list(estimate(planned, newest, execution.cache, known, fresh=bool(options.again), gpu=bool(machine.gpus)))
    for line in lines[-1:] if view else lines:
        say(line)
    with view or nullcontext():
        records = list(execute(planned.cells, execution, newest, again=options.again, until=options.until))
    position = {cell.key: number for number, cell in enumerate(planned.cells)}
    return sorted(records, key=lambda record: position[record.key])


def _is_sample(source: DataOrReason) -> bool:
    from tasks import DataRef

    return isinstance(source, DataRef) and source.kind == "sample"


def _check_plan(planned: Plan, options: RunOptions) -> None:
    """Raises QuantboardError for a plan without cells; says so where the cells run on the sample."""
    from harness.plan.spec import SAMPLE_NOTICE

    suite = planned.suite
    if not planned.cells:
        raise QuantboardError(
            f"{suite.name}: no cell has this --model, --task, --backend and --seed; `quantboard plan {options.suite}`"
            " lists all cells"
        )
    for note in planned.notes:
        say(note)
    if planned.on_sample:
        say(SAMPLE_NOTICE)
        if not (options.data or suite.data):
            say("  (the hub cannot be reached, and no --data was given; --data DIR takes real data from a folder)")


def command(options: RunOptions) -> str:
    """The command that repeats a run."""
    words = ["quantboard", "run", _suite_word(options.suite), *data_words(options.data)]
    chosen = {
        "--model": options.models,
        "--task": options.tasks,
        "--backend": options.backends,
        "--seed": options.seeds,
        "--limit": (options.limit,) if options.limit else (),
    }
    words += [word for name, values in chosen.items() for value in values for word in (name, str(value))]
    return shlex.join(words)


def _suite_word(given: str) -> str:
    """A suite's name where its file lies among the suites, else the name of its file alone: the folders of this machine
    mean nothing on another."""
    from harness.machine import paths

    path = Path(given)
    if path.name == given and path.suffix != ".toml":
        return given
    return path.stem if path.resolve().parent == paths.suites().resolve() else f"./{path.name}"


def data(arguments: argparse.Namespace) -> int:
    written = write_data(arguments.suite, arguments.folder, arguments.data)
    print(json.dumps(written) if arguments.json else "\n".join(written))
    return 0


def write_data(suite_name: str, folder: Path, option: str | None) -> list[str]:
    """Write the data of every task of a suite as folders of `datasets.save_to_disk`, and the text corpus beside them where
    a stage of the suite reads one. Returns the paths of what was written. option: where to take the data, as for `run`.

    Raises TaskError for data that cannot be had, QuantboardError for a folder that cannot be written to.
    """
    from harness.plan.data import find_data
    from harness.suite.load import load_suite
    from tasks import DataRef, TaskError
    from tasks.sources import hub_reachable, write_saved

    suite = load_suite(suite_name)
    refs: dict[str, DataRef] = {}
    for task, source in find_data(suite, option, hub_reachable).items():
        if not isinstance(source, DataRef):
            raise TaskError(f"{task}: {source[0]}; {source[1]}")
        if source.kind == "sample" and (option or suite.data) != "sample":
            raise TaskError(
                f"{task}: the hub cannot be reached; give --data DIR, or --data sample to write the generated sample"
            )
        refs[task] = source
    written = [str(path) for task, ref in refs.items() for path in write_saved([task], ref, folder)]
    if _reads_corpus(suite):
        written += _copy_corpus(refs.values(), folder / "corpus")
    return written


def _reads_corpus(suite: Suite) -> bool:
    stages = [model.distill for model in suite.models.values() if model.distill]
    return any(stage.general is not None or (stage.augment and stage.augment.train) for stage in stages)


def _copy_corpus(refs: Collection[DataRef], target: Path) -> list[str]:
    from harness.plan.sources import corpus_files

    written: list[str] = []
    for file in dict.fromkeys(path for ref in refs for path in corpus_files(ref)):
        copy = target / file.name
        if copy.exists():
            raise QuantboardError(f"{copy}: already exists; name another folder")
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        except OSError as error:
            raise QuantboardError(disk_fault(error, copy, "name another folder", "cannot be written")) from None
        written.append(str(copy))
    return written
