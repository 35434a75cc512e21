"""The verb `data`: the data of a suite in a folder, for machines without a network."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.arguments import Verbs, add_data, add_suite, add_verb
from harness.cli.terminal import say
from harness.errors import QuantboardError, disk_fault

if TYPE_CHECKING:
    from harness.suite.tables import Suite
    from tasks import DataRef


def add_verbs(verbs: Verbs) -> None:
    text = "write the data that a suite needs into a folder, for machines without a network"
    parser = add_verb(verbs, "data", data, text)
    add_suite(parser)
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="new or empty folder; pass it to `run --data DIR` there"
    )
    add_data(parser)


def data(arguments: argparse.Namespace) -> int:
    written = write_data(arguments.suite, arguments.folder, arguments.data)
    for line in [json.dumps(written)] if arguments.json else written:
        print(line)
    return 0


def write_data(suite_name: str, folder: Path, option: str | None) -> list[str]:
    """Write the data of every task of a suite, all of it or nothing where the folder is new or empty, as folders of
    `datasets.save_to_disk`, and the text corpus beside them where a stage of the suite reads one. Returns the paths of what was written. option: where to take the data, as for `run`.

    Raises TaskError for data that cannot be had, QuantboardError for a folder that cannot be written to.
    """
    from backends.artefacts import is_free, whole_folder
    from harness.plan.data import find_data
    from harness.suite.load import load_suite
    from tasks import DataRef, TaskError
    from tasks.sources import hub_reachable, write_saved

    suite = load_suite(suite_name)
    own = [task for task in suite.tasks if task in suite.task]
    if own:
        files = {file for task in own for file in suite.task[task].data.model_dump(exclude_none=True).values()}
        say(
            f"note: the suite names the files of {', '.join(own)} itself; copy them with it: {', '.join(sorted(files))}"
        )
    others = [task for task in suite.tasks if task not in own]
    refs: dict[str, DataRef] = {}
    for task, source in (find_data(suite, option, hub_reachable, others) if others else {}).items():
        if not isinstance(source, DataRef):
            raise TaskError(f"{task}: {source[0]}; {source[1]}")
        if source.kind == "sample" and (option or suite.data) != "sample":
            raise TaskError(
                f"{task}: the hub cannot be reached; give --data DIR, or --data sample to write the generated sample"
            )
        refs[task] = source

    def write(into: Path) -> list[str]:
        written = [str(path) for task, ref in refs.items() for path in write_saved([task], ref, into)]
        return written + (_copy_corpus(refs.values(), into / "corpus") if _reads_corpus(suite) else [])

    folder = folder.expanduser().resolve()
    if not is_free(folder):  # the data of other suites: each task's is written whole
        return write(folder)
    try:
        with whole_folder(folder) as part:
            written = write(part)
    except OSError as error:
        raise QuantboardError(disk_fault(error, folder, "name another folder", "cannot be written")) from None
    except TaskError as error:
        raise TaskError(str(error).replace(str(part), str(folder))) from None
    return [path.replace(str(part), str(folder)) for path in written]


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
