"""The command line: `quantboard ...`, or `python -m harness ...`.

Each module of this folder has a group of verbs: a function a verb, and its arguments beside it. Heavy modules are imported
inside the verb that needs them, so that `--help`, `validate` and `plan` answer at once. Exit codes: 0 done, 1 a cell failed,
2 wrong input or a fault of this machine, 130 interrupted, 143 and 129 ended by SIGTERM and SIGHUP.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from harness.cli import cache, data, doctor, export, flops, gate, pick, records, schemes, score, search, suites, thin
from harness.cli.arguments import Parser, Verb
from harness.cli.terminal import say, tell
from harness.errors import QuantboardError, SuiteError


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words:
        parser().print_help(sys.stderr)
        return 2
    tell.cache_clear()
    try:
        options = parser().parse_args(words)
        verb: Verb = options.verb
        with ended_by_signals():
            return verb(options)
    except KeyboardInterrupt as interrupt:
        how = f"ended by {interrupt.name}" if isinstance(interrupt, Ended) else "interrupted"
        say(f"{how}; what was recorded is kept, and the same command continues from there")
        return 128 + (interrupt.number if isinstance(interrupt, Ended) else signal.SIGINT)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        if not _is_user_fault(error):
            raise
        problems = error.problems if isinstance(error, SuiteError) else (str(error),)
        if "--json" in words:
            print(json.dumps({"error": list(problems)}))
        for problem in problems:
            say(problem)
        return 2


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which end a command as Ctrl-C does: children save their state, temporary folders are removed."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.name = number, signal.Signals(number).name


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Inside the block SIGTERM and SIGHUP raise Ended, unless they are ignored, as nohup(1) has SIGHUP."""

    def end(number: int, frame: object) -> None:
        raise Ended(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        numbers = (signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            if before[number] is signal.SIG_DFL:
                signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_user_fault(error: Exception) -> bool:
    """Wrong input or a fault of this machine, in any package. Anything else is a bug and keeps its traceback."""
    from backends import BackendError
    from tasks import TaskError

    return isinstance(error, QuantboardError | BackendError | TaskError)


def parser() -> Parser:
    top = Parser(
        prog="quantboard",
        description="Measure quantized BERT-family encoders, to decide which one to ship.",
        epilog="First try: `quantboard run sample`, then `quantboard site`. Your own model: `quantboard pick MODEL --data FILE`."
        " `quantboard VERB --help` explains a verb.",
    )
    verbs = top.add_subparsers(metavar="VERB", required=True)
    for group in (pick, suites, search, score, records, gate, export, doctor, data, cache, schemes, flops, thin):
        group.add_verbs(verbs)
    return top


if __name__ == "__main__":
    sys.exit(main())
