"""Chaos: `nox -s chaos -- [--short] [--times N] [--minutes M] [--only NAME] [--seed N]`.

A very small suite is run once, whole. Then copies of it are attacked: commands are killed (SIGKILL) at random instants and
repeated, single bits of every kind of artefact are flipped, the disk is full, engines fail, two runs begin at once. Afterwards
the records must be those of the undisturbed run: none lost, none doubled, no other accuracy, no damage without a word, and every
command comes to its end. Then each fuzzer reads random files for some minutes. Prints two tables; exit code 1 where a fault was
not survived, or a fuzzer found something, which it adds to `tests/fuzz/corpus`.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.engines import faulty_engines, some_faulty_engines
from tests.chaos.faults import FAULTS, Fault, flipped, kill_measuring
from tests.chaos.house import Table, Whole, undisturbed
from tests.chaos.power import can_mount, power_cut
from tests.fuzz.hunt import Report, keep, report
from tests.fuzz.targets import TARGETS

ALL: dict[str, Fault] = {
    **FAULTS,
    **({"power cut": power_cut} if can_mount() else {}),
    "faulty engines": faulty_engines,
}


def some_flips(whole: Whole, folder: Path, rng: random.Random) -> set[str]:
    """One bit of several kinds at once, each of which is read in a run."""
    kinds = ["weights", "ONNX file", "tokens", "kept scores", "memory of hashes"]
    return flipped(whole, whole.house.copy(folder, results=True), kinds, rng)


SHORT: dict[str, Fault] = {
    "kill: measuring": kill_measuring,
    **{name: FAULTS[name] for name in ("kill: export", "kill: rescore", "full disk: measuring", "two runners")},
    "bit flips at once": some_flips,
    "faulty engines": some_faulty_engines,
}


def attack(faults: dict[str, Fault], times: int, seed: int, top: Path) -> Table:
    """The table of the faults, printed after each."""
    rng, table = random.Random(seed), Table()
    whole = undisturbed(top / "whole")
    print(f"the whole run took {whole.seconds:.0f} s; {len(whole.wanted)} cells are measured", flush=True)
    for number in range(times):
        for name, fault in faults.items():
            folder, began = top / f"fault-{number}", time.monotonic()
            outcomes = fault(whole, folder, random.Random(rng.random()))
            table.add(name, outcomes)
            shutil.rmtree(folder, ignore_errors=True)
            print(f"{name}: {', '.join(sorted(outcomes)) or 'survived'}, {time.monotonic() - began:.0f} s", flush=True)
    return table


def lines(reports: list[Report]) -> str:
    """The table of the fuzzers."""
    text = [f"{'fuzzer':32}{'cases':>10}{'minutes':>10}{'findings':>10}"]
    for one in reports:
        text.append(f"{one.target:32}{one.cases:>10}{one.seconds / 60:>10.1f}{len(one.findings):>10}")
        text += [f"    {what}" for what in one.findings]
    return "\n".join(text)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--short", action="store_true", help="one of each quick fault, in less than two minutes")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="how often each fault happens; default: 1")
    parser.add_argument("--minutes", type=float, metavar="M", help="of each fuzzer; default: half a one, --short: none")
    parser.add_argument(
        "--only", action="append", default=[], choices=[*ALL, *TARGETS], help="only this fault or fuzzer"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    faults = (
        SHORT
        if options.short
        else {name: fault for name, fault in ALL.items() if not options.only or name in options.only}
    )
    minutes = options.minutes if options.minutes is not None else 0.0 if options.short else 0.5
    targets = [name for name in TARGETS if minutes and (not options.only or name in options.only)]
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        top = Path(folder).resolve()
        table = attack(faults, options.times, options.seed, top) if faults else Table()
        reports = []
        for name in targets:
            reports.append(report(name, 60 * minutes, options.seed, top / name))
            keep(reports[-1])
            print(lines(reports[-1:]), flush=True)
    print(f"\n{table}\n" if faults else "")
    print(lines(reports) if reports else "")
    return 0 if table.survived and not any(one.findings for one in reports) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
