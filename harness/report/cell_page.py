"""What the page of a cell shows: all that its record holds, and how it compares with its baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from harness.measure.precision import in_words
from harness.records.schema import Accuracy, Record
from harness.records.scores import ScoreStore
from harness.report.boards import Board, page_name
from harness.report.ceiling import ceiling_remark
from harness.report.columns import difference_value, min_accuracy, p_text, ratio_value, share_value
from harness.report.comparability import (
    OTHER_TRAINING,
    TRAINING_UNKNOWN,
    has_valid_accuracy,
    is_sample,
    wanted_precision,
)
from harness.report.compare import Comparison, ancestor_of
from harness.report.leaderboards import SPEED_ONLY
from harness.report.names import name_of
from harness.report.noise_map import NoiseMap, noise_map
from harness.report.pages import standing_badge, suite_page_name, uncommitted_remarks
from harness.report.row_accuracy import AccuracyPicture, accuracy_picture
from harness.report.row_answer import RowAnswer
from harness.report.row_facts import Fact, PlacementPicture, commands, cost_facts, placement_picture, provenance
from harness.report.row_speed import SpeedPicture, speed_picture
from harness.report.speed_ratios import figure_words
from harness.report.speed_section import SpeedSection, cold_start_table, interleaved_table, speed_section
from harness.report.tables import Badge, Column, Table, Value, formatted, number, text_columns


@dataclass(frozen=True)
class AccuracySection:
    split: str
    table: Table
    examples: str
    selected_on: str
    batches: str
    classes: Table | None


@dataclass(frozen=True)
class ComparisonSection:
    """The cell compared with one other, its baseline or its own engine in floating point (to_engine).

    base: label, page and place of the other. invalid: why the other is invalid; empty where it is not. kept: the share of
    the baseline's accuracy, in words. retrained: the two come of different trainings; training_unknown: the records do not
    say whether they do. checkpoint: the key of the cell's own. corrected: Holm's p, in words.
    """

    title: str
    to_engine: bool
    base_label: str
    base_page: str
    base_place: str
    invalid: str
    kept: str
    retrained: bool
    training_unknown: bool
    checkpoint: str
    corrected: str
    differences: Table | None
    ratios: Table | None


@dataclass(frozen=True)
class QuantizationSection:
    """own_quantizers: the cell runs them; else it runs the same weights without. which: tensors of the picture. rest: of the others."""

    own_quantizers: bool
    summary: str
    which: str
    rest: str
    picture: NoiseMap
    notes: tuple[str, ...]


@dataclass(frozen=True)
class RowPictures:
    """answers: one a split that was compared with the baseline."""

    answers: tuple[AccuracyPicture, ...]
    speed: SpeedPicture | None
    placement: PlacementPicture | None


@dataclass(frozen=True)
class CellPage:
    """name: in plain words. kind: of the method, which decides its colour. tags: what a reader must know before the figures, in a
    few words; notices say it in sentences. findings: (rule, text). costs, provenance: (name, value). commands: (what for,
    command). record: the file of the whole record. answer: None where the cell stands on no leaderboard."""

    name: str
    kind: str
    label: str
    cell: str
    title: str
    suite: str
    suite_page: str
    status: Badge
    reason: str
    remedy: str
    tags: tuple[Badge, ...]
    notices: tuple[str, ...]
    log_tail: str
    pictures: RowPictures
    accuracy: tuple[AccuracySection, ...]
    comparisons: tuple[ComparisonSection, ...]
    speed: SpeedSection | None
    interleaved: Table | None
    cold_start: Table | None
    findings: tuple[tuple[str, str], ...]
    quantization: QuantizationSection | None
    costs: tuple[Fact, ...]
    provenance: tuple[Fact, ...]
    commands: tuple[tuple[str, str], ...]
    record: str
    answer: RowAnswer | None


def record_file(record: Record) -> str:
    """The file beside its page that holds the record as JSON, as it stands in the results."""
    return page_name(record).replace(".html", ".json")


def cell_page(
    record: Record,
    boards: Sequence[Board],
    uncommitted: AbstractSet[str],
    answer: RowAnswer | None = None,
    stored: ScoreStore | None = None,
) -> CellPage:
    """boards: all that have a row of the record. uncommitted: ids of records with an ancestor from a checkout with uncommitted
    changes. stored: the scores, for the pictures of answers."""
    name = name_of(record, ancestor_of(record), baseline=record.baseline and ancestor_of(record) == record.model)
    base = next((base for _, comparison in _compared(record, boards) if (base := comparison.base)), None)
    if base and base.record_id == record.record_id:
        base = None
    pictures = _pictures(record, boards, name.kind, stored)
    return CellPage(
        name=answer.title if answer else name.title,
        kind=name.kind,
        label=record.label,
        cell=f"{record.model}, {record.task}, seed {record.seed}",
        title=f"{record.label}, {record.model}, {record.task}",
        suite=record.suite_title,
        suite_page=suite_page_name(record.suite, is_sample(record)),
        status=standing_badge(record),
        reason=record.why,
        remedy=record.remedy,
        tags=tuple(_tags(record, uncommitted)),
        notices=(
            *_notices(record, uncommitted),
            *_wider(answer, pictures.speed),
            *record.notes,
            *ceiling_remark(record),
        ),
        log_tail="\n".join(record.log_tail),
        pictures=pictures,
        accuracy=tuple(map(_accuracy_section, record.accuracy)),
        comparisons=tuple(_comparison_sections(record, boards)),
        speed=speed_section(record) if record.speed else None,
        interleaved=interleaved_table(record.turns) if record.turns else None,
        cold_start=cold_start_table(record),
        findings=tuple(
            (finding.rule, f"{finding.what} (measured {finding.measured}, bound {finding.bound}). {finding.remedy}")
            for finding in record.faults
        ),
        quantization=_quantization_section(record),
        costs=tuple(cost_facts(record, base, _name_of_base(base))),
        provenance=tuple(provenance(record)),
        commands=tuple(commands(record)),
        record=record_file(record),
        answer=answer,
    )


def _compared(record: Record, boards: Sequence[Board]) -> Iterable[tuple[Board, Comparison]]:
    for board in boards:
        yield board, next(row for row in board.rows if row.record.record_id == record.record_id).comparison


def _name_of_base(base: Record | None) -> str:
    return name_of(base, ancestor_of(base), baseline=base.baseline).short if base else ""


def _pictures(record: Record, boards: Sequence[Board], kind: str, stored: ScoreStore | None) -> RowPictures:
    answers, speed = list[AccuracyPicture](), None
    for board, comparison in _compared(record, boards):
        base_name = _name_of_base(comparison.base)
        found = accuracy_picture(record, comparison, board.split, stored, kind=kind, base_name=base_name)
        answers += [found] if found else []
        engine = board.engines.get(record.record_id)
        engine_name = _name_of_base(engine.base if engine else None)
        speed = speed or speed_picture(
            record, comparison, engine, kind=kind, base_name=base_name, engine_name=engine_name
        )
    return RowPictures(
        tuple(answers),
        speed or speed_picture(record, Comparison(), None, kind=kind, base_name="", engine_name=""),
        placement_picture(record, kind),
    )


def _tags(record: Record, uncommitted: AbstractSet[str]) -> Iterable[Badge]:
    if record.standing != "ok":
        yield standing_badge(record)
    if is_sample(record):
        yield Badge("warn", "sample, not real data")
    if record.speed_only:
        yield Badge("", SPEED_ONLY)
    if record.simulated:
        yield Badge("", "simulation: accuracy only")
    yield from (Badge("warn", words) for words, _ in uncommitted_remarks(record, uncommitted))


def _notices(record: Record, uncommitted: AbstractSet[str]) -> Iterable[str]:
    if is_sample(record):
        yield "Sample data, generated by this project: nothing here says anything about real data."
    if record.simulated:
        yield "A simulation: it shows what quantization costs in accuracy, and says nothing about speed."
    for _, sentence in uncommitted_remarks(record, uncommitted):
        yield sentence


def _wider(answer: RowAnswer | None, speed: SpeedPicture | None) -> Iterable[str]:
    """Why the interval above is not that of the rounds."""
    if answer and speed and speed.base and speed.ratios:
        shown = {interval for _, what, interval, _ in answer.figures if what.endswith("throughput")}
        if shown and shown != {speed.ratios.rows[0].interval}:
            yield (
                "The speed-up at the top is that of its leaderboard: its interval also holds how runs on this machine differ,"
                " and of several seeds it is the median. The band is of these rounds alone."
            )


def _accuracy_section(part: Accuracy) -> AccuracySection:
    return AccuracySection(
        split=part.split,
        table=Table(
            f"Accuracy, {part.split}",
            (*text_columns("metric"), Column("value", "%"), *text_columns("how the interval was made")),
            tuple((Value(name), formatted(figure), Value(figure.method)) for name, figure in part.metrics.items()),
        ),
        examples=f"{part.examples:,} of {part.examples_of_split:,} examples"
        + ("" if part.whole else " (a part: never ranked with the whole)"),
        selected_on=part.selected_on,
        batches=part.batch_formation,
        classes=_class_table(part) if part.classes else None,
    )


def _class_table(part: Accuracy) -> Table:
    """Precision is the share of a class's predictions that are right, recall that of its examples that were found."""
    columns = (
        Column("examples"),
        Column("predicted"),
        Column("right"),
        Column("precision", "%"),
        Column("recall", "%"),
    )
    rows = []
    for name, counts in part.classes.items():
        shares = (100 * counts.right / whole if whole else None for whole in (counts.predicted, counts.examples))
        whole = (number(count, ",.0f") for count in (counts.examples, counts.predicted, counts.right))
        rows.append((Value(name), *whole, *(number(share, ".1f") for share in shares)))
    return Table(f"Classes, {part.split}", (*text_columns("class"), *columns), tuple(rows))


def _comparison_sections(record: Record, boards: Sequence[Board]) -> Iterable[ComparisonSection]:
    """For each split, with the baseline, then with the cell's own engine in floating point."""
    for board in boards:
        row = next(row for row in board.rows if row.record.record_id == record.record_id)
        for to_engine, comparison in ((False, row.comparison), (True, board.engines.get(record.record_id))):
            base = comparison.base if comparison else None
            if comparison and base and base.record_id != record.record_id:
                yield _comparison_section(record, comparison, base, board.split, to_engine=to_engine)


def _comparison_section(
    record: Record, comparison: Comparison, base: Record, split: str, *, to_engine: bool
) -> ComparisonSection:
    what = "the same engine in floating point" if to_engine else "its baseline"
    family = "the cells compared in this way" if to_engine else "its table"
    p = p_text(comparison.corrected)
    reason = comparison.why_incomparable
    about_speed = " about speed" if has_valid_accuracy(base) else ""
    which = "that cell" if to_engine else "the baseline"
    return ComparisonSection(
        title=f"Compared with {what}" + (f", {split}" if split else ""),
        to_engine=to_engine,
        base_label=base.label,
        base_page=page_name(base),
        base_place=f"{base.model}, seed {base.seed}",
        invalid=f"A validity rule{about_speed} fails for {which}: {base.why}." if base.standing == "invalid" else "",
        kept="" if to_engine else _kept(record, comparison),
        retrained=reason == OTHER_TRAINING,
        training_unknown=reason == TRAINING_UNKNOWN,
        checkpoint=record.checkpoint.key if record.checkpoint else "",
        corrected=f"Holm-corrected over {family}: {p}." if p else "",
        differences=_difference_table(comparison, f"{what}, {split}") if comparison.differences else None,
        ratios=_ratio_table(record, comparison, base, family, f"{what}, {split}") if comparison.ratios else None,
    )


def _kept(record: Record, comparison: Comparison) -> str:
    """The share of the baseline's accuracy that it keeps, in words."""
    share = share_value(record, comparison)
    if not share.text:
        return ""
    interval = f" [95%: {share.low}% to {share.high}%, the baseline's figure taken as exact]" if share.low else ""
    asked = f"the suite asks for {100 * min_accuracy(record):g}%, MLPerf for 99% or 99.9%"
    primary = record.accuracy[0].primary
    return f"It keeps {share.text}{interval} of the baseline's {primary} ({share.note}; {asked})."


def _difference_table(comparison: Comparison, other: str) -> Table:
    columns = (
        *text_columns("metric"),
        Column("difference", "points, 95%"),
        Column("p", "uncorrected", kind="text"),
        *text_columns("how"),
    )
    rows = []
    for name, test in comparison.differences.items():
        value = difference_value(test, test.p, "")
        rows.append((Value(name), _without_note(value), Value(value.note), Value("", note=test.method)))
    return Table(f"Differences to {other}", columns, tuple(rows))


def _ratio_table(record: Record, comparison: Comparison, base: Record, family: str, other: str) -> Table:
    columns = (
        *text_columns("scenario", "load"),
        Column("batch"),
        *text_columns("figure"),
        Column("ratio", "95%"),
        Column("p", f"Holm, over {family}", kind="text"),
        *text_columns("how"),
    )
    rows = []
    for load, test in comparison.ratios.items():
        scenario, lengths, batch_size, _ = load
        value = ratio_value(load, test, comparison.corrected_ratio(load), record, base, "")
        shown = replace(_without_note(value), note=in_words(test, wanted_precision(record)))
        place = (Value(scenario), Value(lengths), Value(str(batch_size)), Value(figure_words(load, record)))
        rows.append((*place, shown, Value(value.note), Value("", note=test.method)))
    return Table(f"Ratios of speed to {other}", columns, tuple(rows))


def _without_note(value: Value) -> Value:
    return Value(value.text, value.order, value.low, value.high)


def _quantization_section(record: Record) -> QuantizationSection | None:
    checkpoint = record.checkpoint
    if checkpoint is None or checkpoint.quantization is None:
        return None
    quantization = checkpoint.quantization
    return QuantizationSection(
        own_quantizers=bool(record.scheme),
        summary=f"{checkpoint.scheme} rounds {quantization.quantized} of {quantization.tensors} tensors"
        f" ({100 * quantization.share:.0f}%; constants, and what each operator computes).",
        which="of every rounded tensor" if quantization.noise else "of the tensors that rounding disturbs most",
        rest=_above(quantization.worst) if not quantization.noise else "",
        picture=noise_map(
            quantization.noise or quantization.worst, checkpoint.architecture.get("num_hidden_layers", 0)
        ),
        notes=tuple(quantization.notes),
    )


def _above(worst: Mapping[str, float]) -> str:
    return f"Empty: above {max(worst.values()):.1f} dB, or not rounded." if worst else ""
