"""The verb `thin`: drop old nights from a results folder."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from harness.cli.arguments import Verbs, add_results, add_verb, positive
from harness.machine import paths


def add_verbs(verbs: Verbs) -> None:
    parser = add_verb(verbs, "thin", thin, "drop old nights: the newest stay, and of older ones the first of a week")
    parser.add_argument(
        "--keep", type=positive, default=60, metavar="N", help="how many of a cell's newest nights stay; default: 60"
    )
    parser.add_argument("--write", action="store_true", help="do it; without, only say what would go")
    add_results(parser)


def thin(options: argparse.Namespace) -> int:
    from harness.cli.records import read_all
    from harness.records import thin as rule

    done = rule.thin(read_all(options.results or paths.results()), options.keep, write=options.write)
    if options.json:
        print(json.dumps(asdict(done) | {"scores": list(map(str, done.scores)), "written": options.write}))
        return 0
    if not done.runs:
        print(f"nothing to drop: no cell has more than {options.keep} nights")
        return 0
    how = "dropped" if options.write else "would drop; --write does it"
    print(f"{len(done.runs)} old nights with {done.records} records and {len(done.scores)} files of scores: {how}")
    return 0
