"""What a row's page says beside its figures: where its operators ran, what it costs, where it comes from, how to repeat it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.records.schema import Checkpoint, Record
from harness.report.bars import Part, parts
from harness.report.comparability import machine_of, split_labels
from harness.report.methods import MIB
from harness.report.strips import Line, Strips, strips
from harness.report.task_rows import export_command

MOST_OPERATORS = 8
"""Kinds of operator that the picture names; the rest is one line."""


@dataclass(frozen=True)
class PlacementPicture:
    """products: of the multiply-accumulates. nodes: by provider or kernel, where there are several. operators: how many nodes of each kind. words: what they say,
    and the engine's remarks."""

    products: tuple[Part, ...]
    nodes: tuple[Part, ...]
    operators: Strips | None
    words: tuple[str, ...]


def placement_picture(record: Record, kind: str) -> PlacementPicture | None:
    """kind: of the row's method, which colours what ran in integers."""
    placement = record.placement
    if placement is None:
        return None
    share = 100 * record.flops.int8_share if record.flops else None
    split = () if share is None else ((share, kind, "INT8"), (100 - share, "same", "float"))
    products = parts([(part, colour, f"{part:.1f}".removesuffix(".0") + f"% {name}") for part, colour, name in split])
    whole = sum(placement.nodes.values())
    several = len(placement.nodes) > 1
    nodes = sorted(placement.nodes.items(), key=lambda item: -item[1])
    return PlacementPicture(
        products=products,
        nodes=parts([(count, "same", f"{count} {name}") for name, count in nodes]) if several else (),
        operators=_operators(placement.detail, kind),
        words=(*_where(nodes, whole, placement.claimed), *map(_sentence, placement.notes)),
    )


def _where(nodes: Sequence[tuple[str, int]], whole: int, claimed: str) -> Iterable[str]:
    if len(nodes) == 1:
        ((name, _),) = nodes
        yield f"All {whole} nodes ran on {name}{', as claimed' if name == claimed else f'; claimed: {claimed}'}."
    elif nodes:
        yield f"{whole} nodes: {', '.join(f'{count} {name}' for name, count in nodes)}."


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:]}{'' if note.endswith('.') else '.'}"


def _operators(detail: Sequence[Sequence[str]], kind: str) -> Strips | None:
    """The most frequent kinds, each with where it ran where that says more than the provider."""
    counts = Counter((node[1], node[2]) for node in detail if len(node) > 2)
    several = len({where for _, where in counts}) > 1
    common = counts.most_common(MOST_OPERATORS)
    lines = [Line(name, str(count), where if several else "", count, kind=kind) for (name, where), count in common]
    rest = sum(counts.values()) - sum(count for _, count in common)
    if rest:
        lines.append(Line(f"{len(counts) - len(common)} other kinds", str(rest), "", rest, kind=kind))
    return strips(lines, "bar", ends=(0.0, float(max(counts.values())))) if lines else None


Fact = tuple[str, str]
"""(name, value)"""


def cost_facts(record: Record, base: Record | None, base_name: str) -> Iterable[Fact]:
    """With the baseline's beside it, where there is one."""

    def beside(mine: str, theirs: str) -> str:
        return f"{mine}; {base_name}: {theirs}" if theirs else mine

    if record.artifact_bytes is not None:
        yield "On disk", beside(_mib(record.artifact_bytes), _mib(base.artifact_bytes) if base else "")
    if record.memory:
        other = base.memory if base else None
        yield "Peak memory", beside(_mib(record.memory.peak_rss_bytes), _mib(other.peak_rss_bytes) if other else "")
        if record.memory.peak_device_bytes is not None:
            yield "Peak device memory", _mib(record.memory.peak_device_bytes)
    if record.cold_start_seconds is not None:
        theirs = base.cold_start_seconds if base else None
        yield (
            "Cold start",
            beside(f"{record.cold_start_seconds:.2f} s", f"{theirs:.2f} s" if theirs is not None else ""),
        )
    if record.build_seconds is not None:
        yield "Build, once", f"{record.build_seconds:.1f} s"
    if record.flops:
        operations = f"{record.flops.total / 1e9:.2f} billion at {record.flops.sequence_length} tokens"
        yield "Operations a sequence", operations
    real = [part for part in record.speed if part.load == "real"] or record.speed
    if real:
        yield "Sequences", f"up to {real[0].sequence_length} tokens, {real[0].mean_tokens:.0f} on average"
        yield "Profile", f"{real[0].profile}, unverified by MLCommons"


def _mib(size: int | None) -> str:
    return "" if size is None else f"{size / MIB:.1f} MiB"


def provenance(record: Record) -> Iterable[Fact]:
    yield "Measured" if record.measured else "Tried", f"{record.finished[:16].replace('T', ' ')} UTC"
    if record.rescored:
        yield "Scored again", f"{record.rescored[:16].replace('T', ' ')} UTC"
    yield "Machine", machine_of(record)
    if record.commit:
        yield "Commit", record.commit[:12] + (", uncommitted changes" if record.dirty else "")
    for name, version in record.software.items():
        yield name, version
    if record.checkpoint:
        yield from _weights(record.checkpoint)
    if record.data:
        labels = split_labels(record)
        for name, split in record.data.splits.items():
            rows = "" if f"{split.rows:,}" in split.label else f", {split.rows:,} rows"
            yield f"Data, {name}", f"{labels[name]}{rows}, {split.sha256[:8]}"
    yield "Seed", str(record.seed)


def _weights(checkpoint: Checkpoint) -> Iterable[Fact]:
    yield "Model", f"{checkpoint.source}, {checkpoint.parameters / 1e6:.1f} million parameters"
    if weights := checkpoint.lineage.get(checkpoint.key):
        yield "Weights", weights[:8]
    if checkpoint.scheme:
        yield "Scheme", checkpoint.scheme
    if checkpoint.calibration_seconds is not None:
        samples = checkpoint.train.get("samples")
        count = f"{samples} training examples, " if samples else ""
        yield "Calibration", f"{count}{checkpoint.calibration_seconds:.0f} s"
    if checkpoint.train_seconds is not None:
        where = " on " + checkpoint.train_device if checkpoint.train_device else ""
        precision = f", {checkpoint.train_precision}" if checkpoint.train_precision else ""
        yield "Training", f"{checkpoint.train_seconds / 60:.0f} min{where}{precision}"


def commands(record: Record) -> Iterable[tuple[str, str]]:
    """(what for, command)"""
    yield "run this row again", f"quantboard rerun {record.record_id}"
    if record.measured and not (record.simulated or record.speed_only) and record.checkpoint:
        yield "take it away", export_command(record)
    yield "run its suite", record.command
