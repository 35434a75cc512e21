"""What training with quantizers did, in parts: more training of the weights, and rounding. A trained model has had its parent's
steps and its own; its row of the same weights without quantizers (on the baseline backend) tells the two apart. Comparison them, as
the control, a model that was only trained on from the same parent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.measure.paired import PairedTest
from harness.records.schema import Record
from harness.records.scores import ScoreStore
from harness.report.comparability import accuracy_stands, why_incomparable
from harness.report.compare import Comparison, accuracy_of, ancestor_of, compare_metrics


@dataclass(frozen=True)
class Trained:
    """Differences of the primary metric, in points, each paired over the same examples, with uncorrected intervals; None where a
    row is not there. posted: the parent's same scheme on the same backend after training, less the parent. whole: the trained
    model's, less the parent: the sum of `training` (its weights without quantizers, less the parent) and `rounding` (with them,
    less without). scheme: empty for a control, which has no quantizers: all of it is training."""

    model: str
    seed: int
    label: str
    scheme: str
    posted: PairedTest | None
    whole: PairedTest
    training: PairedTest | None
    rounding: PairedTest | None


def in_parts(
    entries: Sequence[Record], split: str, beside: Mapping[str, Comparison], stored: ScoreStore
) -> list[Trained]:
    """A line for each cell of a model that was trained with quantizers, with them, by seed."""
    found = []
    for entry in sorted(entries, key=lambda one: (one.model, one.label, one.seed)):
        part = accuracy_of(entry, split)
        whole = beside[entry.record_id].differences.get(part.primary) if part else None
        trained = entry.checkpoint is not None and entry.checkpoint.recipe == "qat" and accuracy_stands(entry)
        if not (trained and entry.scheme and part and whole):
            continue
        same = [one for one in entries if (one.seed, one.task) == (entry.seed, entry.task) and accuracy_stands(one)]
        same.sort(key=lambda one: one.device != entry.device)
        folded = [one for one in same if one.baseline and one.model == entry.model]
        plain = next((one for one in folded if not why_incomparable(entry, one)), None)
        posted = next(
            (
                one
                for one in same
                if (one.model, one.backend, one.scheme) == (ancestor_of(entry), entry.backend, entry.scheme)
            ),
            None,
        )
        theirs = accuracy_of(plain, split) if plain else None
        rounding = (
            compare_metrics(part, theirs, stored.scores(entry, split), stored.scores(plain, split)).get(part.primary)
            if plain and theirs
            else None
        )
        found.append(
            Trained(
                *(entry.model, entry.seed, entry.label, entry.scheme),
                posted=beside[posted.record_id].differences.get(part.primary) if posted else None,
                whole=whole,
                training=beside[plain.record_id].differences.get(part.primary) if plain else None,
                rounding=rounding,
            )
        )
    return [*found, *_controls(entries, split, stored)] if found else []


def _controls(entries: Sequence[Record], split: str, stored: ScoreStore) -> Iterator[Trained]:
    """Models that were trained on from another of the table by fine-tuning: their rows on the baseline backend."""
    plain = [one for one in entries if one.baseline and one.checkpoint and accuracy_stands(one)]
    for entry in sorted(plain, key=lambda one: (one.model, one.seed)):
        spec = entry.settings.get("checkpoint") or {}
        parent = (spec.get("parent") or {}).get("model") if spec.get("recipe") == "finetune" else None
        base = next(
            (
                one
                for one in plain
                if (one.model, one.seed, one.task, one.device) == (parent, entry.seed, entry.task, entry.device)
                and not why_incomparable(entry, one)
            ),
            None,
        )
        part, theirs = accuracy_of(entry, split), accuracy_of(base, split) if base else None
        if base and part and theirs:
            whole = compare_metrics(part, theirs, stored.scores(entry, split), stored.scores(base, split))[part.primary]
            yield Trained(entry.model, entry.seed, entry.label, "", None, whole, whole, None)
