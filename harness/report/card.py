"""README.md of an exported model: what it is, what was measured of it, and how to run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.errors import markdown, visible
from harness.records.figure import Figure
from harness.records.schema import Record
from harness.report.methods import Contest, name_of
from harness.report.pick import Method, Ratio


def card(
    record: Record, contest: Contest | None, files: Sequence[str], versions: Mapping[str, str], *, dynamic: bool
) -> str:
    """Markdown. contest: where the record was compared with a baseline. files: what the folder holds. versions: of the packages
    that run it. dynamic: activations are quantized as they come."""
    methods = contest.methods if contest else ()
    name = name_of(contest, record.record_id) if contest else None
    method = next((method for method in methods if method.name == name), None)
    title = (method.title if method else "") or record.label
    base = _code(contest.baseline.label) if contest else ""
    rows = [*_accuracy(record), *(_speed(method, base) if method else [])]
    rows += [("Size of the model", f"{record.artifact_bytes / 2**20:.1f} MiB")] if record.artifact_bytes else []
    rows += [("Peak memory of the process", f"{record.memory.peak_rss_bytes / 2**20:.0f} MiB")] if record.memory else []
    if record.flops:
        rows.append(("Integer share of its products", f"{record.flops.int8_share:.0%}"))
    lines = [
        f"# {markdown(record.model)}, {markdown(title)}",
        "",
        f"Measured on `{_code(record.task)}` with Quantboard.",
        "",
    ]
    lines += ["| what | measured |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows), ""]
    lines += ["In brackets: 95% intervals.", ""]
    if "predict.py" in files:
        lines += [
            "## Run it",
            "",
            f"    python -m pip install {' '.join(f'{name}=={v}' for name, v in versions.items())}",
        ]
        lines += ['    python predict.py "a text"', ""]
        lines += ["`predict` in it takes a list of texts, or of pairs of them.", ""]
    if dynamic:
        lines += ["Activations are quantized by what shares the batch, so an answer near a tie may depend on it.", ""]
    lines += ["## How it was measured", "", *(f"- {line}" for line in _conditions(record)), ""]
    return "\n".join(lines)


def _accuracy(record: Record) -> list[tuple[str, str]]:
    split = f" of {record.accuracy[0].split}" if len(record.accuracy) > 1 else ""
    metrics = record.accuracy[0].metrics if record.accuracy else {}
    return [(f"{name.replace('_', ' ')}{split}, %", _figure(figure, 1)) for name, figure in metrics.items()]


def _speed(method: Method, base: str) -> list[tuple[str, str]]:
    rows = []
    if method.kept:
        rows.append((f"Share of `{base}` that is kept, %", _ratio(method.kept, 100, 1)))
    if method.speed_up:
        rows.append((f"Speed, times `{base}`", _ratio(method.speed_up, 1, 2)))
    for name, value in (("90%", method.p90_ms), ("99%", method.p99_ms)):
        if value:
            rows.append((f"Latency of one text, {name} of queries, ms", f"{value:.1f}"))
    return rows


def _conditions(record: Record) -> list[str]:
    machine = record.machine
    software = ", ".join(f"{name} {version}" for name, version in record.software.items())
    flags = " ".join(machine.get("flags", ()))
    cores = machine.get("cores")
    lines = [f"Machine: {machine.get('cpu')}, {cores} cores{f' ({flags})' if flags else ''}", f"Software: {software}"]
    for part in record.accuracy:
        lines.append(
            f"Data: {part.examples:,} examples of {part.split}{f', {record.data.label}' if record.data else ''}"
        )
    named = [*lines, f"Record: {record.record_id}, {record.finished}"]
    return [*map(markdown, named), f"Command: `{_code(record.command)}`"]


def _figure(figure: Figure, digits: int) -> str:
    return _ratio(Ratio(figure.value, figure.low, figure.high), 1, digits)


def _ratio(ratio: Ratio, factor: float, digits: int) -> str:
    text = f"{factor * ratio.value:.{digits}f}"
    if ratio.low is None or ratio.high is None or ratio.low == ratio.high:
        return text
    return f"{text} [{factor * ratio.low:.{digits}f}, {factor * ratio.high:.{digits}f}]"


def _cell(text: str) -> str:
    return visible(text).replace("|", "\\|")


def _code(text: str) -> str:
    """Text inside a pair of backticks."""
    return " ".join(visible(text).replace("`", "'").split())
