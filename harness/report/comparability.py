"""What two records must share to stand beside each other: the examples for accuracy, the conditions for speed."""

from __future__ import annotations

import json
from typing import Any

from backends.fake_quant.schemes import get_scheme, scheme_names
from harness.records.schema import Record
from harness.records.speed_schema import Speed
from harness.suite.train import TrainSettings, in_key
from tasks.identity import is_official


def is_sample(entry: Record) -> bool:
    """Of the built-in sample, or of a copy of it in files."""
    return entry.data is not None and (
        entry.data.kind == "sample" or any(split.label == "sample" for split in entry.data.splits.values())
    )


def is_padded(entry: Record) -> bool:
    """Its scheme computes padding, so that sequences of real lengths were padded to the maximum for speed, too."""
    return entry.scheme in scheme_names() and get_scheme(entry.scheme).computes_padding


def is_whole(entry: Record) -> bool:
    return limit_of(entry) is None


def limit_of(entry: Record) -> int | None:
    """Examples that `--limit` left; None for all."""
    limit: int | None = entry.settings.get("limit")
    if entry.accuracy:
        return None if all(part.whole for part in entry.accuracy) else limit
    rows = [split.rows for name, split in entry.data.splits.items() if name != "train"] if entry.data else []
    return None if limit is not None and rows and limit >= max(rows) else limit


def examples_of(entry: Record) -> tuple[Any, ...]:
    """What an accuracy is of: kind of data, hashes of the splits that were evaluated, and how many of their examples. Figures
    with another value of this are of other examples; they are neither subtracted nor ranked, and replace no others."""
    splits = entry.data.splits if entry.data else {}
    hashes = tuple(sorted((name, split.sha256) for name, split in splits.items() if name != "train"))
    return is_sample(entry), hashes, limit_of(entry)


def data_of(entry: Record) -> str:
    """What the model was evaluated and trained on, each by its own label: a subset to train on takes nothing from the
    evaluation."""
    if entry.data is None:
        return "unknown data"
    if is_sample(entry) or not entry.data.splits:
        return entry.data.label
    labels = {name: split.label for name, split in entry.data.splits.items()}
    trained = labels.pop("train", None)
    evaluated = "; ".join(dict.fromkeys(labels.values()))
    if trained is None or not labels or trained == evaluated:
        return evaluated or entry.data.label
    return f"evaluated on: {evaluated}; trained on: {trained}"


def data_with_limit(entry: Record, split: str | None = None) -> str:
    """As `data_of`, and how many examples `--limit` left (of that split)."""
    left = [
        f"{part.examples:,} of {part.examples_of_split:,} examples alone"
        for part in entry.accuracy
        if not part.whole and split in (None, part.split)
    ]
    return "; ".join([data_of(entry), *dict.fromkeys(left)])


def text_of(entry: Record) -> str:
    """What identifies the text that the general stage of its model read, by the plan; empty for models without one."""
    spec = entry.settings.get("checkpoint")
    while isinstance(spec, dict):
        if spec.get("distill") and (text := (spec.get("identity") or {}).get("corpus")):
            return str(text)
        spec = spec.get("parent")
    return ""


def trained_as(entry: Record) -> str:
    """All that decides a cell's weights and ranges but the seed: settings and data of its checkpoint and of all those that it
    comes of, and the precision. What records of one value differ in, over seeds, is left to chance."""

    def settings(spec: Any) -> Any:
        if not isinstance(spec, dict):
            return spec
        found = {name: settings(one) for name, one in spec.items() if name not in NO_MATTER and one is not None}
        if not isinstance(train := found.get("train"), dict):  # in `identity` it is a hash
            return found
        known = {name: value for name, value in train.items() if name in TrainSettings.model_fields}
        return found | {"train": {name: train[name] for name in train.keys() - known.keys()} | in_key(known)}

    precision = entry.checkpoint.train_precision if entry.checkpoint else None
    return json.dumps([settings(entry.settings.get("checkpoint")), precision], sort_keys=True)


NO_MATTER = ("seed", "model", "data")
"""Of a checkpoint's settings: what its data holds is in `identity`, wherever it lies."""


def parts_of(entry: Record) -> str:
    """Of data that is not the official: how many rows each split has, and which are not there."""
    if entry.data is None or is_sample(entry):
        return ""
    found = [
        f"{name}: {split.rows:,} rows, official {split.official_rows:,}"
        for name, split in entry.data.splits.items()
        if split.official_rows is not None and not (split.rows == split.official_rows and is_official(split.label))
    ]
    found += [f"{name}: not there" for name in entry.data.missing]
    return "; ".join(found)


def accuracy_stands(entry: Record) -> bool:
    """Measured, and no finding is about what was computed: one about speed takes nothing from a figure of accuracy."""
    about = ("wrong_provider", "no_answer")
    return entry.measured and all(finding.rule not in about for finding in entry.findings)


def other_training(one: Record, other: Record) -> bool:
    """Whether both come of a checkpoint that is one by its settings but not by its weights: it was trained anew in between.
    What tells the two cells apart is then also what training leaves to chance. Not known of records without a lineage."""
    mine, theirs = _lineage(one), _lineage(other)
    return any(theirs.get(key, weights) != weights for key, weights in mine.items())


def why_incomparable(entry: Record, base: Record) -> str:
    """Why accuracy is not compared with a baseline: a cell comes of the baseline's very weights, or nothing can be said of
    it. Of two records without a lineage that is taken for granted."""
    mine, theirs = _lineage(entry), _lineage(base)
    if not mine and not theirs:
        return ""
    if not mine or not theirs or base.checkpoint is None:
        return "training not known"
    return "" if theirs[base.checkpoint.key] in mine.values() else "other training"


def doubt_of_training(one: Record, other: Record) -> str:
    """What a difference between two cells may hold beside what tells them apart: 'two trainings', 'training not known'."""
    if other_training(one, other):
        return "two trainings"
    family = [{entry.model, str(entry.settings.get("ancestor") or entry.model)} for entry in (one, other)]
    if one.seed != other.seed or not family[0] & family[1]:
        return ""
    known = [bool(_lineage(entry)) for entry in (one, other)]
    elsewhere = machine_of_board(one) != machine_of_board(other)
    return "training not known" if any(known) != all(known) or (elsewhere and not any(known)) else ""


def _lineage(entry: Record) -> dict[str, str]:
    return entry.checkpoint.lineage if entry.checkpoint else {}


def machine_of(entry: Record) -> str:
    """How pages call what a cell ran on: its GPU where it ran on one, else its processor."""
    gpus = entry.machine.get("gpus") or []
    if gpus and entry.device == "cuda":
        return str(gpus[0]["name"])
    return _processor(entry)


def machine_of_board(entry: Record) -> str:
    """Rows of one machine share a board whichever of its devices they ran on."""
    gpus = ", ".join(str(gpu["name"]) for gpu in entry.machine.get("gpus") or [])
    return f"{_processor(entry)}, {gpus or 'no GPU'}"


def _processor(entry: Record) -> str:
    """Its name, which may be no more than a family's, with what tells its members apart."""
    here = entry.machine
    more = [str(here.get("cpu_model") or ""), " ".join(here.get("flags") or [])]
    inside = "; ".join(word for word in more if word)
    return f"{here.get('cpu', 'unknown processor')}{f' ({inside})' if inside else ''}, {here.get('cores', '?')} cores"


def conditions(entry: Record, part: Speed) -> tuple[Any, ...]:
    """What a figure of speed is of. Figures with another value of this say nothing about which cell is faster."""
    measure = entry.settings.get("measure", {})
    load = (part.scenario, part.load, part.batch_size, part.sequence_length, part.latency_bound_ms, part.profile)
    lengths = (
        (examples_of(entry), json.dumps(entry.settings.get("shape"), sort_keys=True)) if part.load == "real" else ()
    )
    draws = any(
        one.mean_tokens is not None for one in part.rounds
    )  # earlier versions drew the same sequences every round
    return (entry.task, entry.device, load, measure.get("threads"), lengths, draws)
