"""Arrow streams and Parquet files of others, read so that a damaged one ends in a message.

Files are not mapped into memory: reading beyond the end of a cut one would end the process (SIGBUS). Every batch is validated in
full, since offsets of a damaged one lead anywhere in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.base import TaskError

if TYPE_CHECKING:
    import pyarrow as pa

BROKEN = (OSError, ValueError, TypeError, LookupError, OverflowError, MemoryError, RuntimeError)
"""What pyarrow raises for damaged files, besides its ArrowException."""


def stream_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow stream. Raises TaskError."""
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
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with path.open("rb") as file:
            table = parquet.read_table(file, memory_map=False)
        table.validate(full=True)
        rows: list[dict[str, Any]] = table.to_pylist()
    except (pa.ArrowException, *BROKEN) as error:
        raise TaskError(f"{path}: cannot be read as Parquet: {_first_line(error)}; write it again") from None
    return rows


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
