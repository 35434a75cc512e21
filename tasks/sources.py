"""Where a task's rows come from: the published files, saved folders, the hub, or the sample.

Opening a source reads nothing; a split is read when it is asked for. `datasets` is imported only to write folders and to
download. `tasks.identity` says what is called official.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property, partial
from pathlib import Path

from tasks.base import BadRow, DataIdentity, DataRef, TaskError, with_skip
from tasks.definitions import DEFINITIONS, definition_of
from tasks.hub import fetch, fetched, hub_reachable, origin
from tasks.identity import SplitContent, cached, declared_label, identity_of, is_official, label_of, split_content
from tasks.installed import installed_tasks, write_installed
from tasks.raw import expected_files, raw_files, read_raw
from tasks.rows import Row
from tasks.saved import read_saved, saved_files, saved_folders, write_split_folders

__all__ = ["RowSource", "detect", "hub_reachable", "open_rows", "resolve", "write_saved"]


class RowSource:
    """The rows of one task. Everything that reads raises TaskError for broken data."""

    def __init__(self, name: str, data: DataRef) -> None:
        self.name = name
        self.data = data
        self._definition = definition_of(name)
        self._rows: dict[str, tuple[list[Row], int]] = {}

    @property
    def ready(self) -> bool:
        """Whether the rows are on this machine. If not, the first look at rows or identity downloads them."""
        return self.data.kind != "hub" or fetched(self.name) is not None

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are present, train first."""
        if self.data.kind == "sample" and not self._definition.sample:
            raise TaskError(f"{self.name}: the sample has no rows for it; give the data with --data DIR")
        if self.data.kind in ("hub", "sample"):
            return tuple(self._definition.splits)
        return tuple(self._paths)

    def rows(self, split: str) -> list[Row]:
        """All rows of a split in file order, in Hugging Face's flat form."""
        return self._read(split)[0]

    def _read(self, split: str) -> tuple[list[Row], int]:
        if split not in self.splits:
            place = f" in {self.data.location}" if self.data.location else ""
            raise TaskError(f"{self.name}: no split '{split}'{place}; found: {', '.join(self.splits)}")
        if split not in self._rows:
            self._rows[split] = self._load(split)
        return self._rows[split]

    @cached_property
    def identity(self) -> DataIdentity:
        """What every split consists of. Reads each split once; afterwards the cache knows the hashes of its files."""
        if self.data.kind == "sample":
            samples = {split: (self._sample_content(split), "sample") for split in self.splits}
            return identity_of("sample", self._definition, samples)
        from_hub = self.data.kind == "hub"
        labelled = {}
        for split in self.splits:
            read, skip = partial(self._read, split), self.data.skip_bad_rows
            content = split_content(self._definition, split, self._files(split), read, skip=skip)
            declared = declared_label(self._definition, split, (self._paths[split].parent, self._root))
            labelled[split] = content, label_of(self._definition, split, content, declared, from_hub)
        return identity_of(self.data.kind, self._definition, labelled, origin(self._root) if from_hub else "")

    @cached_property
    def _root(self) -> Path:
        return fetch(self.name) if self.data.kind == "hub" else Path(self.data.location)

    @cached_property
    def _paths(self) -> dict[str, Path]:
        """The file (raw) or folder (saved, hub) of each split."""
        find = raw_files if self.data.kind == "raw" else saved_folders
        paths = find(self._definition, self._root)
        if not paths:
            raise _no_data(self.name, self._root)
        return paths

    def _files(self, split: str) -> list[Path]:
        path = self._paths[split]
        return [path] if self.data.kind == "raw" else saved_files(path)

    def _load(self, split: str) -> tuple[list[Row], int]:
        """The rows, and how many were left out."""
        if self.data.kind == "sample":
            from tasks.sample import sample_rows

            return sample_rows(self.name, split), 0
        read = read_raw if self.data.kind == "raw" else read_saved
        try:
            return read(self._definition, self._paths[split], skip=self.data.skip_bad_rows)
        except BadRow as error:
            raise with_skip(error) from None

    def _sample_content(self, split: str) -> SplitContent:
        from tasks.sample import SAMPLE_VERSION

        key = ["sample", self.name, split, SAMPLE_VERSION]
        sha256 = hashlib.sha256(" ".join(map(str, key)).encode()).hexdigest()
        return cached(key, lambda: SplitContent(len(self.rows(split)), sha256, None, False))


def open_rows(name: str, data: DataRef) -> RowSource:
    """The rows of a task; nothing is read or downloaded yet. Raises TaskError for a task without a definition."""
    return RowSource(name, data)


def detect(name: str, folder: Path) -> DataRef:
    """How a folder holds a task's data: the published files are preferred to saved folders. Raises TaskError, naming what
    was looked for."""
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise TaskError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}; --data takes a folder")
    if _reads_its_own_data(name):
        return DataRef("raw", str(folder))
    definition = definition_of(name)
    if raw_files(definition, folder):
        return DataRef("raw", str(folder))
    if saved_folders(definition, folder):
        return DataRef("saved", str(folder))
    raise _no_data(name, folder)


def _reads_its_own_data(name: str) -> bool:
    """Whether a task came with an installed package, which then reads the folder itself."""
    return name not in DEFINITIONS and name in installed_tasks()


def _no_data(name: str, folder: Path) -> TaskError:
    definition = definition_of(name)
    saved = f"a folder of datasets.save_to_disk called {name} with {', '.join(definition.splits)}"
    return TaskError(f"{folder}: no data for {name}; looked for {expected_files(definition)} and {saved}")


def resolve(name: str, data: str | None, hub: bool) -> DataRef | tuple[str, str]:
    """Where a task's rows come from, or (reason, remedy) where real data was demanded and is not available.

    data: a folder, `sample`, `real` (the hub, without falling back on the sample) or None. None means the hub if `hub` says
    that it answers or the data was fetched before, else the sample. Raises TaskError for a folder without the task's data.
    """
    if data == "sample":
        return DataRef("sample")
    if data not in (None, "real"):
        return detect(name, Path(data))
    if hub or (not _reads_its_own_data(name) and fetched(name)):
        return DataRef("hub")
    if data is None:
        return DataRef("sample")
    return (
        f"real data for {name} was demanded, but the hub does not answer",
        "connect to the network, or give the data with --data DIR",
    )


def write_saved(names: Iterable[str], data: DataRef, folder: Path) -> list[Path]:
    """Write each task's splits as `datasets.save_to_disk` does, to `folder/NAME`, such as `folder/glue/rte`. Returns these
    folders.

    A split that is not official stays marked as such by a `quantboard.json` inside. Raises TaskError, also for a full disk.
    """
    written = []
    for name in names:
        if _reads_its_own_data(name):
            written += write_installed(name, data, folder.expanduser().resolve())
            continue
        source = open_rows(name, data)
        definition = definition_of(name)
        target = folder.expanduser().resolve() / name
        labels = {
            split: part.label.split()[0]
            for split, part in source.identity.splits.items()
            if not is_official(part.label)
        }
        write_split_folders(definition, {split: source.rows(split) for split in source.splits}, labels, target)
        written.append(target)
    return written
