"""Arrow streams and Parquet files of others, read so that a damaged one ends in a message.

Files are not mapped into memory: reading beyond the end of a cut one would end the process (SIGBUS). Every batch is validated in
full, since offsets of a damaged one lead anywhere in memory. And since a library in C++ may still end the process, a file is read
first by a child, `python -m tasks.arrow FILE`, unless a child has read the same file before.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.base import TaskError
from tasks.identity import cache_folder

if TYPE_CHECKING:
    import pyarrow as pa

BROKEN = (OSError, ValueError, TypeError, LookupError, OverflowError, MemoryError, RuntimeError)
"""What pyarrow raises for damaged files, besides its ArrowException."""

CHILD_SECONDS = 3600.0
"""After so long a child counts as hung."""


def main(arguments: Sequence[str]) -> int:
    """The child: it reads all rows of a file, and the parent looks at how it ends."""
    path = Path(arguments[0])
    with contextlib.suppress(TaskError, *BROKEN):  # the parent will meet the same, and says it
        if path.suffix.lower() == ".parquet":
            _parquet_rows(path)
        else:
            for batch in _stream_batches(path):
                batch.to_pylist()
    return 0


def try_in_child(path: Path, program: Sequence[str] = ("-m", "tasks.arrow")) -> None:
    """Let a child read the file first, once. Raises TaskError where the child does not survive it."""
    try:
        stat = path.stat()
    except OSError:
        return  # whoever reads it says so
    facts = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}"
    known = cache_folder() / "arrow" / hashlib.sha256(facts.encode(errors="surrogateescape")).hexdigest()[:32]
    if known.exists():
        return
    command = [sys.executable, *program, str(path.resolve())]
    try:
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=CHILD_SECONDS, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        raise TaskError(f"{path}: not read within {CHILD_SECONDS:.0f} s; it is damaged: write it again") from None
    if code < 0:
        raise TaskError(
            f"{path}: the process that reads it ends by {signal.Signals(-code).name}; it is damaged, or too large for this"
            " machine's memory: write it again"
        )
    with contextlib.suppress(OSError):  # a full or read-only cache: a child reads it again next time
        known.parent.mkdir(parents=True, exist_ok=True)
        known.touch()


def stream_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow stream. Raises TaskError."""
    try_in_child(path)
    return _stream_batches(path)


def _stream_batches(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    try:
        with pa.OSFile(str(path)) as source, pa.ipc.open_stream(source) as reader:
            for batch in reader:
                batch.validate(full=True)
                yield batch
    except (pa.ArrowException, *BROKEN) as error:
        raise not_arrow(path, error) from error


def not_arrow(path: Path, error: Exception) -> TaskError:
    return TaskError(f"{path}: not readable as an Arrow stream (cut off?): {_first_line(error)}")


def parquet_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file. Raises TaskError."""
    try_in_child(path)
    return _parquet_rows(path)


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with path.open(
            "rb"
        ) as file:  # on this thread alone: else Arrow's threads may outlive it and abort the process at its end
            table = parquet.ParquetFile(file, pre_buffer=False).read(use_threads=False)
        table.validate(full=True)
        rows: list[dict[str, Any]] = table.to_pylist()
    except (pa.ArrowException, *BROKEN) as error:
        raise TaskError(f"{path}: cannot be read as Parquet: {_first_line(error)}; write it again") from None
    return rows


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # how a library behaves while Python ends says nothing about the file
