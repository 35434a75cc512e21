"""Where a task's rows come from: the classic files, saved folders, the hub, or the sample.

A source is opened without reading anything; rows are read split by split when they are asked for. `datasets` is imported
only to write folders and to download. See `tasks.identity` for what is called official.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property, partial
from pathlib import Path

from tasks.base import DataIdentity, DataRef, TaskError
from tasks.forms import FORMS, Row, form_of
from tasks.hub import fetch, fetched, hub_reachable, origin
from tasks.identity import Measured, declared_label, identity_of, is_official, label_of, measure, remembered
from tasks.raw import looked_for, raw_files, read_raw
from tasks.saved import read_saved, saved_files, saved_folders, write_split_folders

__all__ = ["RowSource", "detect", "hub_reachable", "open_rows", "resolve", "write_saved"]


class RowSource:
    """The rows of one task. Everything that reads raises TaskError for broken data."""

    def __init__(self, name: str, data: DataRef) -> None:
        self.name = name
        self.data = data
        self._form = form_of(name)
        self._read: dict[str, list[Row]] = {}

    @property
    def ready(self) -> bool:
        """Whether the rows are on this machine: else the first look at rows or identity downloads them."""
        return self.data.kind != "hub" or fetched(self.name) is not None

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are there, train first."""
        if self.data.kind in ("hub", "sample"):
            return tuple(self._sample_splits if self.data.kind == "sample" else self._form.splits)
        return tuple(self._places)

    def rows(self, split: str) -> list[Row]:
        """All rows of a split in file order, in Hugging Face's flat form (see `tasks.forms`)."""
        if split not in self.splits:
            there = f" in {self.data.location}" if self.data.location else ""
            raise TaskError(f"{self.name}: no split '{split}'{there}; found: {', '.join(self.splits)}")
        if split not in self._read:
            self._read[split] = self._load(split)
        return self._read[split]

    @cached_property
    def identity(self) -> DataIdentity:
        """What every split is made of. Reads a split's rows once; afterwards the hashes are remembered for its files."""
        if self.data.kind == "sample":
            return identity_of("sample", self._form, {split: (self._sample(split), "sample") for split in self.splits})
        found = {
            split: measure(self._form, split, self._files(split), partial(self.rows, split)) for split in self.splits
        }
        hub = self.data.kind == "hub"
        labelled = {
            split: (measured, label_of(self._form, split, measured, self._declared(split), hub))
            for split, measured in found.items()
        }
        return identity_of(self.data.kind, self._form, labelled, origin(self._root) if hub else "")

    @cached_property
    def _root(self) -> Path:
        return fetch(self.name) if self.data.kind == "hub" else Path(self.data.location)

    @cached_property
    def _places(self) -> dict[str, Path]:
        """The file (raw) or folder of each split."""
        if self.data.kind == "raw":
            found = raw_files(self._form, self._root)
        else:
            found = saved_folders(self._form, self._root)
        if not found:
            raise _nothing(self.name, self._root)
        return found

    def _files(self, split: str) -> list[Path]:
        place = self._places[split]
        return [place] if self.data.kind == "raw" else saved_files(place)

    def _declared(self, split: str) -> str | None:
        return declared_label(self._form, split, (self._places[split].parent, self._root))

    def _load(self, split: str) -> list[Row]:
        if self.data.kind == "sample":
            from tasks.sample import sample_rows

            return sample_rows(self.name, split)
        place = self._places[split]
        return read_raw(self._form, place) if self.data.kind == "raw" else read_saved(self._form, place)

    @property
    def _sample_splits(self) -> tuple[str, ...]:
        from tasks.sample import SAMPLE_SPLITS

        if self.name not in SAMPLE_SPLITS:
            raise TaskError(f"{self.name}: the sample has no rows for it; give the data with --data DIR")
        return SAMPLE_SPLITS[self.name]

    def _sample(self, split: str) -> Measured:
        from tasks.sample import SAMPLE_VERSION

        key = ["sample", self.name, split, SAMPLE_VERSION]
        sha256 = hashlib.sha256(" ".join(map(str, key)).encode()).hexdigest()
        return remembered(key, lambda: Measured(len(self.rows(split)), sha256, None, False))


def open_rows(name: str, data: DataRef) -> RowSource:
    """The rows of a task; nothing is read or downloaded yet. Raises TaskError for a task without a known form."""
    return RowSource(name, data)


def detect(name: str, folder: Path) -> DataRef:
    """Which layout a folder holds for a task; the classic files come first. Raises TaskError naming what was looked for."""
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise TaskError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}; --data takes a folder")
    if _reads_itself(name):
        return DataRef("raw", str(folder))
    form = form_of(name)
    if raw_files(form, folder):
        return DataRef("raw", str(folder))
    if saved_folders(form, folder):
        return DataRef("saved", str(folder))
    raise _nothing(name, folder)


def _reads_itself(name: str) -> bool:
    """Whether a task came with an installed package: what it is given is then its own matter."""
    from tasks import task_names

    return name not in FORMS and name in task_names()


def _nothing(name: str, folder: Path) -> TaskError:
    own = "squad_v1, squad or squad_offline" if name == "squad_v1" else name
    saved = f"a folder of datasets.save_to_disk called {own} with {', '.join(form_of(name).splits)}"
    return TaskError(f"{folder}: nothing for {name}; looked for {looked_for(form_of(name))} and {saved}")


def resolve(name: str, data: str | None, hub: bool) -> DataRef | tuple[str, str]:
    """Where a task's rows come from, or (reason, remedy) where real data was demanded and cannot be had.

    data: a folder, `sample`, `real` (the hub, no fall-back) or None (the hub if `hub` says that it answers or the data was
    fetched before, else the sample). Raises TaskError for a folder that does not hold the task's data.
    """
    if data == "sample":
        return DataRef("sample")
    if data not in (None, "real"):
        return detect(name, Path(data))
    if hub or (not _reads_itself(name) and fetched(name)):
        return DataRef("hub")
    if data is None:
        return DataRef("sample")
    return (
        f"real data for {name} was demanded and the hub does not answer",
        "connect to the network, or give the data with --data DIR",
    )


def write_saved(names: Iterable[str], data: DataRef, folder: Path) -> list[Path]:
    """Write each task's splits as `datasets.save_to_disk` would, to `folder/squad_v1` or `folder/glue/TASK`; yields those.

    What is not official stays marked: a `quantboard.json` inside says so. Raises TaskError, also when the disk is full.
    """
    written = []
    for name in names:
        source = open_rows(name, data)
        target = folder.expanduser().resolve() / form_of(name).name
        identity = source.identity
        weak = {split: part.label.split()[0] for split, part in identity.splits.items() if not is_official(part.label)}
        write_split_folders(form_of(name), {split: source.rows(split) for split in source.splits}, weak, target)
        written.append(target)
    return written
