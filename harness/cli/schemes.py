"""The verb `schemes`: the quantization schemes that suites may name, with what they do."""

from __future__ import annotations

import argparse
import json

from harness.cli.arguments import Verbs, add_verb


def add_verbs(verbs: Verbs) -> None:
    parser = add_verb(verbs, "schemes", schemes, "list the quantization schemes, with what they do")
    parser.add_argument("suite", nargs="?", help="list the schemes that this suite declares, too")


def schemes(options: argparse.Namespace) -> int:
    from backends.schemes import SUMMARIES, describe, get_scheme, scheme_names
    from harness.suite.load import load_suite

    full = {name: name for name in scheme_names()}
    if options.suite:
        suite = load_suite(options.suite)
        full |= {name: suite.scheme_name(name) for name in suite.schemes}
    rows = {
        name: {"summary": SUMMARIES.get(name, other), **describe(get_scheme(other))} for name, other in full.items()
    }
    if options.json:
        print(json.dumps(rows))
        return 0
    for name, row in rows.items():
        print(name)
        print(f"  {row.pop('summary')}")
        for key, value in row.items():
            if value:
                print(f"  {key.replace('_', ' ') + ':':<13}{value}")
    print(
        "A suite declares its own: [schemes.NAME] base = ..., weights, activations, keep_float, smoothing, bias_correction"
        " (docs/method.md)."
    )
    return 0
