"""Chaos: `nox -s chaos -- [--short] [--times N] [--minutes M] [--only NAME] [--seed N] [--done FILE]`.

A very small suite is run once, whole. Then copies of it are attacked: commands are killed (SIGKILL) at random instants and
repeated, single bits of every kind of artefact are flipped, the disk is full, engines fail, two runs begin at once. Afterwards
the records must be those of the undisturbed run: none lost, none doubled, no other accuracy, no damage without a word, and every
command comes to its end. Then each fuzzer reads random files for some minutes. Prints two tables; exit code 1 where a fault was
not survived, or a fuzzer found something, which it adds to `tests/fuzz/corpus`.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.chaos.engines import faulty_engines
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.house import Table, undisturbed
from tests.chaos.power import can_mount, power_cut
from tests.chaos.short import SHORT
from tests.fuzz.hunt import keep, report
from tests.fuzz.targets import TARGETS

ALL: dict[str, Fault] = {
    **FAULTS,
    **({"power cut": power_cut} if can_mount() else {}),
    "faulty engines": faulty_engines,
}


class Done:
    """What earlier parts of the same attack did, and this one adds: a file of JSON lines, or nothing where it has no name."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def add(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def faults(self) -> Table:
        table = Table()
        for one in self.lines:
            if "fault" in one:
                table.add(one["fault"], set(one["outcomes"]))
        return table

    def reports(self) -> list[dict[str, Any]]:
        return [one for one in self.lines if "fuzzer" in one]


def attack(faults: dict[str, Fault], times: int, seed: int, top: Path, done: Done, *, quick: bool = False) -> None:
    """Each fault happens as often as `times` says, drawn from `seed`; those that are done do not happen again."""
    before = {(one["fault"], one["number"]) for one in done.lines if "fault" in one}
    left = [(name, number) for number in range(times) for name in faults if (name, number) not in before]
    if not left:
        return
    whole = undisturbed(top / "whole", quick=quick)
    print(f"the whole run took {whole.seconds:.0f} s; {len(whole.wanted)} cells are measured", flush=True)
    for place, (name, number) in enumerate(left):
        folder, began = top / f"fault-{place}", time.monotonic()
        outcomes = sorted(faults[name](whole, folder, random.Random(f"{seed}, {name}, {number}")))
        shutil.rmtree(folder, ignore_errors=True)
        done.add({"fault": name, "number": number, "outcomes": outcomes})
        print(f"{name}: {', '.join(outcomes) or 'survived'}, {time.monotonic() - began:.0f} s", flush=True)


def fuzz(targets: list[str], minutes: float, seed: int, top: Path, done: Done) -> None:
    """Hunt with each fuzzer that has not hunted yet."""
    before = {one["fuzzer"] for one in done.reports()}
    for name in targets:
        if name not in before:
            found = report(name, 60 * minutes, seed, top / name)
            keep(found)
            done.add({"fuzzer": name, "cases": found.cases, "seconds": found.seconds, "findings": [*found.findings]})
            print(fuzzers(done.reports()[-1:]), flush=True)


def fuzzers(reports: list[dict[str, Any]]) -> str:
    """The table of the fuzzers."""
    text = [f"{'fuzzer':32}{'cases':>10}{'minutes':>10}{'findings':>10}"]
    for one in reports:
        text.append(f"{one['fuzzer']:32}{one['cases']:>10}{one['seconds'] / 60:>10.1f}{len(one['findings']):>10}")
        text += [f"    {what}" for what in one["findings"]]
    return "\n".join(text)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--short",
        action="store_true",
        help="one of each quick fault, some of them one after another on the same checkout",
    )
    parser.add_argument("--times", type=int, default=1, metavar="N", help="how often each fault happens; default: 1")
    parser.add_argument("--minutes", type=float, metavar="M", help="of each fuzzer; default: half a one, --short: none")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=[*dict.fromkeys([*SHORT, *ALL, *TARGETS])],
        help="only this fault or fuzzer",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--done", type=Path, metavar="FILE", help="outcomes of earlier parts; this one's are added")
    options = parser.parse_args(arguments)
    chosen = SHORT if options.short else ALL
    faults = {name: fault for name, fault in chosen.items() if not options.only or name in options.only}
    minutes = options.minutes if options.minutes is not None else 0.0 if options.short else 0.5
    targets = [name for name in TARGETS if minutes and (not options.only or name in options.only)]
    done = Done(options.done)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        top = Path(folder).resolve()
        attack(faults, options.times, options.seed, top, done, quick=options.short)
        fuzz(targets, minutes, options.seed, top, done)
    table, reports = done.faults(), done.reports()
    print(f"\n{table}\n" if table.counts else "")
    print(fuzzers(reports) if reports else "")
    return 0 if table.survived and not any(one["findings"] for one in reports) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
