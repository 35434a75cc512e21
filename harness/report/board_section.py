"""What the page of a suite shows of one board."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from harness.records.schema import Record
from harness.report.boards import Board, Row, page_name
from harness.report.charts import Curve, accuracy_against_qps, chart_points
from harness.report.comparability import NO_ACCURACY, NOT_SCORED
from harness.report.compare import SeedSpread
from harness.report.pages import standing_badge, uncommitted_remarks
from harness.report.qat_parts import QatParts
from harness.report.tables import Badge, Column, Table, Value, formatted, number, text_columns


@dataclass(frozen=True)
class Chart:
    """Data URIs of the chart for light and dark pages."""

    light: str
    dark: str
    metric: str


@dataclass(frozen=True)
class CellNote:
    """A remark about one cell. page: the cell's. names: of tensors, each with its figure."""

    label: str
    page: str
    cell: str
    text: str
    badge: Badge | None = None
    names: tuple[tuple[str, str], ...] = ()
    addition: str = ""


@dataclass(frozen=True)
class BoardContext:
    """What only all boards of a suite together show. not_run: cells of the suite that have records from other machines only.
    retrained: models whose weights differ from those of a board above. labels: of the curves of the suite's charts."""

    not_run: tuple[str, ...]
    retrained: str
    labels: Mapping[Curve, str]


@dataclass(frozen=True)
class BoardSection:
    """not_run, retrained: as in BoardContext. remarks: on texts, engines and splits. early: labels measured by the first version of the program.
    left_out: cells that a validity rule keeps out of the chart. lossy: cells below 99% of the baseline, with the tensors that
    rounding disturbs most. findings: the validity rules that fail.
    """

    task: str
    split: str
    machine: str
    data: str
    sample: bool
    limit: int | None
    speed: str
    not_run: tuple[str, ...]
    retrained: str
    remarks: tuple[str, ...]
    early: str
    chart: Chart | None
    left_out: str
    table: Table | None
    seeds: Table | None
    qat: Table | None
    qat_has_control: bool
    primary: str
    lossy: tuple[CellNote, ...]
    range_notes: tuple[CellNote, ...]
    findings: tuple[CellNote, ...]
    unmeasured: tuple[CellNote, ...]


def board_section(board: Board, context: BoardContext, uncommitted: AbstractSet[str]) -> BoardSection:
    """uncommitted: ids of records with an ancestor from a checkout with uncommitted changes."""
    points, labels = chart_points(board, context.labels), sorted(context.labels.values())
    chart = accuracy_against_qps(points, board.primary, labels) if len(points) > 1 else None
    left_out = [row.record for row in board.rows if row.has_chart_figures and not row.in_chart]
    name = f"{board.task} {board.split}".strip()
    return BoardSection(
        task=board.task,
        split=board.split,
        machine=board.machine,
        data=board.data if ":" in board.data else f"data: {board.data}",
        sample=board.sample,
        limit=board.limit,
        speed=_speed_profile(board),
        not_run=context.not_run,
        retrained=context.retrained,
        remarks=(
            *([NO_ACCURACY] if board.rows and not board.primary else []),
            *_corpus_remarks(board),
            *_engine_remarks(board),
            *([board.split_sizes] if board.split_sizes else []),
        ),
        early=", ".join(row.record.label for row in board.rows if _is_early(row.record)),
        chart=Chart(chart["light"], chart["dark"], board.primary) if chart else None,
        left_out=", ".join(f"{record.label} of {record.model}" for record in left_out),
        table=_board_table(board, name, uncommitted) if board.rows else None,
        seeds=_seed_table(board, name) if board.seeds else None,
        qat=_qat_table(board, name) if board.qat else None,
        qat_has_control=any(not parts.scheme for parts in board.qat),
        primary=board.primary,
        lossy=tuple(_lossy(row, board.qat) for row in board.rows if row.comparison.bound == 0 and _rounds(row)),
        range_notes=tuple(_range_notes(board)),
        findings=tuple(_findings(board)),
        unmeasured=tuple(_unmeasured(record) for record in board.unmeasured),
    )


def _speed_profile(board: Board) -> str:
    """Whose settings the speeds were measured with, and in how many rounds."""
    first = [max(row.record.speed, key=lambda part: len(part.rounds)) for row in board.rows if row.record.speed]
    profiles = dict.fromkeys(speed.profile for speed in first)
    rounds = sorted({len(speed.rounds) for speed in first})
    counts = f"{' or '.join(map(str, rounds))} round{'' if rounds == [1] else 's'}"
    return f"profile {' and '.join(profiles)}, {counts}, unverified by MLCommons" if first else ""


def _is_early(record: Record) -> bool:
    """Whether its speed was measured by the first version of the program."""
    return bool(record.speed) and not any(round_.mean_tokens for part in record.speed for round_ in part.rounds)


def _corpus_remarks(board: Board) -> Iterable[str]:
    """The text that the general distillation of each student read."""
    checkpoints = [row.record.checkpoint for row in board.rows if row.record.checkpoint]
    several = (
        " The students read different texts, which is part of any difference between them."
        if len(board.corpora) > 1
        else ""
    )
    for identity, models in board.corpora.items():
        known = (made.corpus for made in checkpoints if made.corpus.get("identity") == identity)
        corpus = next(known, None)
        if corpus is None:
            what = f"a text that its records only identify ({identity})"
        else:
            files = len(corpus["files"])
            size = f"{files} file{'s' if files > 1 else ''}, {corpus['bytes']:,} bytes, " if files else ""
            what = f"{corpus['label']}, {size}{corpus['sequences']:,} sequences ({identity})"
        yield f"General distillation of {', '.join(models)} read {what}.{several}"


def _engine_remarks(board: Board) -> Iterable[str]:
    placements = [row.record.placement for row in board.rows if row.record.speed and row.record.placement]
    notes = dict.fromkeys(note for placement in placements for note in placement.notes)
    if notes:
        yield f"Notes of the engines: {'; '.join(notes)}."


def _board_table(board: Board, name: str, uncommitted: AbstractSet[str]) -> Table:
    devices = len({row.record.device for row in board.rows}) > 1
    rows = []
    for row in board.rows:
        record = row.record
        badges = tuple(_badges(record, uncommitted, show_device=devices))
        stand_in = record.checkpoint is not None and record.checkpoint.stand_in
        head = (
            Value(record.label, page=page_name(record), badges=badges),
            Value(record.model, badges=(Badge("warn", "stand-in"),) if stand_in else ()),
            Value(str(record.seed), record.seed),
        )
        rows.append((*head, *row.values))
    columns = (*text_columns("backend", "model"), Column("seed"), *board.columns)
    return Table(name, columns, tuple(rows), sortable=True)


def _badges(record: Record, uncommitted: AbstractSet[str], *, show_device: bool) -> Iterable[Badge]:
    if record.standing == "invalid":
        yield standing_badge(record)
    if record.simulated:
        yield Badge("", "simulation")
    if show_device:
        yield Badge("", record.device)
    for text, sentence in uncommitted_remarks(record, uncommitted)[:1]:
        yield Badge("warn", text, sentence)


def _seed_table(board: Board, name: str) -> Table:
    columns = (
        *text_columns("backend", "model", "seeds"),
        Column(f"{board.primary}, median", "lowest to highest, %"),
        Column("its standard deviation", "points"),
        Column("difference to baseline, median", "lowest to highest, points"),
        Column("its standard deviation", "points"),
    )
    devices = len({spread.device for spread in board.seeds}) > 1
    rows = tuple(_seed_row(spread, show_device=devices) for spread in board.seeds)
    return Table(f"{name} over seeds", columns, rows)


def _seed_row(spread: SeedSpread, *, show_device: bool) -> tuple[Value, ...]:
    """Two seeds say too little for a standard deviation."""
    enough = len(spread.seeds) > 2

    def middle(values: tuple[float, float, float], form: str) -> Value:
        low, median, high = (format(value, form) for value in values)
        return Value(median, values[1], low, high)

    return (
        Value(spread.label, note=spread.device if show_device else ""),
        Value(spread.model),
        Value(", ".join(map(str, spread.seeds))),
        middle(spread.values, ".2f"),
        number(spread.deviation) if enough else Value("two seeds: no claim"),
        middle(spread.points, "+.2f") if spread.points else Value(spread.why_incomparable),
        number(spread.points_deviation if enough else None),
    )


def _qat_table(board: Board, name: str) -> Table:
    columns = (
        *text_columns("backend", "model", "scheme"),
        Column("seed"),
        Column("parent, quantized", "after training"),
        Column("trained with quantizers", "less the parent"),
        Column("of that, training"),
        Column("of that, rounding"),
    )
    rows = []
    for parts in board.qat:
        tests = (parts.parent_ptq, parts.total, parts.training, parts.rounding)
        none = Value("no row" if parts.scheme else "")
        head = (
            Value(parts.label),
            Value(parts.model),
            Value(parts.scheme or "none: further training only"),
            Value(str(parts.seed), parts.seed),
        )
        rows.append((*head, *(formatted(test, "+.2f") if test else none for test in tests)))
    return Table(f"{name}, training with quantizers", columns, tuple(rows))


def _rounds(row: Row) -> bool:
    """Whether its engine rounds by a scheme whose ranges the record describes."""
    return bool(row.record.scheme and row.record.checkpoint and row.record.checkpoint.quantization)


def _lossy(row: Row, qat: Sequence[QatParts]) -> CellNote:
    """The four tensors that rounding disturbs most, and what of a QAT model's difference is rounding."""
    record = row.record
    assert record.checkpoint and record.checkpoint.quantization
    quantization = record.checkpoint.quantization
    additions = []
    for parts in qat:
        same = (parts.label, parts.model, parts.seed) == (record.label, record.model, record.seed)
        if same and parts.rounding and parts.training:
            rounding = formatted(parts.rounding, "+.2f")
            interval = f" ({rounding.low} to {rounding.high})" if rounding.low else ""
            additions.append(
                f"; of its difference rounding is {rounding.text} points{interval},"
                f" further training {parts.training.value:+.2f}"
            )
    return _note(
        record,
        f"rounds {quantization.quantized} of {quantization.tensors} tensors",
        names=tuple((name, f"{decibels:.1f} dB") for name, decibels in list(quantization.worst.items())[:4]),
        addition="".join(additions),
    )


def _range_notes(board: Board) -> Iterable[CellNote]:
    for row in board.rows:
        checkpoint = row.record.checkpoint
        if _rounds(row) and checkpoint and checkpoint.quantization and checkpoint.quantization.notes:
            yield _note(row.record, "; ".join(checkpoint.quantization.notes))


def _findings(board: Board) -> Iterable[CellNote]:
    for row in board.rows:
        for finding in row.record.faults if row.record.standing == "invalid" else ():
            measured = f"{finding.what} (measured {finding.measured}, bound {finding.bound})"
            yield _note(row.record, f"{measured}. {finding.remedy}")


def _unmeasured(record: Record) -> CellNote:
    fix = f". Fix: {record.remedy}" if record.remedy else ""
    return _note(record, f"{record.why or NOT_SCORED}{fix}", badge=Badge(record.standing, record.standing))


def _note(record: Record, text: str, **more: Any) -> CellNote:
    return CellNote(record.label, page_name(record), f"{record.model}, seed {record.seed}", text, **more)
