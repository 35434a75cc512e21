"""Where a task's rows come from: the raw files, `save_to_disk` folders, the hub, or the generated sample.

Rows are dicts in Hugging Face's flat form, GLUE's own numbering of labels. Reading raw files imports no library; `datasets`
is imported only where it is needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.base import DataIdentity, DataRef, SplitIdentity, TaskError
from tasks.forms import Form, form_of
from tasks.raw import looked_for, raw_files, read_raw

Row = dict[str, Any]
PROBE_SECONDS = 4.0
OFFICIAL_ROWS: Mapping[str, Mapping[str, int]] = {
    "squad_v1": {"train": 87_599, "validation": 10_570},
    "glue/cola": {"train": 8_551, "validation": 1_043},
    "glue/sst2": {"train": 67_349, "validation": 872},
    "glue/mrpc": {"train": 3_668, "validation": 408},
    "glue/stsb": {"train": 5_749, "validation": 1_500},
    "glue/qqp": {"train": 363_846, "validation": 40_430},
    "glue/mnli": {"train": 392_702, "validation_matched": 9_815, "validation_mismatched": 9_832},
    "glue/qnli": {"train": 104_743, "validation": 5_463},
    "glue/rte": {"train": 2_490, "validation": 277},
}
WEAKEST = ("sample", "substitute", "subset", "official")


@dataclass(frozen=True)
class RowSource:
    """Rows of each split that is there; `load` reads one split when it is asked for."""

    name: str
    kind: str
    splits: tuple[str, ...]
    load: Callable[[str], Sequence[Row]]
    identify: Callable[[str], SplitIdentity]
    _kept: dict[str, list[Row]] = field(default_factory=dict)

    def rows(self, split: str) -> list[Row]:
        """All rows of a split, in file order. Raises TaskError when it is not there or broken."""
        if split not in self.splits:
            raise TaskError(f"{self.name}: has no split '{split}'; it has {', '.join(self.splits)}")
        if split not in self._kept:
            self._kept[split] = list(self.load(split))
        return self._kept[split]

    @cached_property
    def identity(self) -> DataIdentity:
        splits = {split: self.identify(split) for split in self.splits}
        labels = [split.label for split in splits.values()]
        weakest = min(labels, key=lambda label: WEAKEST.index(label.split(" ")[0]))
        return DataIdentity(self.kind, weakest, splits)


def open_rows(name: str, data: DataRef) -> RowSource:
    """The rows of a task. Raises TaskError with file and row where the data is missing or broken."""
    form = form_of(name)
    if data.kind == "sample":
        return _sample(name)
    if data.kind == "raw":
        return _raw(form, name, Path(data.location))
    if data.kind == "saved":
        return _saved(name, Path(data.location))
    return _hub(name)


def label_of(name: str, split: str, rows: int) -> str:
    """What a split's size proves: GLUE splits of another size than the official are substitutes (their rows are of unknown
    provenance); a smaller SQuAD is a subset. Equal size counts as official; the hash in the record says which rows."""
    official = OFFICIAL_ROWS[name].get(split)
    if rows == official:
        return "official"
    if name == "squad_v1" and official and rows < official:
        return f"subset ({rows:,} of {official:,})"
    return "substitute"


def _identity(name: str, split: str, rows: int, sha256: str) -> SplitIdentity:
    return SplitIdentity(rows, OFFICIAL_ROWS[name].get(split), sha256, label_of(name, split, rows))


def _sample(name: str) -> RowSource:
    from tasks.sample import SAMPLE_VERSION, sample_rows

    splits = ("train", "validation_matched", "validation_mismatched") if name == "glue/mnli" else ("train", "validation")

    def identify(split: str) -> SplitIdentity:
        key = hashlib.sha256(f"sample {SAMPLE_VERSION} {name} {split}".encode()).hexdigest()
        return SplitIdentity(len(sample_rows(name, split)), None, key, "sample")

    return RowSource(name, "sample", splits, lambda split: sample_rows(name, split), identify)


def _raw(form: Form, name: str, folder: Path) -> RowSource:
    files = raw_files(form, folder)
    if not files:
        raise TaskError(f"{folder}: no data for {name}; looked for {looked_for(form)}")

    def identify(split: str) -> SplitIdentity:
        path = files[split]
        stat = path.stat()
        key = hashlib.sha256(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{name}".encode()).hexdigest()[:24]
        kept = _cache() / "hashes" / f"{key}.json"
        try:
            found = json.loads(kept.read_text())
            return _identity(name, split, int(found["rows"]), str(found["sha256"]))
        except (OSError, ValueError, KeyError, TypeError):
            pass
        made = _identity(name, split, len(read_raw(form, path)), hashlib.sha256(path.read_bytes()).hexdigest())
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps({"rows": made.rows, "sha256": made.sha256}))
            part.replace(kept)
        except OSError:
            pass  # a full or read-only cache costs a hash next time
        return made

    return RowSource(name, "raw", tuple(files), lambda split: read_raw(form, files[split]), identify)


def _cache() -> Path:
    if given := os.environ.get("QUANTBOARD_CACHE"):
        return Path(given).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("quantboard"))


def _saved_folder(name: str, folder: Path) -> Path | None:
    """Where below `folder` the task's splits lie as written by `datasets.save_to_disk`."""
    short = name.rpartition("/")[2]
    names = ("squad_v1", "squad", "squad_offline") if name == "squad_v1" else (f"glue/{short}", short, f"glue_{short}")
    for candidate in [*(folder / one for one in names), folder]:
        if any(_is_split(candidate / split) for split in OFFICIAL_ROWS[name] if split != "train"):
            return candidate
    return None


def _is_split(folder: Path) -> bool:
    return (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()


def _rows_of(name: str, dataset: Any, where: str) -> list[Row]:
    wanted = form_of(name).columns
    lacking = [column for column in wanted if column not in dataset.column_names]
    if lacking:
        raise TaskError(f"{where}: has no column '{lacking[0]}'; {name} needs {', '.join(wanted)}")
    return [dict(row) for row in dataset.select_columns([*wanted])]


def _content_hash(rows: Sequence[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode())
    return digest.hexdigest()


def _saved(name: str, folder: Path) -> RowSource:
    found = _saved_folder(name, folder)
    if found is None:
        raise TaskError(f"{folder}: no folder of datasets.save_to_disk for {name}")
    splits = tuple(split for split in OFFICIAL_ROWS[name] if _is_split(found / split))
    kept: dict[str, list[Row]] = {}

    def load(split: str) -> list[Row]:
        if split not in kept:
            from datasets import load_from_disk

            try:
                kept[split] = _rows_of(name, load_from_disk(str(found / split)), str(found / split))
            except TaskError:
                raise
            except Exception as error:  # whatever pyarrow says of a broken file
                raise TaskError(f"{found / split}: cannot be read: {' '.join(str(error).split())[:200]}; write it again") from None
        return kept[split]

    def identify(split: str) -> SplitIdentity:
        rows = load(split)
        return _identity(name, split, len(rows), _content_hash(rows))

    return RowSource(name, "saved", splits, load, identify)


HUB = {"squad_v1": ("rajpurkar/squad", None)}


def _hub(name: str) -> RowSource:
    dataset, config = HUB.get(name, ("nyu-mll/glue", name.rpartition("/")[2]))
    kept: dict[str, list[Row]] = {}

    def load(split: str) -> list[Row]:
        if split not in kept:
            import datasets

            datasets.disable_progress_bars()
            try:
                loaded = datasets.load_dataset(dataset, config, split=split)
            except Exception as error:  # the client's many kinds of failure have no common parent
                text = " ".join(str(error).split())[:200]
                raise TaskError(
                    f"{name}: {dataset} could not be had from the hub: {text}; try again, set HF_TOKEN if it is private, or give --data DIR"
                ) from None
            kept[split] = _rows_of(name, loaded, f"hub:{dataset}")
        return kept[split]

    def identify(split: str) -> SplitIdentity:
        rows = load(split)
        return _identity(name, split, len(rows), _content_hash(rows))

    return RowSource(name, "hub", tuple(OFFICIAL_ROWS[name]), load, identify)


_probed: list[bool] = []


def hub_reachable(timeout: float = PROBE_SECONDS) -> bool:
    """Whether the hub (`HF_ENDPOINT`) answers; asked once a process, given up after `timeout` seconds whatever it does."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "ON", "YES"):
        return False
    if not _probed:
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        answer: list[bool] = []

        def ask() -> None:
            try:
                with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=timeout):
                    answer.append(True)
            except urllib.error.HTTPError:
                answer.append(True)  # an answer, though no page
            except (OSError, ValueError, socket.timeout):
                answer.append(False)

        thread = threading.Thread(target=ask, daemon=True)  # name look-ups have no time-out of their own
        thread.start()
        thread.join(timeout)
        _probed.append(answer == [True])
    return _probed[0]


def detect(name: str, folder: Path) -> DataRef:
    """What a folder of the user's holds for a task: raw files or save_to_disk folders. Raises TaskError saying what was looked for."""
    if not folder.is_dir():
        raise TaskError(f"--data: {folder}: no such folder")
    if _saved_folder(name, folder) is not None:
        return DataRef("saved", str(folder.resolve()))
    form = form_of(name)
    if raw_files(form, folder):
        return DataRef("raw", str(folder.resolve()))
    raise TaskError(f"--data: {folder}: no data for {name}; looked for {looked_for(form)}, and for folders of datasets.save_to_disk")


def resolve(name: str, data: str | None, hub: bool) -> DataRef:
    """`sample`, `real` (the hub or an error), a folder, or None: the hub where it answers, else the sample."""
    if data == "sample":
        return DataRef("sample")
    if data == "real" and not hub:
        raise TaskError(f"--data real: {name}: the hub does not answer and the sample was ruled out; go online, set HF_ENDPOINT, or give --data DIR")
    if data in (None, "real"):
        return DataRef("hub") if hub else DataRef("sample")
    return detect(name, Path(data))


def write_saved(names: Sequence[str], data: DataRef, folder: Path) -> list[Path]:
    """Write tasks as `FOLDER/squad_v1/{train,validation}`, `FOLDER/glue/sst2/...`, each split whole or not at all."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    written = []
    for name in names:
        source = open_rows(name, data)
        for split in source.splits:
            target = folder / name / split
            part = target.with_name(f".part-{split}-{os.getpid()}")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                Dataset.from_list(source.rows(split)).save_to_disk(str(part))
                shutil.rmtree(target, ignore_errors=True)
                part.rename(target)
            except OSError as error:
                raise TaskError(f"{target}: cannot be written: {error.strerror or error}; free some space or name another folder") from None
            finally:
                shutil.rmtree(part, ignore_errors=True)
            written.append(target)
    return written
