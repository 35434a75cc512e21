"""What quantization-aware training did, in two parts: the further training of the weights, and the rounding.

A QAT model has had its parent's training steps and its own. Its weights are also evaluated without quantizers, on the baseline
backend; that row separates the two parts. The control is a model that was trained further from the same parent without
quantizers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.measure.paired import PairedTest
from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.report.comparability import has_valid_accuracy, why_incomparable
from harness.report.compare import Comparison, accuracy_of, ancestor_of, tested


@dataclass(frozen=True)
class QatParts:
    """Differences of the primary metric in points, each paired over the same examples, with uncorrected intervals. None where
    a row is missing.

    scheme: empty for a control, which has no quantizers: its whole difference is training.
    parent_ptq: the parent quantized after training, with the same scheme and backend, less the parent.
    total: the QAT model less the parent. It is the sum of the next two.
    training: the QAT model's weights without quantizers, less the parent.
    rounding: the QAT model with its quantizers, less without.
    """

    model: str
    seed: int
    label: str
    scheme: str
    parent_ptq: PairedTest | None
    total: PairedTest
    training: PairedTest | None
    rounding: PairedTest | None


def qat_parts(
    records: Sequence[Record], split: str, comparisons: Mapping[str, Comparison], stored: ScoreStore
) -> list[QatParts]:
    """One for each quantized cell of a QAT model; then, if there are any, one for each control."""
    parts = []
    for record in sorted(records, key=lambda record: (record.model, record.label, record.seed)):
        accuracy = accuracy_of(record, split)
        total = comparisons[record.record_id].differences.get(accuracy.primary) if accuracy else None
        is_qat = record.checkpoint is not None and record.checkpoint.recipe == "qat" and has_valid_accuracy(record)
        if not (is_qat and record.scheme and accuracy and total):
            continue
        unquantized, ptq = _unquantized_and_ptq(record, records)
        theirs = accuracy_of(unquantized, split) if unquantized else None
        rounding = tested(record, unquantized, split, stored) if unquantized and theirs else None
        parts.append(
            QatParts(
                *(record.model, record.seed, record.label, record.scheme),
                parent_ptq=comparisons[ptq.record_id].differences.get(accuracy.primary) if ptq else None,
                total=total,
                training=comparisons[unquantized.record_id].differences.get(accuracy.primary) if unquantized else None,
                rounding=(rounding or {}).get(accuracy.primary),
            )
        )
    return [*parts, *_controls(records, split, stored)] if parts else []


def _unquantized_and_ptq(record: Record, records: Sequence[Record]) -> tuple[Record | None, Record | None]:
    """Of a QAT cell: the row of the same weights without quantizers, and that of its parent quantized after training; on the
    same device where there is one."""
    candidates = [
        other
        for other in records
        if (other.seed, other.task) == (record.seed, record.task) and has_valid_accuracy(other)
    ]
    candidates.sort(key=lambda other: other.device != record.device)
    unquantized = (
        other
        for other in candidates
        if other.baseline and other.model == record.model and not why_incomparable(record, other)
    )
    wanted = (ancestor_of(record), record.backend, record.scheme)
    ptq = (other for other in candidates if (other.model, other.backend, other.scheme) == wanted)
    return next(unquantized, None), next(ptq, None)


def _controls(records: Sequence[Record], split: str, stored: ScoreStore) -> Iterator[QatParts]:
    """Models that were fine-tuned further from another model of the board: their rows on the baseline backend."""
    baselines = [other for other in records if other.baseline and other.checkpoint and has_valid_accuracy(other)]
    for record in sorted(baselines, key=lambda record: (record.model, record.seed)):
        spec = record.settings.get("checkpoint") or {}
        parent = (spec.get("parent") or {}).get("model") if spec.get("recipe") == "finetune" else None
        wanted = (parent, record.seed, record.task, record.device)
        base = next(
            (
                other
                for other in baselines
                if (other.model, other.seed, other.task, other.device) == wanted and not why_incomparable(record, other)
            ),
            None,
        )
        part, theirs = accuracy_of(record, split), accuracy_of(base, split) if base else None
        tests = tested(record, base, split, stored) if base and theirs else None
        if part and tests and part.primary in tests:
            total = tests[part.primary]
            yield QatParts(record.model, record.seed, record.label, "", None, total, total, None)
