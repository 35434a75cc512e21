"""The verbs that work on a suite: validate, plan, run."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.arguments import (
    Verbs,
    add_data,
    add_executor,
    add_rows,
    add_suite,
    add_tasks,
    add_verb,
    csv_line,
    data_words,
    positive,
    whole,
)
from harness.cli.live import live_view
from harness.cli.plan_lines import plan_lines
from harness.cli.run_lines import run_lines
from harness.cli.terminal import plan_json, say, tell
from harness.errors import QuantboardError, visible

if TYPE_CHECKING:
    from harness.machine.hardware import Machine
    from harness.plan.data import DataOrReason
    from harness.plan.plan import Plan
    from harness.records.schema import Record
    from harness.records.scores import ScoreStore
    from harness.run.context import Again, Until
    from harness.suite.tables import Suite
    from tasks import DataIdentity


@dataclass(frozen=True)
class RunOptions:
    """Which cells of a suite to plan or run, and how far.

    data: a folder, `sample`, `real`, or None for the hub and else the sample. models, tasks, backends, seeds: only these;
    all where empty. limit: examples of each evaluation split; all where None. until: the step after which cells stop.
    again: what of cells that have a measured record is measured again. skip_bad_rows: leave out rows that cannot be used. labels:
    names of the outputs of loaded models that have none. executor: `local`, or `ray` for the nodes of the cluster whose head has
    `address`, which share artefacts in the folder or URL `artefacts`.
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
    skip_bad_rows: bool = False
    labels: tuple[str, ...] = ()
    executor: str = "local"
    address: str | None = None
    artefacts: str = ""


def run_options(arguments: argparse.Namespace) -> RunOptions:
    """The arguments of `plan` or `run`. Raises QuantboardError for options of a cluster without one."""
    executor = getattr(arguments, "executor", "local")
    for name in ("address", "artefacts"):
        if executor == "local" and getattr(arguments, name, None):
            raise QuantboardError(f"--{name}: is for a cluster only; add --executor ray")
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
        skip_bad_rows=arguments.skip_bad_rows,
        labels=tuple(arguments.labels),
        executor=executor,
        address=getattr(arguments, "address", None),
        artefacts=getattr(arguments, "artefacts", None) or "",
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
    add_executor(parser)


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
    add_rows(parser)
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
    print(json.dumps(plan_json(planned)) if arguments.json else "\n".join(plan_lines(planned)))
    return 0


def plan_offline(options: RunOptions, assume: Collection[str] = ()) -> Plan:
    """The plan that `run` would make, without the network: the hub counts as unreachable unless it is assumed.

    assume: `gpu`, `hub`, or both.
    """
    from harness.machine import hardware
    from harness.plan.data import find_data, identities
    from tasks import DataRef

    suite = _load(options)
    hub = "hub" in assume
    machine = hardware.describe()
    if "gpu" in assume:
        machine = hardware.assume_gpu(machine)
    data = find_data(suite, options.data, lambda: hub, options.tasks, skip_bad_rows=options.skip_bad_rows)
    local = {task: ref for task, ref in data.items() if not (isinstance(ref, DataRef) and ref.kind == "hub")}
    return _make_plan(suite, options, data, identities(local), machine, hub)


def _load(options: RunOptions) -> Suite:
    """The suite, with the names of --labels for loaded models. Raises QuantboardError."""
    from harness.suite.load import load_suite

    suite = load_suite(options.suite)
    if not options.labels:
        return suite
    chosen = [name for name in options.models or suite.models if name in suite.models]
    named = [name for name in chosen if suite.models[name].recipe == "load" and not suite.models[name].labels]
    if not named:
        raise QuantboardError(
            "--labels: no chosen model is loaded without names of its own; set labels in the suite file"
        )
    models = {
        name: model.model_copy(update={"labels": options.labels})
        for name, model in suite.models.items()
        if name in named
    }
    return suite.model_copy(update={"models": {**suite.models, **models}})


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

    return make_plan(suite, data=data, identities=known, machine=machine, **_choice(options, hub, revisions))


def _choice(options: RunOptions, hub: bool, revisions: Mapping[str, str] | None) -> dict[str, Any]:
    """The arguments of `make_plan` that are the same on every machine."""
    names = ("models", "tasks", "backends", "seeds", "limit")
    return {name: getattr(options, name) for name in names} | {"hub": hub, "revisions": revisions}


def run(arguments: argparse.Namespace) -> int:
    records, stored = run_suite(run_options(arguments), show_progress=not arguments.json or sys.stderr.isatty())
    if arguments.json:
        print(json.dumps([record.model_dump() for record in records]))
    else:
        print(visible("\n".join(run_lines(records, arguments.until, stored))))
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


def run_suite(options: RunOptions, *, show_progress: bool) -> tuple[list[Record], ScoreStore]:
    """Find the data, plan, and run every cell. One record a cell, in the order of the plan, and the scores of all records."""
    from harness.checkpoints.hub import hub_revisions
    from harness.machine import hardware, paths
    from harness.plan.data import find_data, hub_sources, identities
    from harness.records import store
    from harness.records.scores import ScoreStore
    from harness.run.context import new_run
    from harness.run.estimate import estimate
    from harness.run.events import unwatched
    from harness.run.executor import execute
    from tasks.sources import hub_reachable

    suite = _load(options)
    machine = hardware.describe()
    hub = cache(hub_reachable)  # asked at most once, and only where the answer matters
    data = find_data(suite, options.data, hub, options.tasks, skip_bad_rows=options.skip_bad_rows)
    known = identities(data)
    needs_hub = bool(hub_sources(suite)) and not all(_is_sample(source) for source in data.values())
    online = needs_hub and hub()
    revisions = hub_revisions(suite) if online else {}
    planned = _make_plan(suite, options, data, known, machine, online, revisions)
    _check_plan(planned, options)
    local = options.executor == "local"
    view = live_view(planned, machine, timed=options.until is None) if show_progress and local else None
    seen = store.sizes(paths.results())
    read = list(store.read(paths.results(), tell))
    recorded = [record for _, record in read]
    folder = folder_id(suite.folder)
    _check_folder(planned, folder, recorded)
    execution = new_run(
        suite.name,
        suite.title,
        suite_folder=folder,
        command=command(options),
        machine=machine,
        identities=known,
        say=view.say if view else say,
        show_progress=show_progress and not view,
        watch=view.watch if view else unwatched,
        stored=ScoreStore(read, tell),
        seen=seen,
    )
    newest = store.newest_by_key(recorded)
    if not local:
        from harness.run.cluster import run_on_cluster
        from harness.run.node import Work

        work = Work(suite, data, _choice(options, online, revisions), execution.code, options.artefacts)
        how: dict[str, Any] = {"address": options.address, "again": options.again, "until": options.until}
        return run_on_cluster(work, execution, newest, **how), execution.stored
    lines = list(estimate(planned, newest, execution.cache, known, fresh=bool(options.again), gpu=bool(machine.gpus)))
    for line in lines[-1:] if view else lines:
        say(line)
    with view or nullcontext():
        records = list(execute(planned.cells, execution, newest, again=options.again, until=options.until))
    position = {cell.key: number for number, cell in enumerate(planned.cells)}
    return sorted(records, key=lambda record: position[record.key]), execution.stored


def folder_id(folder: Path) -> str:
    """What a record says of its suite file's folder; empty for the folder of our suites."""
    from harness.machine import paths
    from harness.machine.digests import digest

    folder = folder.resolve()
    return "" if folder == paths.suites().resolve() else digest(str(folder))[:12]


def _check_folder(planned: Plan, folder: str, recorded: Sequence[Record]) -> None:
    """Raises QuantboardError where a suite file of the same name in another folder has records of the same models: tables would
    show one in place of the other."""
    from harness.machine import paths

    name, models = planned.suite.name, {cell.model for cell in planned.cells}
    is_ours = (paths.suites() / f"{name}.toml").is_file()
    for record in recorded:
        known = bool(record.suite_folder) or is_ours  # earlier records do not say it
        if known and record.suite_folder != folder and record.suite == name and record.model in models:
            place = paths.results() / name
            raise QuantboardError(
                f"{name}: a suite file of this name in another folder has records of model '{record.model}', which this run's would"
                f" replace; rename this file, or delete {place} if its folder was moved"
            )


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
        "--labels": (csv_line(options.labels),) if options.labels else (),
    }
    words += [word for name, values in chosen.items() for value in values for word in (name, str(value))]
    words += ["--skip-bad-rows"] if options.skip_bad_rows else []
    return shlex.join(words)


def _suite_word(given: str) -> str:
    """A suite's name where its file lies among the suites, else the name of its file alone: the folders of this machine
    mean nothing on another."""
    from harness.machine import paths

    path = Path(given)
    if path.name == given and path.suffix != ".toml":
        return given
    return path.stem if path.resolve().parent == paths.suites().resolve() else f"./{path.name}"
