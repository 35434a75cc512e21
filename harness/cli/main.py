"""The command line: `quantboard ...`, or `python -m harness ...`.

Every verb is a short pipe of functions that live elsewhere. Heavy modules are imported inside the verb that needs them, so
that `--help`, `validate` and `plan` answer at once. Exit codes: 0 done, 1 a cell failed, 2 a fault of the input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.cli.suites import data, run, score, show_plan, validate
from harness.cli.terminal import _say
from harness.errors import QuantboardError, SuiteError


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    verb: Callable[[argparse.Namespace], int] = options.verb
    try:
        return verb(options)
    except KeyboardInterrupt:
        _say("interrupted; what was recorded is kept, the same command continues")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        if not _is_users(error):
            raise
        lines = error.problems if isinstance(error, SuiteError) else (str(error),)
        if getattr(options, "json", False):
            print(json.dumps({"error": list(lines)}))
        for line in lines:
            print(line, file=sys.stderr)
        return 2


def _is_users(error: Exception) -> bool:
    """Faults of the user's input, in any room; anything else is a bug and keeps its traceback."""
    from backends import BackendError
    from tasks import TaskError

    return isinstance(error, QuantboardError | BackendError | TaskError)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="quantboard", description="Which way of quantizing a BERT-family encoder should a team ship?"
    )
    verbs = top.add_subparsers(metavar="VERB", required=True)

    def add(
        name: str, verb: Callable[[argparse.Namespace], int], text: str, *, suite: bool = False
    ) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=text, description=text)
        one.set_defaults(verb=verb)
        if suite:
            one.add_argument("suite", help="a suite's name (suites/NAME.toml) or the path of a suite file")
        one.add_argument("--json", action="store_true", help="print JSON only, unrounded, on standard output")
        return one

    def choose(one: argparse.ArgumentParser) -> None:
        one.add_argument(
            "--data",
            metavar="DIR",
            type=_folder,
            help="folder with the data; or 'sample', or 'real' (the hub, never the sample)",
        )
        for name in ("model", "task", "backend"):
            one.add_argument(
                f"--{name}", action="append", default=[], metavar="NAME", help=f"only this {name} (may be repeated)"
            )
        one.add_argument(
            "--seed",
            action="append",
            default=[],
            type=_whole,
            metavar="N",
            help="only this seed of the suite's (may be repeated)",
        )
        one.add_argument(
            "--limit",
            type=_positive,
            metavar="N",
            help="evaluate a seeded random part of N examples: never ranked with the whole",
        )

    add("validate", validate, "check a suite file; nothing is downloaded or run", suite=True)
    one = add(
        "plan",
        show_plan,
        "list the cells that `run` would run here, and why others cannot; touches no network",
        suite=True,
    )
    choose(one)
    one.add_argument(
        "--assume",
        action="append",
        default=[],
        choices=["gpu", "hub"],
        help="plan as if a GPU were there, with the engines' builds that go with one, or as if the hub answered",
    )
    one = add("run", run, "train or load every model, run it on every backend, append a record each", suite=True)
    choose(one)
    one.add_argument(
        "--until",
        choices=["train", "quantize", "build", "score"],
        help="stop every cell after this step: no record yet; a later run at the same commit goes on from there",
    )
    one.add_argument("--fresh", action="store_true", help="run cells again that have a good record")
    one = add("score", score, "official metrics of a predictions file, with intervals")
    one.add_argument("task", help="squad_v1 or glue/TASK")
    one.add_argument("predictions", type=Path, help="JSON: {question id: text} for squad_v1, else a list in row order")
    one.add_argument("--data", metavar="DIR", type=_folder, help="folder with the data; or 'sample', or 'real'")
    one.add_argument("--split", help="of glue/mnli: validation_matched (the default) or validation_mismatched")
    one = add("compare", compare, "two sets of records side by side, with paired tests, intervals and ratios of speed")
    for name in ("a", "b"):
        one.add_argument(name, help="a record id, a label, a backend, a model, or MODEL/LABEL")
    one.add_argument("--task", action="append", default=[], metavar="NAME", help="only this task (may be repeated)")
    one.add_argument("--markdown", action="store_true", help="print a Markdown table")
    one.add_argument("--results", type=Path, help="default: results/ of the checkout, else of the working folder")
    one = add("rescore", rescore, "score stored predictions again, without running a model")
    one.add_argument("names", nargs="*", metavar="RECORD", help="record ids, labels or models; default: all records")
    one.add_argument("--data", metavar="DIR", type=_folder, help="folder with the data; or 'sample', or 'real'")
    one.add_argument("--write", action="store_true", help="append records with the new figures")
    one.add_argument("--results", type=Path, help="default: results/ of the checkout, else of the working folder")
    one = add("rerun", rerun, "run a cell again from its record alone")
    one.add_argument("record", help="a record id")
    one.add_argument("--data", metavar="DIR", type=_folder, help="folder with the data; or 'sample', or 'real'")
    one.add_argument("--source", type=Path, metavar="DIR", help="the model's folder, for a model that came from one")
    one = add("export", export, "write a checkpoint for plain transformers (safetensors) or ONNX Runtime (onnx)")
    one.add_argument("name", metavar="CELL_OR_MODEL", help="a record id, MODEL/LABEL, or a model: as it was trained")
    one.add_argument("folder", type=Path, metavar="DIR", help="a new folder")
    one.add_argument("--format", choices=["onnx", "safetensors"], required=True)
    one.add_argument("--task", action="append", default=[], metavar="NAME", help="the checkpoint for this task")
    one.add_argument("--results", type=Path, help="default: results/ of the checkout, else of the working folder")
    one = add("flops", flops, "floating-point operations of one sequence by the project's rule")
    for name, default in (("layers", 12), ("hidden", 768), ("sequence-length", 384)):
        one.add_argument(f"--{name}", type=_positive, default=default, metavar="N", help=f"default {default}")
    one.add_argument("--intermediate", type=_positive, metavar="N", help="default 4 x hidden")
    one = add(
        "data", data, "write what a suite needs as save_to_disk folders, for machines without a network", suite=True
    )
    one.add_argument("folder", type=Path)
    one.add_argument("--data", metavar="DIR", type=_folder, help="take it from this folder; or 'sample', or 'real'")
    add("doctor", doctor, "what this machine can run, and what to install or fix for the rest")
    one = add("site", site, "render the records below results/ to a static site")
    one.add_argument("--results", type=Path, help="default: results/ of the checkout, else of the working folder")
    one.add_argument("--out", type=Path, help="default: _site/ of the checkout, else of the working folder")
    one.add_argument("--if-changed", action="store_true", help="keep the site that is there if it would be the same")
    return top


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number") from None


def _folder(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it is empty; name a folder")
    return text


def _positive(text: str) -> int:
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def compare(options: argparse.Namespace) -> int:
    from harness.cli.records import compare_records

    return compare_records(options)


def rescore(options: argparse.Namespace) -> int:
    from harness.cli.records import rescore_records

    return rescore_records(options)


def rerun(options: argparse.Namespace) -> int:
    from harness.cli.records import rerun_record

    return rerun_record(options, _say)


def export(options: argparse.Namespace) -> int:
    from harness.cli.records import export_checkpoint

    return export_checkpoint(options)


def flops(options: argparse.Namespace) -> int:
    from harness.measure.flops import encoder_flops, format_flops

    count = encoder_flops(
        layers=options.layers,
        hidden=options.hidden,
        intermediate=options.intermediate or 4 * options.hidden,
        sequence_length=options.sequence_length,
        head_outputs=2,
        head="token",
    )
    if options.json:
        print(json.dumps({"total": count.total, "encoder": count.encoder, "head": count.head}))
    else:
        print(
            f"{format_flops(count.total)} ({count.encoder / 1e6:.2f}M encoder, {count.head / 1e6:.2f}M question answering head)"
        )
    return 0


def doctor(options: argparse.Namespace) -> int:
    from harness.cli.doctor import examine, print_findings

    found: dict[str, Any] = examine()
    print(json.dumps(found)) if options.json else print_findings(found)
    return 0


def site(options: argparse.Namespace) -> int:
    from harness.machine import paths
    from harness.report.site import render

    if options.results and not options.results.is_dir():
        raise QuantboardError(f"--results: {options.results}: no such folder; `quantboard run SUITE` makes records")
    results, out = options.results or paths.results(), options.out or paths.site_output()
    page = render(results, out, if_changed=options.if_changed)
    print(json.dumps({"page": str(page)}) if options.json else f"open {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
