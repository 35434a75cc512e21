"""What training with quantizers did, in parts: more training of the weights, and rounding. A trained model has had its parent's
steps and its own; its row of the same weights without quantizers (on the baseline backend) tells the two apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.measure.paired import Comparison
from harness.record import Record
from harness.report.alike import accuracy_stands, not_kin
from harness.report.compare import Beside, accuracy_of, ancestor_of, compare_metrics
from harness.report.stored import Stored


@dataclass(frozen=True)
class Trained:
    """Differences of the primary metric, in points, each paired over the same examples, with uncorrected intervals; None where a
    row is not there. posted: the parent's same scheme on the same backend after training, less the parent. whole: the trained
    model's, less the parent: the sum of `training` (its weights without quantizers, less the parent) and `rounding` (with them,
    less without)."""

    model: str
    seed: int
    label: str
    scheme: str
    posted: Comparison | None
    whole: Comparison
    training: Comparison | None
    rounding: Comparison | None


def in_parts(entries: Sequence[Record], split: str, beside: Mapping[str, Beside], stored: Stored) -> list[Trained]:
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
        plain = next((one for one in folded if not not_kin(entry, one)), None)
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
    return found
