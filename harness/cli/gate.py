"""The verb `gate`: exit code 1 where tonight's records are worse than earlier ones."""

from __future__ import annotations

import argparse
import html
import io
import json
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.arguments import Verbs, add_results, add_verb, positive_number
from harness.errors import QuantboardError, markdown, refuse, visible
from harness.machine import paths

if TYPE_CHECKING:
    from harness.report.gate import Check, Gate, Limits


def add_verbs(verbs: Verbs) -> None:
    text = "fail if the newest records lost accuracy or speed against earlier ones"
    parser = add_verb(verbs, "gate", gate, text)
    parser.add_argument(
        "--against",
        required=True,
        metavar="REF",
        help="the records of earlier nights: a folder, or a git tag, branch or commit whose results/ are read",
    )
    parser.add_argument(
        "--max-slowdown", type=_percent, default=0.05, metavar="PERCENT", help="largest loss of speed to let pass; 5%%"
    )
    parser.add_argument(
        "--max-loss", type=positive_number, default=0.5, metavar="POINTS", help="largest loss of accuracy; 0.5 points"
    )
    parser.add_argument("--markdown", action="store_true", help="print Markdown, for the summary of a CI run")
    add_results(parser)


def _percent(text: str) -> float:
    value = positive_number(text.removesuffix("%")) / 100
    if value >= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a percentage below 100; give one such as 5%")
    return value


def gate(options: argparse.Namespace) -> int:
    from harness.cli.records import read_all
    from harness.records.scores import ScoreStore
    from harness.report import gate as rule

    stored = read_all(options.results or paths.results(), refuse)
    with _reference(options.against, options.results or paths.results()) as folder:
        reference = read_all(folder, refuse)
        known = {record.record_id for _, record in reference}
        new = [(path, record) for path, record in stored if record.record_id not in known]
        if not new:
            raise QuantboardError(f"no record is newer than {options.against}; run a suite with --remeasure first")
        limits = rule.Limits(options.max_slowdown, options.max_loss)
        scores = ScoreStore([*reference, *new])
        result = rule.gate([record for _, record in new], [record for _, record in reference], scores, limits)
    if options.json:
        print(json.dumps(_to_json(result, options.against)))
    elif options.markdown:
        print(_to_markdown(result, limits, options.against))
    else:
        for line in _lines(result, limits, options.against):
            print(visible(line))
    return 1 if result.worse else 0


@contextmanager
def _reference(name: str, results: Path) -> Iterator[Path]:
    """A folder with the records that `--against` names. Raises QuantboardError."""
    if Path(name).is_dir():
        yield Path(name)
        return

    def git(*words: str) -> subprocess.CompletedProcess[bytes]:
        folder = results.resolve() if results.is_dir() else Path.cwd()
        return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=False)

    asked = git("rev-parse", "--show-toplevel", "--show-prefix")
    if not asked.returncode:
        top, prefix = asked.stdout.decode().splitlines()
        asked = git("-C", top, "archive", f"{name}:{prefix}")
    if asked.returncode:
        reason = asked.stderr.decode(errors="replace").strip().splitlines()
        raise QuantboardError(
            f"--against: {name}: no such folder, and git has no records under that name"
            f" ({reason[-1][:200] if reason else 'git failed'}); give a folder, tag, branch or commit"
        )
    with tempfile.TemporaryDirectory(prefix="quantboard-") as scratch:
        with tarfile.open(fileobj=io.BytesIO(asked.stdout)) as archive:
            archive.extractall(scratch, filter="data")
        yield Path(scratch)


def _summary(result: Gate, limits: Limits, against: str) -> str:
    compared = len({check.record.record_id for check in result.checks})
    if result.worse:
        return f"WORSE than {against}: {len(result.worse)} of {len(result.checks)} checks on {compared} rows"
    return f"Not worse than {against}: {len(result.checks)} checks on {compared} rows"


def _notes(result: Gate, limits: Limits) -> Iterator[str]:
    yield (
        f"Limits: {100 * limits.max_slowdown:g}% of speed, {limits.max_loss:g} points. In brackets: 95% intervals."
        " p is corrected for the number of checks (Holm)."
    )
    for why in sorted(set(result.untested.values())):
        count = list(result.untested.values()).count(why)
        yield f"Speed of {count} rows was not compared: {why}."
    if result.absent:
        yield f"{len(result.absent)} rows of the reference were not measured again."


def _row_name(check: Check) -> str:
    record = check.record
    return f"{record.suite}: {record.model} / {record.task} / {record.label} / seed {record.seed}"


def _lines(result: Gate, limits: Limits, against: str) -> Iterator[str]:
    yield _summary(result, limits, against)
    for check in result.worse:
        p = f", p {check.p:.2g}" if check.p is not None else ""
        yield f"  {_row_name(check)}"
        yield f"    {check.words}{p}"
    yield from _notes(result, limits)


def _to_markdown(result: Gate, limits: Limits, against: str) -> str:
    lines = [f"### {_summary(result, limits, against)}", ""]
    if result.worse:
        lines += ["| row | what changed | p |", "|---|---|---|"]
        for check in result.worse:
            p = f"{check.p:.2g}" if check.p is not None else ""
            lines.append(f"| {_cell(_row_name(check))} | {_cell(check.words)} | {p} |")
        lines.append("")
    return "\n".join([*lines, *(f"- {markdown(note)}" for note in _notes(result, limits))])


def _cell(text: str) -> str:
    """Text of a record in a Markdown table: as it is, without effect."""
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", html.escape(" ".join(visible(text).split()), quote=False))


def _to_json(result: Gate, against: str) -> dict[str, Any]:
    def check_json(check: Check) -> dict[str, Any]:
        test = check.test
        return {
            "record_id": check.record.record_id,
            "row": _row_name(check),
            "kind": check.kind,
            "worse": check.worse,
            "words": check.words,
            "p": check.p,
            "value": test.value if test else None,
            "low": test.low if test else None,
            "high": test.high if test else None,
            "method": test.method if test else "",
        }

    return {
        "against": against,
        "worse": bool(result.worse),
        "checks": [check_json(check) for check in result.checks],
        "untested": dict(result.untested),
        "absent": [record.record_id for record in result.absent],
    }
