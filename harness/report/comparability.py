"""What two records must share to be compared: the examples for accuracy, the conditions for speed."""

from __future__ import annotations

import json
from typing import Any

from backends import FOR_ONNX_FILES
from backends.schemes import get_scheme, scheme_names
from harness.measure.validity import speed_name
from harness.records.schema import Record
from harness.records.speed_schema import Speed
from harness.suite.measure import Measure
from harness.suite.train import TrainSettings, in_key
from tasks.identity import is_official, label_shown

NO_ACCURACY = "Speed only: random weights have no accuracy."
NOT_SCORED = "its record has no accuracy"


def is_sample(record: Record) -> bool:
    """Whether it was evaluated on the built-in sample, or on a copy of the sample in files."""
    return record.data is not None and (
        record.data.kind == "sample" or any(split.label == "sample" for split in record.data.splits.values())
    )


def is_padded(record: Record) -> bool:
    """Whether its scheme computes padding, so that sequences of real lengths are padded to the maximum for speed as well."""
    scheme = record.scheme or ""
    return scheme.partition(" with ")[0] in scheme_names() and get_scheme(scheme).computes_padding


def is_whole(record: Record) -> bool:
    """Whether the whole evaluation set was used."""
    return limit_of(record) is None


def limit_of(record: Record) -> int | None:
    """How many examples `--limit` left; None for all."""
    limit: int | None = record.settings.get("limit")
    if record.accuracy:
        return None if all(part.whole for part in record.accuracy) else limit
    rows = [split.rows for name, split in record.data.splits.items() if name != "train"] if record.data else []
    return None if limit is not None and rows and limit >= max(rows) else limit


def examples_of(record: Record) -> tuple[Any, ...]:
    """Identifies the evaluated examples: kind of data, hashes of the splits, and `--limit`. Accuracies of different examples
    are neither subtracted nor ranked, and neither replaces the other."""
    splits = record.data.splits if record.data else {}
    hashes = tuple(sorted((name, split.sha256) for name, split in splits.items() if name != "train"))
    return is_sample(record), hashes, limit_of(record)


def data_of(record: Record) -> str:
    """The labels of the data that the model was evaluated and trained on. They are kept apart, because training on a subset
    says nothing about the evaluation set."""
    if record.data is None:
        return "unknown data"
    if is_sample(record) or not record.data.splits:
        return record.data.label
    labels = split_labels(record)
    trained = labels.pop("train", None)
    evaluated = "; ".join(dict.fromkeys(labels.values()))
    if trained is None or not labels or trained == evaluated:
        return evaluated or record.data.label
    return f"evaluated on: {evaluated}; trained on: {trained}"


def split_labels(record: Record) -> dict[str, str]:
    """What each split of the record's data is called, such as "official (by row count)"."""
    if record.data is None:
        return {}
    from_hub = record.data.kind == "hub"
    return {name: label_shown(record.task, name, split.label, from_hub) for name, split in record.data.splits.items()}


def data_with_limit(record: Record, split: str | None = None) -> str:
    """As `data_of`, with the number of examples that `--limit` left (of that split, where one is given)."""
    limits = [
        f"only {part.examples:,} of {part.examples_of_split:,} examples"
        for part in record.accuracy
        if not part.whole and split in (None, part.split)
    ]
    return "; ".join([data_of(record), *dict.fromkeys(limits)])


def unofficial_splits(record: Record) -> str:
    """The sizes of the splits that are not official, and the splits that are missing. Empty for sample data."""
    if record.data is None or is_sample(record):
        return ""
    sizes = [
        f"{name}: {split.rows:,} rows, official {split.official_rows:,}"
        for name, split in record.data.splits.items()
        if split.official_rows is not None and not (split.rows == split.official_rows and is_official(split.label))
    ]
    return "; ".join([*sizes, *(f"{name}: missing" for name in record.data.missing)])


def corpus_identity(record: Record) -> str:
    """Identifies the text that the general distillation of its model read, as planned; empty for models without that stage."""
    spec = record.settings.get("checkpoint")
    while isinstance(spec, dict):
        if spec.get("distill") and (corpus := (spec.get("identity") or {}).get("corpus")):
            return str(corpus)
        spec = spec.get("parent")
    return ""


def training_settings(record: Record) -> str:
    """Everything except the seed that decides a cell's weights and ranges: settings and data of its checkpoint and of all
    its ancestors, and the precision. Records that agree in it differ over seeds by chance alone."""

    def settings(spec: Any) -> Any:
        if not isinstance(spec, dict):
            return spec
        kept = {
            name: settings(value) for name, value in spec.items() if name not in IGNORED_SETTINGS and value is not None
        }
        if not isinstance(train := kept.get("train"), dict):  # in `identity` it is a hash
            return kept
        known = {name: value for name, value in train.items() if name in TrainSettings.model_fields}
        return kept | {"train": {name: train[name] for name in train.keys() - known.keys()} | in_key(known)}

    precision = record.checkpoint.train_precision if record.checkpoint else None
    return json.dumps([settings(record.settings.get("checkpoint")), precision], sort_keys=True)


IGNORED_SETTINGS = ("seed", "model", "data")
"""Settings of a checkpoint that `training_settings` leaves out. `identity` says what the data holds, wherever it is."""


def has_valid_accuracy(record: Record) -> bool:
    """Whether it was measured and no finding concerns its answers. Findings about speed leave the accuracy valid; random weights have
    none."""
    about_accuracy = ("wrong_provider", "ran_float", "no_answer")
    return record.measured and all(finding.rule not in about_accuracy for finding in record.faults)


def is_speed_invalid(record: Record, speed: Speed) -> bool:
    """Whether a validity rule fails for this figure of the record, or for all of them."""
    other_figures = tuple(f"{speed_name(part)}:" for part in record.speed if part is not speed)
    return any(not finding.what.startswith(other_figures) for finding in record.faults)


def standing_words(record: Record) -> str:
    """Its standing, and what of it is invalid: `speed invalid`, or `speed in part invalid` where only some figures are."""
    if record.standing != "invalid" or not has_valid_accuracy(record):
        return record.standing
    whole = all(is_speed_invalid(record, speed) for speed in record.speed)
    return "speed invalid" if whole else "speed in part invalid"


def wanted_precision(record: Record) -> float:
    """The half-width, as a share of a figure, up to which its suite calls a figure of speed precise."""
    return float(record.settings.get("measure", {}).get("precision", Measure.precision))


def retrained_between(record: Record, other: Record) -> bool:
    """Whether both descend from a checkpoint with the same settings but different weights: it was trained again in between,
    and chance in training is part of what distinguishes the two cells. False for records without a lineage."""
    mine, theirs = _lineage(record), _lineage(other)
    return any(theirs.get(key, weights) != weights for key, weights in mine.items())


def why_incomparable(record: Record, base: Record) -> str:
    """Why the accuracy is not compared with a baseline; empty where it is. A cell must descend from the baseline's own
    weights. Two records without a lineage are assumed to, and an ONNX file made elsewhere where its suite says so."""
    if record.backend == FOR_ONNX_FILES and record.settings.get("ancestor") == base.model:
        return ""
    mine, theirs = _lineage(record), _lineage(base)
    if not mine and not theirs:
        return ""
    if not mine or not theirs or base.checkpoint is None:
        return TRAINING_UNKNOWN
    return "" if theirs[base.checkpoint.key] in mine.values() else OTHER_TRAINING


OTHER_TRAINING, TRAINING_UNKNOWN = "other training", "training not known"


def training_caveat(record: Record, other: Record) -> str:
    """What a difference between two cells may include beside what distinguishes them: 'two trainings', 'training not known'."""
    if retrained_between(record, other):
        return "two trainings"
    models = [{side.model, str(side.settings.get("ancestor") or side.model)} for side in (record, other)]
    if record.seed != other.seed or not models[0] & models[1]:
        return ""
    known = [bool(_lineage(side)) for side in (record, other)]
    machines_differ = machine_of(record) != machine_of(other)
    return TRAINING_UNKNOWN if any(known) != all(known) or (machines_differ and not any(known)) else ""


def _lineage(record: Record) -> dict[str, str]:
    return record.checkpoint.lineage if record.checkpoint else {}


def machine_of(record: Record) -> str:
    """Processor and GPUs. All rows of a machine share a board, whichever of its devices they ran on. The processor's name may
    only name a family, so its model and flags follow it."""
    machine = record.machine
    gpus = ", ".join(str(gpu["name"]) for gpu in machine.get("gpus") or [])
    details = [str(machine.get("cpu_model") or ""), " ".join(machine.get("flags") or [])]
    inside = "; ".join(detail for detail in details if detail)
    cores = f"{machine.get('cores', '?')} cores"
    return f"{machine.get('cpu', 'unknown processor')}{f' ({inside})' if inside else ''}, {cores}, {gpus or 'no GPU'}"


def speed_conditions(record: Record, part: Speed) -> tuple[Any, ...]:
    """The conditions of a speed figure. Figures under different conditions do not say which cell is faster."""
    measure = record.settings.get("measure", {})
    load = (part.scenario, part.load, part.batch_size, part.sequence_length, part.latency_bound_ms, part.profile)
    lengths = (
        (examples_of(record), json.dumps(record.settings.get("shape"), sort_keys=True)) if part.load == "real" else ()
    )
    # the first version of the program offered the same sequences in every round
    draws = any(round_.mean_tokens is not None for round_ in part.rounds)
    return (record.task, record.device, load, measure.get("threads"), lengths, draws)
