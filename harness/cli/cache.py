"""The verb `cache`: what lies in the cache, whether it is whole, and what may go."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

from harness.cli.arguments import Verbs, add_results, add_verb, positive_number
from harness.cli.terminal import say, tell
from harness.errors import QuantboardError, did_you_mean, visible
from harness.machine import paths

if TYPE_CHECKING:
    from harness.run.cache import Entry

GIB = 2**30


def add_verbs(verbs: Verbs) -> None:
    text = "list what lies in the cache, and who needs it; verify every byte of it; or prune it by rules"
    parser = add_verb(verbs, "cache", cache, text)
    parser.add_argument("action", nargs="?", choices=["list", "verify", "prune"], default="list", help="default: list")
    parser.add_argument(
        "--kind", action="append", default=[], metavar="KIND", help="list or prune only this kind (may be repeated)"
    )
    parser.add_argument("--unused-days", type=positive_number, metavar="N", help="prune what was not used for N days")
    parser.add_argument(
        "--keep-gib", type=positive_number, metavar="N", help="prune the longest unused until N GiB are left"
    )
    parser.add_argument(
        "--needed",
        action="store_true",
        help="prune also what records, or interrupted runs, need; they start again then",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be pruned, and delete nothing")
    add_results(parser)


def cache(options: argparse.Namespace) -> int:
    from harness.records import store
    from harness.run.cache import KINDS, entries, prune, to_prune, verify

    folder = paths.cache()
    if options.action == "verify":
        broken = verify(folder)
        if options.json:
            print(json.dumps([{"name": name, "fault": fault} for name, fault in broken]))
        for name, fault in [] if options.json else broken:
            print(visible(f"{name}: {fault}; put aside, the next run makes it again"))
        say(f"{folder}: {len(broken)} damaged" if broken else f"{folder}: all of it is what was written")
        return 1 if broken else 0
    for kind in options.kind:
        if kind not in KINDS:
            raise QuantboardError(f"--kind: there is no '{kind}'{did_you_mean(kind, KINDS)}")
    results = options.results or paths.results()
    records = [record for _, record in store.read(results, tell)] if results.is_dir() else []
    found = entries(folder, records)
    if options.action == "list":
        listed = [entry for entry in found if not options.kind or entry.kind in options.kind]
        _print(listed, options, details=bool(options.kind))
        return 0
    keep = None if options.keep_gib is None else int(options.keep_gib * GIB)
    chosen = to_prune(found, kinds=options.kind, days=options.unused_days, keep=keep, needed=options.needed)
    if not options.dry_run:
        prune(folder, chosen)
    _print(chosen, options, details=True)
    freed = sum(entry.size for entry in chosen) / GIB
    say(f"{'would free' if options.dry_run else 'freed'} {freed:.2f} GiB of {sum(one.size for one in found) / GIB:.2f}")
    if not (options.kind or options.unused_days or options.keep_gib):
        say("only what is broken or left over goes without a rule; rules: --kind, --unused-days, --keep-gib")
    return 0


def _print(listed: list[Entry], options: argparse.Namespace, *, details: bool) -> None:
    """A line an entry, or a line a kind."""
    if options.json:
        facts = [
            {"kind": one.kind, "name": one.name, "bytes": one.size, "used": one.used, "needed": one.needed}
            for one in listed
        ]
        print(json.dumps(facts))
        return
    if details:
        for one in listed:
            print(
                visible(f"{_size(one.size)}  {_age(one.used)}  {one.name}{f'  ({one.needed})' if one.needed else ''}")
            )
        return
    kinds = dict.fromkeys(entry.kind for entry in listed)
    for kind in kinds:
        of_kind = [entry for entry in listed if entry.kind == kind]
        needed = sum(bool(entry.needed) for entry in of_kind)
        oldest = _age(min(entry.used for entry in of_kind)).strip()
        words = f"{len(of_kind)} of kind {kind}, {needed} needed, the longest unused for {oldest}"
        print(f"{_size(sum(entry.size for entry in of_kind))}  {words}")


def _size(count: int) -> str:
    return f"{count / 2**20:10.1f} MiB"


def _age(used: float) -> str:
    return f"{max(0.0, time.time() - used) / 86_400:6.1f} days"
