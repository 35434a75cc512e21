"""The command line: `quantboard ...`, or `python -m harness ...`.

Each module of this folder has a group of verbs: a function a verb, and its arguments beside it. Heavy modules are imported
inside the verb that needs them, so that `--help`, `validate` and `plan` answer at once. Exit codes: 0 done, 1 a cell failed,
2 wrong input or a fault of this machine, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from harness.cli import data, doctor, export, flops, gate, pick, records, schemes, score, suites
from harness.cli.arguments import Verb
from harness.cli.terminal import say
from harness.errors import QuantboardError, SuiteError


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    verb: Verb = options.verb
    try:
        return verb(options)
    except KeyboardInterrupt:
        say("interrupted; what was recorded is kept, and the same command continues from there")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        if not _is_user_fault(error):
            raise
        problems = error.problems if isinstance(error, SuiteError) else (str(error),)
        if options.json:
            print(json.dumps({"error": list(problems)}))
        for problem in problems:
            say(problem)
        return 2


def _is_user_fault(error: Exception) -> bool:
    """Wrong input or a fault of this machine, in any package. Anything else is a bug and keeps its traceback."""
    from backends import BackendError
    from tasks import TaskError

    return isinstance(error, QuantboardError | BackendError | TaskError)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="quantboard",
        description="Measure quantized BERT-family encoders, to decide which one to ship.",
        epilog="`quantboard VERB --help` explains a verb. First try: `quantboard run sample`, then `quantboard site`.",
    )
    verbs = top.add_subparsers(metavar="VERB", required=True)
    for group in (suites, data, score, pick, gate, records, schemes, export, doctor, flops):
        group.add_verbs(verbs)
    return top


if __name__ == "__main__":
    sys.exit(main())
